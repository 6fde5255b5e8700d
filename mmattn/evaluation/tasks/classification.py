"""Metrics of classes and labels: from predicted names, and from predicted probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.tasks.task_metrics import PerClassMetrics, safe_divide

__all__ = [
    "ClassificationMetrics",
    "MultilabelMetrics",
    "calibration_error",
    "confusion_matrix",
    "is_correct",
    "multiclass_probability_metrics",
    "multilabel_probability_metrics",
]


class ClassificationMetrics(PerClassMetrics):
    """Accuracy and macro-averaged precision, recall and F1 of one class per sample.

    Args:
        class_names: names of the classes.

    Example:
        >>> ClassificationMetrics(("a", "b")).evaluate(["a", "a", "b"], ["a", "b", "b"])["accuracy"]
        0.6666666666666666
    """

    primary_metric = "accuracy"

    @classmethod
    def from_targets(cls, targets: Sequence[str | None]) -> ClassificationMetrics:
        """Create the metrics for the classes that occur.

        Args:
            targets: class of each sample; None where unknown.

        Example:
            >>> ClassificationMetrics.from_targets(["cat", None, "ant"]).class_names
            ('ant', 'cat')
        """
        return cls(tuple(sorted({name for name in targets if name is not None})))

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        return self.class_counts([{name} for name in predictions], [{name} for name in targets])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        true_positives, _, actual = self.split_counts(sums)
        accuracy = safe_divide(true_positives.sum(-1), actual.sum(-1))
        return {"accuracy": accuracy, **self.macro_average(sums)}

    def confusion(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Ints:
        return confusion_matrix(predictions, targets, self.class_names)[0]


class MultilabelMetrics(PerClassMetrics):
    """Micro-averaged F1, precision and recall, macro F1 and exact matches of several labels per sample.

    Args:
        class_names: names of the labels.

    Example:
        >>> MultilabelMetrics(("a", "b")).evaluate([["a"], []], [["a", "b"], []])["exact"]
        0.5
    """

    primary_metric = "f1"

    @classmethod
    def from_targets(cls, targets: Sequence[Sequence[str] | None]) -> MultilabelMetrics:
        """Create the metrics for the labels that occur.

        Args:
            targets: labels of each sample; None where unknown.

        Example:
            >>> MultilabelMetrics.from_targets([["b", "a"], None, []]).class_names
            ('a', 'b')
        """
        return cls(tuple(sorted({name for labels in targets if labels is not None for name in labels})))

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        predicted, actual = [set(labels) for labels in predictions], [set(labels) for labels in targets]
        exact_N2 = np.array([[left == right, 1.0] for left, right in zip(predicted, actual, strict=True)])
        return np.hstack([self.class_counts(predicted, actual), exact_N2.reshape(len(actual), 2)])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        scores = self.micro_average(sums)
        return {
            "f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"],
            "macro f1": self.macro_average(sums)["macro f1"],
            "exact": safe_divide(sums[..., -2], sums[..., -1]),
        }  # fmt: skip


def is_correct(predictions: Sequence[str], targets: Sequence[str]) -> Floats:
    """Mark correct predictions, as values for `mmattn.evaluation.statistics.bootstrap`.

    Args:
        predictions: N classes.
        targets: N classes.

    Returns:
        [N] 1 where prediction and target agree, otherwise 0.

    Raises:
        InputError: the lengths differ.

    Example:
        >>> is_correct(["cat", "dog"], ["cat", "cat"]).tolist()
        [1.0, 0.0]
    """
    _check_same_length(predictions, targets)
    return np.array([left == right for left, right in zip(predictions, targets, strict=True)], np.float64)


def confusion_matrix(
    predictions: Sequence[str], targets: Sequence[str], names: Sequence[str] | None = None
) -> tuple[Ints, tuple[str, ...]]:
    """Count the pairs of target and predicted class, through scikit-learn.

    Args:
        predictions: N classes.
        targets: N classes.
        names: C classes in the order of rows and columns, which may include absent ones; by default all
            present classes, sorted.

    Returns:
        [C, C] counts with targets in rows and predictions in columns, and the names.

    Raises:
        InputError: the lengths differ, or a class is not among the names.

    Example:
        >>> counts, names = confusion_matrix(["cat", "dog", "cat"], ["cat", "cat", "dog"])
        >>> names, counts.tolist()
        (('cat', 'dog'), [[1, 1], [1, 0]])
    """
    from sklearn import metrics

    _check_same_length(predictions, targets)
    classes = tuple(sorted({*predictions, *targets}) if names is None else names)
    if not predictions:
        return np.zeros((len(classes), len(classes)), np.int64), classes
    target_indices_N, predicted_indices_N = (
        _class_indices(targets, classes),
        _class_indices(predictions, classes),
    )
    counts_CC = metrics.confusion_matrix(target_indices_N, predicted_indices_N, labels=range(len(classes)))
    return counts_CC.astype(np.int64), classes


def multiclass_probability_metrics(
    probabilities: ArrayLike, targets: Sequence[str], names: Sequence[str], *, top_k: Sequence[int] = (3, 5)
) -> dict[str, float]:
    """Compute ranking and calibration metrics of class probabilities.

    Args:
        probabilities: [N, C], each row sums to one.
        targets: N classes.
        names: C classes in the order of the columns.
        top_k: values of k for the top-k accuracy; those below C are reported. Classes tied with the target
            rank above it, so equal probabilities earn nothing.

    Returns:
        "average precision" and "roc auc" (one class against the rest, averaged over the classes with both
        positive and negative samples, NaN without such a class), "top-k accuracy" and "calibration error".

    Raises:
        InputError: the shapes do not fit, or a class is not among the names.

    Example:
        >>> probabilities = [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]]
        >>> metrics = multiclass_probability_metrics(probabilities, ["a", "c"], ["a", "b", "c"], top_k=[2])
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'average precision': 1.0, 'roc auc': 1.0, 'top-2 accuracy': 0.5, 'calibration error': 0.35}
    """
    probabilities_NC = _check_probabilities(probabilities, len(targets), len(names))
    targets_N = _class_indices(targets, names)
    one_hot_NC = np.eye(len(names))[targets_N]
    target_probability_N1 = np.take_along_axis(probabilities_NC, targets_N[:, None], axis=1)
    rank_N = (probabilities_NC >= target_probability_N1).sum(1)  # scikit-learn breaks ties by class index
    confidence_N, is_correct_N = probabilities_NC.max(1), probabilities_NC.argmax(1) == targets_N
    return {
        **_macro_averages(one_hot_NC, probabilities_NC),
        **{f"top-{k} accuracy": float((rank_N <= k).mean()) for k in top_k if k < len(names)},
        "calibration error": calibration_error(confidence_N, is_correct_N),
    }


def multilabel_probability_metrics(
    probabilities: ArrayLike, targets: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, float]:
    """Compute ranking and calibration metrics of independent label probabilities.

    Args:
        probabilities: [N, L], each value independent of the others.
        targets: labels of each of the N samples.
        names: L labels in the order of the columns.

    Returns:
        "average precision" and "roc auc" (averaged over the labels with both positive and negative samples),
        "micro average precision" and "calibration error" over all decisions.

    Raises:
        InputError: the shapes do not fit, or a label is not among the names.

    Example:
        >>> probabilities, targets = [[0.9, 0.2], [0.1, 0.8]], [["a"], ["a", "b"]]
        >>> metrics = multilabel_probability_metrics(probabilities, targets, ["a", "b"])
        >>> metrics["average precision"], round(metrics["micro average precision"], 3)
        (1.0, 0.917)
    """
    from sklearn.metrics import average_precision_score

    probabilities_NL = _check_probabilities(probabilities, len(targets), len(names))
    targets_NL = np.zeros_like(probabilities_NL)
    for row, target in enumerate(targets):
        targets_NL[row, _class_indices(target, names)] = 1
    micro = np.nan
    if targets_NL.any():
        micro = average_precision_score(targets_NL.ravel(), probabilities_NL.ravel())
    return {
        **_macro_averages(targets_NL, probabilities_NL),
        "micro average precision": float(micro),
        "calibration error": calibration_error(probabilities_NL.ravel(), targets_NL.ravel()),
    }


def calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, n_bins: int = 15) -> float:
    """Compute the expected calibration error (ECE) over equal-width probability bins.

    Paper: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        probabilities: [N] predicted probabilities.
        outcomes: [N] 1 where the event occurred, otherwise 0.
        n_bins: number of bins.

    Returns:
        Mean of |probability - frequency| over the bins, weighted by their sizes.

    Example:
        >>> calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 1])
        0.25
    """
    probabilities_N, outcomes_N = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    bin_N = np.minimum((probabilities_N * n_bins).astype(int), n_bins - 1)
    gap_B = np.bincount(bin_N, probabilities_N - outcomes_N, minlength=n_bins)
    return float(np.abs(gap_B).sum() / max(len(probabilities_N), 1))


def _macro_averages(targets_NC: Floats, probabilities_NC: Floats) -> dict[str, float]:
    """Average over the classes with both positive and negative samples; others cannot be ranked."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    ranked = [c for c in range(targets_NC.shape[1]) if 0 < targets_NC[:, c].sum() < len(targets_NC)]
    precision = [average_precision_score(targets_NC[:, c], probabilities_NC[:, c]) for c in ranked]
    area = [roc_auc_score(targets_NC[:, c], probabilities_NC[:, c]) for c in ranked]
    return {
        "average precision": float(np.mean(precision)) if ranked else float("nan"),
        "roc auc": float(np.mean(area)) if ranked else float("nan"),
    }


def _check_probabilities(probabilities: ArrayLike, n_samples: int, n_classes: int) -> Floats:
    probabilities_NC = np.asarray(probabilities, np.float64)
    if probabilities_NC.shape != (n_samples, n_classes) or not n_samples:
        raise InputError(
            f"classification: got probabilities {probabilities_NC.shape}, expected "
            f"[{n_samples}, {n_classes}], one row per target and one column per name, and at least one target"
        )
    if not ((probabilities_NC >= 0) & (probabilities_NC <= 1 + 1e-6)).all():
        raise InputError("classification: got probabilities outside of 0 to 1")
    return probabilities_NC


def _class_indices(labels: Sequence[str], names: Sequence[str]) -> Ints:
    indices = {name: index for index, name in enumerate(names)}
    for name in labels:
        if name not in indices:
            raise InputError(f"classification: no class {name!r}.{did_you_mean(name, indices)}")
    return np.array([indices[name] for name in labels], np.int64)


def _check_same_length(predictions: Sequence[str], targets: Sequence[str]) -> None:
    if len(predictions) != len(targets):
        raise InputError(
            f"classification: got {len(predictions)} predictions, expected {len(targets)}, one per target"
        )
