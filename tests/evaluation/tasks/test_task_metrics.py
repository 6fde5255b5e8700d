"""Counts and their figures: against scikit-learn, seqeval and jiwer, and by hand."""

from __future__ import annotations

from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seqeval import metrics as seqeval
from sklearn import metrics as sklearn

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.evaluation.tasks.classification import ClassificationMetrics, MultilabelMetrics
from mmattn.evaluation.tasks.detection_counts import DetectionMetrics
from mmattn.evaluation.tasks.entities import EntityMetrics
from mmattn.evaluation.tasks.text_metrics import text_metrics
from mmattn.registry import heads

NAMES = st.sampled_from(["ant", "bee", "cat"])
TAGS = st.sampled_from(["O", "B-place", "I-place", "B-person", "I-person"])


def pairs(one: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    return st.lists(st.tuples(one, one), min_size=1, max_size=13)


@given(pairs(NAMES))
def test_classes_as_scikit_learn_measures_them(rows: list[tuple[str, str]]) -> None:
    predicted, true = zip(*rows, strict=True)
    measure = ClassificationMetrics.from_targets(["ant", "bee", "cat", None])
    actual = measure.evaluate(predicted, true)
    assert actual["accuracy"] == pytest.approx(sklearn.accuracy_score(true, predicted))
    present = sorted(set(true))
    for name, score in (("precision", 0), ("recall", 1), ("f1", 2)):
        by_class = sklearn.precision_recall_fscore_support(true, predicted, labels=present, zero_division=0)[
            score
        ]
        assert actual[f"macro {name}"] == pytest.approx(by_class.mean())
    rows_of = measure.per_class(measure.counts(predicted, true).sum(0))
    assert {name: int(row["support"]) for name, row in rows_of.items()} == {
        name: true.count(name) for name in measure.class_names
    }
    assert measure.selection_score(actual) == actual["accuracy"]


@given(pairs(st.sets(NAMES)))
def test_labels_as_scikit_learn_measures_them(rows: list[tuple[set[str], set[str]]]) -> None:
    predicted, true = ([sorted(each) for each in column] for column in zip(*rows, strict=True))
    measure = MultilabelMetrics.from_targets([["ant", "bee"], ["cat"], []])
    actual = measure.evaluate(predicted, true)
    as_rows = [
        [[name in entry for name in measure.class_names] for entry in column] for column in (true, predicted)
    ]
    assert actual["f1"] == pytest.approx(sklearn.f1_score(*as_rows, average="micro", zero_division=0))
    assert actual["exact"] == pytest.approx(sklearn.accuracy_score(*as_rows))


@given(st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=7), min_size=1, max_size=7))
def test_tags_as_seqeval_measures_them(sentences: list[list[tuple[str, str]]]) -> None:
    predicted = [[tag for tag, _ in words] for words in sentences]
    true = [[tag for _, tag in words] for words in sentences]
    measure = EntityMetrics.from_targets([["B-place", "I-place", "O"], ["B-person"], None])
    assert measure.class_names == ("person", "place")
    actual = measure.evaluate(predicted, true)
    assert actual["f1"] == pytest.approx(seqeval.f1_score(true, predicted, zero_division=0))
    assert actual["precision"] == pytest.approx(seqeval.precision_score(true, predicted, zero_division=0))
    assert actual["recall"] == pytest.approx(seqeval.recall_score(true, predicted, zero_division=0))
    assert actual["word accuracy"] == pytest.approx(seqeval.accuracy_score(true, predicted))


def test_words_that_the_encoder_has_cut_off_are_outside() -> None:
    measure = EntityMetrics.from_targets([["B-place"]])
    actual = measure.evaluate([["B-place"]], [["B-place", "O", "B-place"]])
    assert actual["recall"] == 0.5
    assert actual["word accuracy"] == pytest.approx(2 / 3)


@given(pairs(st.lists(st.sampled_from(["one", "two", "ten"]), min_size=1, max_size=5).map(" ".join)))
def test_transcripts_as_jiwer_measures_them(rows: list[tuple[str, str]]) -> None:
    predicted, true = map(list, zip(*rows, strict=True))
    measure = text_metrics()
    actual = measure.evaluate(predicted, true)
    assert actual["wer"] == pytest.approx(jiwer.wer(true, predicted))
    assert actual["cer"] == pytest.approx(jiwer.cer(true, predicted))
    assert actual["faultless"] == pytest.approx(np.mean([a == b for a, b in rows]))
    assert measure.selection_score(actual) == 1 - actual["wer"]


def test_boxes_by_hand() -> None:
    def boxes(rows: list[list[float]], labels: list[str], scores: list[float] | None = None) -> Boxes:
        values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
        return Boxes(values, labels, (20, 20), None if scores is None else torch.tensor(scores))

    true = [boxes([[0, 0, 10, 10], [0, 10, 10, 20]], ["a", "b"]), boxes([], [])]
    predicted = [
        # Found; twice the same; of another label; too far away; not sure enough.
        boxes(
            [[0, 0, 10, 9], [0, 0, 10, 10], [0, 10, 10, 20], [9, 9, 19, 19], [0, 10, 10, 20]],
            ["a", "a", "a", "b", "b"],
            [0.9, 0.8, 0.7, 0.6, 0.4],
        ),
        boxes([[1, 1, 3, 3]], ["b"], [0.99]),
    ]
    measure = DetectionMetrics.from_targets(true)
    actual = measure.evaluate(predicted, true)
    # Four were sure enough; of two true ones one was found.
    assert actual["f1"] == pytest.approx(2 / 7)
    assert actual["precision"] == pytest.approx(1 / 5)
    assert actual["recall"] == 0.5
    # The box of "a" is found by the surest of both; of "b" the first three are wrong.
    assert actual["ap50"] == pytest.approx((1 + 1 / 3) / 2)
    assert measure.selection_score(actual) == actual["ap50"]
    rows = measure.per_class(measure.counts(predicted, true).sum(0))
    assert rows["a"]["precision"] == pytest.approx(1 / 3)
    assert rows["b"]["recall"] == 0
    perfect = measure.compute(measure.counts(true, true).sum(0))
    assert perfect == {"f1": 1, "precision": 1, "recall": 1}


@pytest.mark.parametrize("name", ["classification", "labels", "tagging", "detection", "speaker"])
def test_a_head_without_a_choice_of_metrics_refuses_one(name: str) -> None:
    with pytest.raises(InputError, match="metric: got 'translation', expected none"):
        heads.load(name).metrics([], "translation")


@pytest.mark.parametrize("name", ["ctc", "generation"])
def test_texts_are_measured_in_two_ways(name: str) -> None:
    head = heads.load(name)
    assert head.metrics([], "").primary_metric == head.metrics([], "transcript").primary_metric == "wer"
    assert head.metrics([], "translation").primary_metric == "chrf"
    with pytest.raises(InputError, match=r"metric: got 'translaton'.* Did you mean 'translation'\?"):
        head.metrics([], "translaton")
