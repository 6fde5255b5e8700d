"""The contract of heads: what trains them, what they are measured by, and what a report shows of them.

A head of any kind, from any distribution, says these things itself: nothing else in mmattn knows kinds of
heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mmattn import registry
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples, make_example, sample_items
from mmattn.types import Fused

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["Head", "SupervisedHead"]


class Head(nn.Module):
    """A head of any kind: `forward(fused)`, a `loss` to train with, and the task that trains it.

    A head that learns from one target a sample is a `SupervisedHead`. A head that learns from users'
    interactions returns a `mmattn.training.tasks.recommender.RecommenderTask` from `task`.
    """

    @classmethod
    def task(cls) -> Any:
        """Return the training task (a subclass of `mmattn.training.tasks.base.Task`) that trains this head.

        Raises:
            InputError: this head has none, so that `mmattn fit` cannot train it.
        """
        raise InputError(f"head {cls.__name__}: says no task() that trains it, so `mmattn fit` cannot")


class SupervisedHead(Head, ABC):
    """A head that learns from one target a sample, and predicts targets of the same kind.

    What it needs to know of the data (the classes, the vocabulary) is given to its constructor as plain
    values, so that a saved configuration holds it; `options_for` finds them in training targets.

    Attributes:
        target_roles: roles of the card's columns that the head can learn from (`mmattn.data.roles`).
        independent_labels: its logits are of independent labels, not of classes of which one is true.

    Example:
        A head with a metric of its own. `mmattn.data.roles` has the role "value" for numbers to predict:

        >>> from mmattn.evaluation.tasks.task_metrics import TaskMetrics, safe_divide
        >>> class MeanAbsoluteError(TaskMetrics):
        ...     primary_metric = "mae"
        ...     lower_is_better = frozenset({"mae"})
        ...     def counts(self, predictions, targets):
        ...         errors = np.abs(np.subtract(predictions, targets))
        ...         return np.stack([errors, np.ones_like(errors)], axis=1)
        ...     def compute(self, sums):
        ...         return {"mae": safe_divide(sums[..., 0], sums[..., 1])}
        >>> class Regression(SupervisedHead):
        ...     target_roles = ("value",)
        ...     def __init__(self, dim):
        ...         super().__init__()
        ...         self.project = nn.Linear(dim, 1)
        ...     def forward(self, fused):
        ...         return self.project(fused.pooled)[:, 0]
        ...     def loss(self, fused, targets):
        ...         known = [row for row, target in enumerate(targets) if target is not None]
        ...         wanted = fused.pooled.new_tensor([targets[row] for row in known])
        ...         return (self(fused)[known] - wanted).square().mean()
        ...     def predict(self, fused):
        ...         return self(fused).tolist()
        ...     @classmethod
        ...     def metrics(cls, targets, name=""):
        ...         return MeanAbsoluteError()
        >>> Regression.metrics([]).evaluate([1.0], [3.0])
        {'mae': 2.0}
    """

    target_roles: ClassVar[tuple[str, ...]] = ()
    independent_labels: ClassVar[bool] = False

    @classmethod
    def task(cls) -> Any:
        """Return `mmattn.training.tasks.supervised.SupervisedTask`."""
        return registry.tasks.load("supervised")

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Return keyword arguments of the constructor that follow from the training targets.

        A subclass may take further keyword arguments that say how they follow; a configuration can set them.

        Args:
            targets: training targets; None where unknown.

        Raises:
            InputError: a target that is not of this head's kind.
        """
        return {}

    @abstractmethod
    def loss(self, fused: Fused, targets: Sequence[Any]) -> Tensor:
        """Return the loss to train with, a mean over the samples whose target is known.

        Args:
            fused: B samples.
            targets: [B] raw targets; a sample with None takes no part.

        Raises:
            InputError: a target that the head does not know (an unknown label, a character outside the
                vocabulary); the message names it.
        """

    @abstractmethod
    def predict(self, fused: Fused) -> list[Any]:
        """Return one prediction a sample, of the same kind as the targets, without gradients.

        Args:
            fused: B samples.
        """

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        """Return the metrics that predictions are measured by.

        Args:
            targets: all known targets of training and test; class names come from them.
            name: one of several sets of metrics that the head offers (`metric` of a task in a run's file);
                "" takes the head's default.

        Raises:
            InputError: no metrics of that name, or none at all.
        """
        raise InputError(f"head {cls.__name__}: says no metrics(), so `mmattn fit` cannot measure it")

    @classmethod
    def align(cls, predictions: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Return predictions in the form of their targets, for example boxes in pixels of the target's image.

        Args:
            predictions: N predictions, as `predict` returns them.
            targets: N targets.
        """
        return list(predictions)

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        """Choose the test items that a report shows, with target and prediction.

        By default up to twelve items with a wrong prediction, sampled at random.

        Args:
            items: all test items of the first seed.
        """
        wrong = [item for item in items if item.prediction != item.target]
        return TaskExamples(cases=tuple(make_example(item) for item in sample_items(wrong)))

    @classmethod
    def unseen_targets(cls, train: Sequence[Any], test: Sequence[Any]) -> Sequence[str]:
        """Return names of test targets that training lacks, so that they are never predicted; for a warning.

        Args:
            train: training targets.
            test: test targets.
        """
        return ()

    @classmethod
    def prediction_to_json(cls, prediction: Any) -> Any:
        """Return a prediction as JSON values; a tensor or array becomes a list.

        Args:
            prediction: as `predict` and `align` return it.
        """
        if isinstance(prediction, (torch.Tensor, np.ndarray, np.generic)):
            return prediction.tolist()
        return prediction

    @classmethod
    def prediction_from_json(cls, value: Any) -> Any:
        """Return the prediction that `prediction_to_json` was given.

        Args:
            value: JSON values.
        """
        return value

    @staticmethod
    def check_metric(name: str, known: Sequence[str] = ()) -> None:
        """Check the name of a set of metrics, for heads that offer few or none by name.

        Args:
            name: as `metrics` takes it.
            known: names that the head offers beside "".

        Raises:
            InputError: another name.
        """
        if name and name not in known:
            raise InputError(
                f"metric: got {name!r}, expected {' or '.join(map(repr, known)) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
