"""Entities counted by hand, forgivingly and strictly, and as the counts with intervals have them."""

from __future__ import annotations

import pytest

from mmattn import InputError
from mmattn.evaluation.tasks.entities import EntityMetrics, entity_metrics, pad_tags

TRUE = [
    ["B-place", "I-place", "O", "B-work"],
    ["O", "B-person", "B-person", "I-person"],
    ["O", "O"],
]
SAID = [
    ["B-place", "O", "O", "B-work"],  # one of two: the place ends too soon
    ["O", "B-person", "I-person", "I-person"],  # two people taken for one
    ["I-place", "O"],  # inside of nothing
]


def test_by_hand() -> None:
    # True: 4 entities. Forgivingly 4 are said (place, work, person, place), strictly 3; 1 is right.
    forgiving, strict = entity_metrics(SAID, TRUE), entity_metrics(SAID, TRUE, strict=True)
    assert (forgiving["precision"], forgiving["recall"], forgiving["f1"]) == (0.25, 0.25, 0.25)
    assert (strict["precision"], strict["recall"]) == (pytest.approx(1 / 3), 0.25)
    assert strict["f1"] == pytest.approx(2 / 7)
    assert {name: value for name, value in forgiving.items() if name.startswith("f1 ")} == {
        "f1 person": 0.0, "f1 place": 0.0, "f1 work": 1.0,
    }  # fmt: skip
    assert forgiving["macro f1"] == pytest.approx(1 / 3)


def test_the_counts_with_intervals_are_the_forgiving_ones() -> None:
    measured = EntityMetrics(("person", "place", "work")).evaluate(SAID, TRUE)
    figures = entity_metrics(SAID, TRUE)
    for name in ("f1", "precision", "recall"):
        assert measured[name] == pytest.approx(figures[name])


def test_without_any_entity() -> None:
    for strict in (False, True):
        assert entity_metrics([["O", "O"]], [["O", "O"]], strict=strict)["f1"] == 0
        assert entity_metrics([["O", "O"]], [["B-place", "O"]], strict=strict)["recall"] == 0


def test_words_that_were_cut_off_are_outside() -> None:
    assert entity_metrics([["B-work"], []], [["B-work", "O"], ["B-work"]])["recall"] == 0.5
    assert pad_tags([[]], [["O", "O"]]) == [["O", "O"]]


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="got 1 predictions, expected 2, one a sentence"):
        entity_metrics([["O"]], [["O"], ["O"]])
    with pytest.raises(InputError, match="sentence 0 has 1 words, got 2 tags"):
        entity_metrics([["O", "O"]], [["O"]])
    with pytest.raises(InputError, match="got the tag 'noun', expected O, B-kind or I-kind"):
        entity_metrics([["noun"]], [["O"]])
