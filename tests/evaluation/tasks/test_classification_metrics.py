"""Order and honesty of probabilities by hand, the counts against scikit-learn, confusion matrices drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from mmattn import InputError
from mmattn.evaluation.statistics.bootstrap import bootstrap
from mmattn.evaluation.tasks.classification import (
    ClassificationMetrics,
    MultilabelMetrics,
    calibration_error,
    confusion_matrix,
    is_correct,
    multiclass_probability_metrics,
    multilabel_probability_metrics,
)
from mmattn.reports.confusion import plot_confusion_matrix

NAMES = ("bird", "cat", "dog", "emu", "fox")


@pytest.fixture
def said_and_true() -> tuple[list[str], list[str]]:
    """Of 97 samples; nobody is an emu, and a fox is never said."""
    generator = np.random.default_rng(0)
    true = generator.choice(["bird", "cat", "dog", "fox"], 97, p=[0.5, 0.3, 0.15, 0.05]).tolist()
    wrong = generator.choice(["bird", "cat", "dog", "emu"], 97).tolist()
    predicted = [
        t if generator.random() < 0.6 and t != "fox" else w for t, w in zip(true, wrong, strict=True)
    ]
    return predicted, true


def test_the_counts_say_of_classes_what_scikit_learn_says(said_and_true: tuple[list[str], list[str]]) -> None:
    predicted, true = said_and_true
    measure = ClassificationMetrics(NAMES)
    counts = measure.counts(predicted, true)
    figures, rows = measure.evaluate(predicted, true), measure.per_class(counts.sum(0))
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    by_class = metrics.precision_recall_fscore_support(true, predicted, labels=NAMES, zero_division=0)
    for index, name in enumerate(NAMES):
        for figure, values in zip(("precision", "recall", "f1", "support"), by_class, strict=True):
            assert float(rows[name][figure]) == pytest.approx(values[index])
    present = sorted(set(true))  # means are over the classes that are there
    macro = metrics.precision_recall_fscore_support(
        true, predicted, labels=present, average="macro", zero_division=0
    )
    for figure, value in zip(("precision", "recall", "f1"), macro, strict=False):
        assert figures[f"macro {figure}"] == pytest.approx(value)


def test_the_counts_say_of_labels_what_scikit_learn_says() -> None:
    generator = np.random.default_rng(1)
    true_NL, said_NL = generator.random((2, 53, 3)) < 0.4
    names = NAMES[:3]
    listed = [
        [[n for n, present in zip(names, row, strict=True) if present] for row in entry]
        for entry in (said_NL, true_NL)
    ]
    figures = MultilabelMetrics(names).evaluate(*listed)
    assert figures["f1"] == pytest.approx(metrics.f1_score(true_NL, said_NL, average="micro"))
    assert figures["macro f1"] == pytest.approx(metrics.f1_score(true_NL, said_NL, average="macro"))
    assert figures["exact"] == pytest.approx(metrics.accuracy_score(true_NL, said_NL))


def test_confusion_with_classes_that_nobody_is_of(said_and_true: tuple[list[str], list[str]]) -> None:
    counts, names = confusion_matrix(*said_and_true, names=NAMES)
    assert names == NAMES
    assert (counts == metrics.confusion_matrix(said_and_true[1], said_and_true[0], labels=NAMES)).all()
    assert counts[3].sum() == 0
    assert bootstrap(is_correct(*said_and_true)).mean == pytest.approx(np.trace(counts) / counts.sum())


def test_ranks_by_hand() -> None:
    probabilities = [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]
    figures = multiclass_probability_metrics(probabilities, ["a", "b", "a"], ["a", "b", "c"], top_k=(1, 2, 3))
    # a: true, false, true by falling probability; b: false, true, false. Of c there is none.
    assert figures["average precision"] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert figures["roc auc"] == pytest.approx((0.5 + 1) / 2)
    assert figures["top-1 accuracy"] == pytest.approx(1 / 3)
    assert figures["top-2 accuracy"] == pytest.approx(2 / 3)  # a tie in the last counts against it
    assert "top-3 accuracy" not in figures
    # Sure of .6 and right, of .5 and wrong, of .6 and wrong: two bins, |1.2 - 1| and |.5 - 0|.
    assert figures["calibration error"] == pytest.approx((0.2 + 0.5) / 3)


def test_ranks_of_labels_by_hand() -> None:
    figures = multilabel_probability_metrics([[0.9, 0.8], [0.7, 0.1]], [["a"], ["a"]], ["a", "b"])
    assert np.isnan(figures["roc auc"])  # everything is a, nothing b
    assert figures["micro average precision"] == pytest.approx((1 + 2 / 3) / 2)


def test_honest_probabilities_have_no_calibration_error() -> None:
    generator = np.random.default_rng(2)
    predicted = generator.random(200_003)
    assert calibration_error(predicted, generator.random(len(predicted)) < predicted) < 0.01
    assert calibration_error([], []) == 0
    assert calibration_error([1.0, 0.0], [0, 1]) == 1


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match=r"probabilities \(2, 2\), expected \[2, 3\]"):
        multiclass_probability_metrics([[0.5, 0.5]] * 2, ["a", "b"], ["a", "b", "c"])
    with pytest.raises(InputError, match="outside of 0 to 1"):
        multiclass_probability_metrics([[1.5, -0.5]], ["a"], ["a", "b"])
    with pytest.raises(InputError, match="no class 'ca'. Did you mean 'cat'?"):
        confusion_matrix(["ca"], ["cat"], names=["cat"])
    with pytest.raises(InputError, match="got 1 predictions, expected 2"):
        confusion_matrix(["cat"], ["cat", "cat"])
    with pytest.raises(InputError, match=r"confusion: got counts \(2, 2\), expected \[1, 1\]"):
        plot_confusion_matrix([[1, 2], [3, 4]], ["cat"], "x.png")
    with pytest.raises(InputError, match="got the file 'x.gif', expected .svg, .png or .pdf"):
        plot_confusion_matrix([[1]], ["cat"], "x.gif")


@pytest.mark.parametrize(("classes", "dark"), [(2, False), (31, True)])
def test_pictures_of_few_and_of_many_classes(classes: int, dark: bool, tmp_path: Path) -> None:
    counts = 41 * np.eye(classes, dtype=int)
    counts[0] = 0  # nobody is of the first one
    names = [f"class {number} with a name that is long" for number in range(classes)]
    drawn = plot_confusion_matrix(counts, names, tmp_path / "confusion.svg", dark=dark)
    text = drawn.read_text("utf-8")
    assert "class 1 with a name t…" in text.replace("\n", "")
    assert text.count(">100<" if classes == 31 else ">41<") == classes - 1
    again = plot_confusion_matrix(counts, names, tmp_path / "again.svg", dark=dark)
    assert again.read_bytes() == drawn.read_bytes()
    with Image.open(plot_confusion_matrix(counts, names, tmp_path / "confusion.png", dark=dark)) as picture:
        corner = picture.convert("RGB").getpixel((1, 1))
    assert corner == ((0x14, 0x18, 0x1E) if dark else (255, 255, 255))
