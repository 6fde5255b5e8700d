"""Error rates of transcripts: by hand, against a plain edit distance, empty references, intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.evaluation.tasks.error_rates import (
    Edits,
    count_edits,
    error_rate,
    transcription_metrics,
    worst_predictions,
)

SAID = ["one two three", "four", "", "five six"]
HEARD = ["one too three three", "", "seven eight", "five six"]


def test_the_edits_by_hand() -> None:
    edits = count_edits(HEARD, SAID)
    assert edits.substitutions.tolist() == [1, 0, 0, 0]
    assert edits.deletions.tolist() == [0, 1, 0, 0]
    assert edits.insertions.tolist() == [1, 0, 2, 0]
    assert edits.lengths.tolist() == [3, 1, 0, 2]
    assert edits.rate == pytest.approx(5 / 6)


def test_the_figures_by_hand() -> None:
    figures = transcription_metrics(HEARD, SAID)
    assert figures == pytest.approx(
        {
            "wer": 5 / 6,
            "cer": (1 + 6 + 4 + 11) / (13 + 4 + 0 + 8),  # w to o, " three", "four", "seven eight"
            "substitutions": 1 / 6,
            "deletions": 1 / 6,
            "insertions": 3 / 6,
            "faultless": 1 / 4,
        }
    )


def distance(one: list[str], other: list[str]) -> int:
    """Wagner and Fischer, 1974."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
    return row[-1]


TEXTS = st.lists(st.sampled_from(["a", "b", "cc"]), max_size=5).map(" ".join)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_they_add_up_to_the_edit_distance(pairs: list[tuple[str, str]]) -> None:
    heard, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    words, characters = count_edits(heard, predicted), count_edits(heard, predicted, "character")
    assert words.errors.tolist() == [distance(h.split(), s.split()) for h, s in pairs]
    assert characters.errors.tolist() == [distance(list(h), list(s)) for h, s in pairs]


def test_white_space_is_no_word() -> None:
    edits = count_edits(["a\u00a0b\t c "], [" a b c"])
    assert edits.errors.tolist() == [0]
    assert count_edits([" ab "], ["ab"], "character").errors.tolist() == [0]


def test_the_interval_resamples_utterances_not_words() -> None:
    # All errors in one long utterance: a resample has it no, one, two ... times.
    lengths = np.array([90] + [1] * 10)
    errors = np.array([45] + [0] * 10)
    none = np.zeros_like(errors)
    interval = error_rate(Edits(errors, none, none, lengths))
    assert interval.mean == pytest.approx(0.45)
    assert interval.low == 0.0
    assert 0.48 < interval.high < 0.5
    assert interval.n_samples == 11


def test_seeds_are_pooled_by_utterance() -> None:
    runs = [count_edits([heard, "two"], ["one", "two"]) for heard in ("one", "on")]
    interval = error_rate(runs)
    assert interval.seed_means == (0.0, 0.5)
    assert interval.mean == 0.25


def test_the_worst_come_first_and_faultless_ones_never() -> None:
    assert [(m.row, m.errors) for m in worst_predictions(HEARD, SAID)] == [(0, 2), (2, 2), (1, 1)]
    assert len(worst_predictions(HEARD, SAID, max_results=1)) == 1


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InputError, match="got 1 predictions, expected 2"):
        count_edits(["a"], ["a", "b"])
    with pytest.raises(InputError, match="row 1 is NoneType, expected a text"):
        count_edits(["a", None], ["a", "b"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="got 1 targets without a word"):
        transcription_metrics(["a"], [""])
    with pytest.raises(InputError, match="got 2 runs, expected at least one, all of the same utterances"):
        error_rate([count_edits(["a"], ["a"]), count_edits(["a"], ["a b"])])
    with pytest.raises(InputError, match="none of 1 targets has a word"):
        error_rate(count_edits(["a"], [""]))
