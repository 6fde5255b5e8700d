"""The base class of task metrics: counts per sample, sums over samples, metrics of the sums.

A report takes every number of a task from these counts: metrics, per-class rows, confidence intervals and
paired differences (`mmattn.evaluation.statistics.count_bootstrap`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmattn.array_types import Floats, Ints
from mmattn.evaluation.statistics.bootstrap import Interval

__all__ = ["PerClassMetrics", "TaskMetrics", "precision_recall_f1", "safe_divide"]


class TaskMetrics(ABC):
    """Metrics of one task, computed from counts that add up over samples.

    A subclass names its metrics and implements `counts` and `compute`. `compute` must accept leading axes, as
    a bootstrap evaluates many resampled sums at once.

    Attributes:
        primary_metric: name of the metric that selects epochs and settings.
        lower_is_better: names of the metrics for which a lower value is better.
        best_value: best possible value of the primary metric, where higher is better.
        class_names: names of the classes with a row in the report; empty without classes.

    Example:
        A regression metric. Each sample counts its absolute error and 1; the mean absolute error is the ratio
        of the sums:

        >>> class RegressionMetrics(TaskMetrics):
        ...     primary_metric = "mae"
        ...     lower_is_better = frozenset({"mae"})
        ...
        ...     def counts(self, predictions, targets):
        ...         errors_N = np.abs(np.subtract(predictions, targets))
        ...         return np.stack([errors_N, np.ones_like(errors_N)], axis=1)
        ...
        ...     def compute(self, sums):
        ...         return {"mae": safe_divide(sums[..., 0], sums[..., 1])}
        >>> RegressionMetrics().evaluate([1.0, 2.5], [2.0, 2.0])
        {'mae': 0.75}
    """

    primary_metric: ClassVar[str]
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    best_value: ClassVar[float] = 1.0
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        """Count what the metrics need, per sample.

        Args:
            predictions: N predictions, as the head's `predict` returns them.
            targets: N known targets.

        Returns:
            [N, K] counts.
        """

    @abstractmethod
    def compute(self, sums: Floats) -> dict[str, Floats]:
        """Compute the metrics from summed counts.

        Args:
            sums: [..., K] sums of counts over samples.

        Returns:
            Metric name -> [...] values.
        """

    def per_class(self, sums: Floats) -> dict[str, dict[str, Floats]]:
        """Compute precision, recall, F1 and support of each class.

        Args:
            sums: [..., K] sums of counts over samples.

        Returns:
            Class name -> "precision", "recall", "f1" and "support" -> [...] values; empty without classes.
        """
        return {}

    def evaluate(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Compute the metrics over all samples.

        Args:
            predictions: N predictions.
            targets: N known targets.

        Returns:
            Metric name -> value.
        """
        sums = self.counts(predictions, targets).sum(0)
        return {name: float(value) for name, value in self.compute(sums).items()}

    def confusion(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Ints | None:
        """Count the pairs of target and predicted class.

        Args:
            predictions: N predictions.
            targets: N known targets.

        Returns:
            [C, C] counts in the order of `class_names`, targets in rows; None without one class a sample.
        """
        return None

    def extra_intervals(
        self, predictions: Sequence[Sequence[Any]], targets: Sequence[Any]
    ) -> dict[str, Interval]:
        """Compute the metrics that are no function of summed counts, with their own bootstrap.

        Args:
            predictions: N predictions of each seed.
            targets: N known targets.

        Returns:
            Metric name -> mean and interval; empty if the counts say all.
        """
        return {}

    def selection_score(self, metrics: Mapping[str, float]) -> float:
        """Return the primary metric scaled so that 1 is best; epochs are selected by it.

        Args:
            metrics: metric name -> value, as `evaluate` returns them.
        """
        value = metrics[self.primary_metric]
        return 1.0 - value if self.primary_metric in self.lower_is_better else value / self.best_value


@dataclass(frozen=True)
class PerClassMetrics(TaskMetrics):
    """Base of metrics with true positives, predictions and targets per class.

    The first 3 C count columns are the true positives, the predicted and the actual occurrences of each of
    the C classes; a subclass may append further columns.

    Args:
        class_names: names of the C classes.
    """

    class_names: tuple[str, ...]

    def per_class(self, sums: Floats) -> dict[str, dict[str, Floats]]:
        true_positives, predicted, actual = self.split_counts(sums)
        scores = precision_recall_f1(true_positives, predicted, actual)
        columns = {**scores, "support": actual}
        return {
            name: {metric: values[..., index] for metric, values in columns.items()}
            for index, name in enumerate(self.class_names)
        }

    def class_counts(
        self, predictions: Sequence[AbstractSet[str]], targets: Sequence[AbstractSet[str]]
    ) -> Floats:
        """Count true positives, predictions and targets per class.

        Args:
            predictions: N sets of class names.
            targets: N sets of class names.

        Returns:
            [N, 3 C] counts.
        """
        counts_N3C = np.zeros((len(targets), 3, len(self.class_names)))
        for row, (predicted, actual) in enumerate(zip(predictions, targets, strict=True)):
            self.add_counts(counts_N3C[row], predicted & actual, predicted, actual)
        return counts_N3C.reshape(len(targets), -1)

    def add_counts(self, counts_3C: Floats, *names: Sequence[str] | AbstractSet[str]) -> None:
        """Add occurrences of class names to the counts of one sample, in place.

        Args:
            counts_3C: [3, C] counts of the sample.
            *names: class names of the true positives, the predictions and the targets.
        """
        indices = {name: index for index, name in enumerate(self.class_names)}
        for row, occurrences in enumerate(names):
            for name in occurrences:
                counts_3C[row, indices[name]] += 1

    def split_counts(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        """Split sums into true positives, predicted and actual occurrences.

        Args:
            sums: [..., K] sums with the columns of the classes first.

        Returns:
            Three arrays [..., C].
        """
        count = len(self.class_names)
        return sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count : 3 * count]

    def micro_average(self, sums: Floats) -> dict[str, Floats]:
        """Compute precision, recall and F1 of all classes together.

        Args:
            sums: [..., K] sums with the columns of the classes first.
        """
        return precision_recall_f1(*(counts.sum(-1) for counts in self.split_counts(sums)))

    def macro_average(self, sums: Floats) -> dict[str, Floats]:
        """Average precision, recall and F1 over the classes that occur in the targets.

        Args:
            sums: [..., K] sums with the columns of the classes first.
        """
        true_positives, predicted, actual = self.split_counts(sums)
        occurs = actual > 0
        return {
            f"macro {name}": safe_divide(np.where(occurs, values, 0.0).sum(-1), occurs.sum(-1))
            for name, values in precision_recall_f1(true_positives, predicted, actual).items()
        }


def precision_recall_f1(true_positives: Floats, predicted: Floats, actual: Floats) -> dict[str, Floats]:
    """Compute precision, recall and F1 from counts; 0 where a denominator is 0.

    Args:
        true_positives: [...] correct predictions.
        predicted: [...] all predictions.
        actual: [...] all targets.

    Returns:
        "precision", "recall" and "f1" -> [...].
    """
    return {
        "precision": safe_divide(true_positives, predicted),
        "recall": safe_divide(true_positives, actual),
        "f1": safe_divide(2 * true_positives, predicted + actual),
    }


def safe_divide(numerator: Floats, denominator: Floats) -> Floats:
    """Divide elementwise; 0 where the denominator is 0.

    Args:
        numerator: [...].
        denominator: [...], not negative.

    Example:
        >>> safe_divide(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
