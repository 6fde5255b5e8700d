"""What probabilities say of classes and labels beyond the name that is predicted: order, and honesty.

Accuracy, precision, recall and F1, of all and of each class, with intervals over samples, are figures of
`mmattn.evaluation.tasks.task_metrics` (`ClassificationMetrics`, `MultilabelMetrics`); they need no probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.array_types import Floats
from mmattn.errors import InputError, did_you_mean

__all__ = [
    "calibration_error",
    "confusion_matrix",
    "is_correct",
    "multiclass_probability_metrics",
    "multilabel_probability_metrics",
]


def is_correct(predictions: Sequence[str], targets: Sequence[str]) -> Floats:
    """[N] 1 where the class is right, for intervals and paired differences (`mmattn.evaluation.statistics.bootstrap`).

    Example:
        >>> is_correct(["cat", "dog"], ["cat", "cat"]).tolist()
        [1.0, 0.0]
    """
    _check_same_length(predictions, targets)
    return np.array([said == true for said, true in zip(predictions, targets, strict=True)], np.float64)


def confusion_matrix(
    predictions: Sequence[str], targets: Sequence[str], names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """How often each class was taken for each.

    Args:
        predictions: one class a sample.
        targets: the true ones.
        names: the classes in the order of rows and columns, also those that nobody has; left out, all that
            are there, sorted.

    Returns:
        Counts [C, C], true classes in rows, and the names.

    Raises:
        InputError: not as many predictions as targets, or a class that is not among the names.

    Example:
        >>> counts, names = confusion_matrix(["cat", "dog", "cat"], ["cat", "cat", "dog"])
        >>> names, counts.tolist()
        (('cat', 'dog'), [[1, 1], [1, 0]])
    """
    _check_same_length(predictions, targets)
    known = tuple(sorted({*predictions, *targets}) if names is None else names)
    rows, columns = _class_indices(targets, known), _class_indices(predictions, known)
    counts_CC = np.zeros((len(known), len(known)), np.int64)
    np.add.at(counts_CC, (rows, columns), 1)
    return counts_CC, known


def multiclass_probability_metrics(
    probabilities: ArrayLike, targets: Sequence[str], names: Sequence[str], *, top_k: Sequence[int] = (3, 5)
) -> dict[str, float]:
    """Figures of the order that probabilities put the classes in, and of the probabilities themselves.

    Args:
        probabilities: [N, C], adding up to one in each sample.
        targets: [N] the true classes.
        names: [C] in the order of the columns.
        top_k: how many classes may be named; those that are fewer than all C are reported.

    Returns:
        "average precision" and "roc auc", each class against all others, the mean over the classes that
        are there (NaN where none can be told from others); "top-k accuracy"; "calibration error".

    Raises:
        InputError: shapes that do not fit, or a class that is not among the names.

    Example:
        >>> figures = multiclass_probability_metrics([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3]], ["a", "c"], ["a", "b", "c"], top_k=[2])
        >>> {name: round(value, 3) for name, value in figures.items()}
        {'average precision': 1.0, 'roc auc': 1.0, 'top-2 accuracy': 0.5, 'calibration error': 0.35}
    """
    says_NC = _check_probabilities(probabilities, len(targets), len(names))
    true_N = _class_indices(targets, names)
    truth_NC = np.eye(len(names))[true_N]
    of_true_N = says_NC[np.arange(len(true_N)), true_N]
    # Classes that are as likely count against the true one: naming all alike finds nothing.
    place_N = (says_NC >= of_true_N[:, None]).sum(1)
    sure_N, right_N = says_NC.max(1), says_NC.argmax(1) == true_N
    return {
        **_macro_averages(truth_NC, says_NC),
        **{f"top-{k} accuracy": float((place_N <= k).mean()) for k in top_k if k < len(names)},
        "calibration error": calibration_error(sure_N, right_N),
    }


def multilabel_probability_metrics(
    probabilities: ArrayLike, targets: Sequence[Sequence[str]], names: Sequence[str]
) -> dict[str, float]:
    """The same of several labels a sample.

    Args:
        probabilities: [N, L], each for itself.
        targets: [N] the labels that are there.
        names: [L] in the order of the columns.

    Returns:
        "average precision" and "roc auc", means over the labels that some samples have and some do not;
        "micro average precision", of all decisions together; "calibration error" of all decisions.

    Raises:
        InputError: as `multiclass_probability_metrics`.

    Example:
        >>> figures = multilabel_probability_metrics([[0.9, 0.2], [0.1, 0.8]], [["a"], ["a", "b"]], ["a", "b"])
        >>> figures["average precision"], round(figures["micro average precision"], 3)
        (1.0, 0.917)
    """
    from sklearn.metrics import average_precision_score

    says_NL = _check_probabilities(probabilities, len(targets), len(names))
    truth_NL = np.zeros_like(says_NL)
    for row, target in enumerate(targets):
        truth_NL[row, _class_indices(target, names)] = 1
    micro = average_precision_score(truth_NL.ravel(), says_NL.ravel()) if truth_NL.any() else np.nan
    return {
        **_macro_averages(truth_NL, says_NL),
        "micro average precision": float(micro),
        "calibration error": calibration_error(says_NL.ravel(), truth_NL.ravel()),
    }


def calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, n_bins: int = 15) -> float:
    """By how much probabilities miss how often it happened, the mean over equal bins of probability.

    Paper: Guo et al., "On Calibration of Modern Neural Networks", 2017 (the expected calibration error).

    Args:
        probabilities: [N].
        outcomes: [N] 1 where it did, 0 where it did not.
        n_bins: how many.

    Example:
        >>> calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 1])
        0.25
    """
    said_N, true_N = np.asarray(probabilities, np.float64), np.asarray(outcomes, np.float64)
    bin_N = np.minimum((said_N * n_bins).astype(int), n_bins - 1)
    missed_B = np.bincount(bin_N, said_N - true_N, minlength=n_bins)
    return float(np.abs(missed_B).sum() / max(len(said_N), 1))


def _macro_averages(truth_NC: Floats, probabilities_NC: Floats) -> dict[str, float]:
    """Over the classes that some samples are of and some are not: of others nothing can be ordered."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    told = [c for c in range(truth_NC.shape[1]) if 0 < truth_NC[:, c].sum() < len(truth_NC)]
    precision = [average_precision_score(truth_NC[:, c], probabilities_NC[:, c]) for c in told]
    area = [roc_auc_score(truth_NC[:, c], probabilities_NC[:, c]) for c in told]
    return {
        "average precision": float(np.mean(precision)) if told else float("nan"),
        "roc auc": float(np.mean(area)) if told else float("nan"),
    }


def _check_probabilities(probabilities: ArrayLike, n_samples: int, n_classes: int) -> Floats:
    says_NC = np.asarray(probabilities, np.float64)
    if says_NC.shape != (n_samples, n_classes) or not n_samples:
        raise InputError(
            f"classification: got probabilities {says_NC.shape}, expected [{n_samples}, {n_classes}], a row a "
            "target and a column a name, and at least one target"
        )
    if not ((says_NC >= 0) & (says_NC <= 1 + 1e-6)).all():
        raise InputError("classification: got probabilities outside of 0 to 1")
    return says_NC


def _class_indices(labels: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    number = {name: place for place, name in enumerate(names)}
    for name in labels:
        if name not in number:
            raise InputError(f"classification: no class {name!r}.{did_you_mean(name, number)}")
    return np.array([number[name] for name in labels], np.int64)


def _check_same_length(predictions: Sequence[str], targets: Sequence[str]) -> None:
    if len(predictions) != len(targets):
        raise InputError(
            f"classification: got {len(predictions)} predictions, expected {len(targets)}, one a target"
        )
