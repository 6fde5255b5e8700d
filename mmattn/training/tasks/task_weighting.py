"""How much each task counts where several are trained together: fixed, by uncertainty, or by gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, MissingDependency, did_you_mean

__all__ = ["FixedWeights", "GradientWeights", "TaskWeighting", "UncertaintyWeights", "build_weighting"]


class TaskWeighting(nn.Module, ABC):
    """Losses of several tasks in, the loss that is trained out."""

    @abstractmethod
    def forward(self, losses: Mapping[str, Tensor], shared_parameters: Sequence[nn.Parameter]) -> Tensor:
        """One loss.

        Args:
            losses: task -> its loss.
            shared_parameters: parameters that several tasks may use.
        """


class FixedWeights(TaskWeighting):
    """The sum of the losses, each times its weight.

    Args:
        weights: task -> weight; a task without one counts 1.

    Raises:
        InputError: a negative weight.

    Example:
        >>> losses = {"click": torch.tensor(2.0), "rating": torch.tensor(3.0)}
        >>> FixedWeights({"rating": 0.1})(losses, []).item()
        2.299999952316284
    """

    def __init__(self, weights: Mapping[str, float] | None = None):
        super().__init__()
        self.weights = dict(weights or {})
        for name, weight in self.weights.items():
            if weight < 0:
                raise InputError(f"task weights: got {weight} for {name!r}, expected 0 or more")

    def forward(self, losses: Mapping[str, Tensor], shared_parameters: Sequence[nn.Parameter]) -> Tensor:
        for name in self.weights:
            if name not in losses:
                raise InputError(f"task weights: no task {name!r}.{did_you_mean(name, losses)}")
        return torch.stack([self.weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()


class UncertaintyWeights(TaskWeighting):
    """Each task is weighed by the noise that it is learned to have.

        sum over tasks of  exp(-s) loss + s / 2,    with exp(-s) / 2 for a squared error

    and s, the logarithm of the task's variance, a parameter. A task that stays bad counts less.

    Paper: Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", 2018.

    Args:
        tasks: their names.
        regression_tasks: those whose loss is a mean squared error, for which a Gaussian gives the factor 1/2.

    Raises:
        InputError: a regression task that is none of the tasks.

    Example:
        >>> weighting = UncertaintyWeights(["click", "rating"], regression_tasks=["rating"])
        >>> weighting({"click": torch.tensor(2.0), "rating": torch.tensor(3.0)}, []).item()
        3.5
    """

    def __init__(self, tasks: Collection[str], regression_tasks: Collection[str] = ()):
        super().__init__()
        for name in regression_tasks:
            if name not in tasks:
                raise InputError(f"task weights, squared: no task {name!r}.{did_you_mean(name, tasks)}")
        self.tasks = tuple(tasks)
        factors = torch.tensor([0.5 if name in regression_tasks else 1.0 for name in self.tasks])
        self.factors: Tensor
        self.register_buffer("factors", factors, persistent=False)
        self.log_variance = nn.Parameter(torch.zeros(len(self.tasks)))

    def forward(self, losses: Mapping[str, Tensor], shared_parameters: Sequence[nn.Parameter]) -> Tensor:
        losses_T = torch.stack([losses[name].float() for name in self.tasks])
        return (self.factors * (-self.log_variance).exp() * losses_T + self.log_variance / 2).sum()


class GradientWeights(TaskWeighting):
    """Weights from the angles between the tasks' gradients on what they share, anew in each step.

    The methods are those of torchjd that need the gradients' inner products only; each step costs one
    more backward pass for every task. Parameters that one task alone uses take no part in the choice.

    Papers: Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization", 2024 (UPGrad, and
    torchjd); Yu et al., "Gradient Surgery for Multi-Task Learning", 2020 (PCGrad); Sener and Koltun,
    "Multi-Task Learning as Multi-Objective Optimization", 2018 (MGDA).

    Args:
        method: "UPGrad", "PCGrad", "MGDA", or another of `methods()`.
        options: its keyword arguments.

    Raises:
        InputError: no such method, or options that it does not take.
        MissingDependency: torchjd is not installed.

    Example:
        >>> shared = nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> losses = {"a": 3 * shared[0], "b": -shared[0] + shared[1]}  # gradients (3, 0) and (-1, 1)
        >>> GradientWeights("PCGrad")(losses, [shared]).backward()
        >>> shared.grad.tolist()  # (3, 0) less its part against (-1, 1), and the other way round
        [1.5, 2.5]
    """

    def __init__(self, method: str = "UPGrad", options: Mapping[str, Any] | None = None):
        super().__init__()
        known = self.methods()
        if method not in known:
            raise InputError(f"task weights: no method {method!r} in torchjd.{did_you_mean(method, known)}")
        try:
            self.method = known[method](**dict(options or {}))
        except (TypeError, ValueError) as error:
            raise InputError(f"task weights, {method}: {error}") from error
        except ImportError as error:  # some methods need a solver of their own; the message names it
            raise MissingDependency(f"task weights, {method}: {error}") from error

    @staticmethod
    def methods() -> dict[str, Any]:
        """Name -> every method of torchjd that weighs by inner products and remembers nothing.

        Raises:
            MissingDependency: torchjd is not installed.
        """
        try:
            from torchjd import aggregation
        except ModuleNotFoundError as error:
            raise MissingDependency("torchjd is not installed: pip install 'mmattn[multitask]'") from error
        kinds = {base.__name__: base for base in aggregation.UPGradWeighting.__mro__}
        return {
            name.removesuffix("Weighting"): aggregator
            for name in aggregation.__all__
            if isinstance(aggregator := getattr(aggregation, name), type)
            and issubclass(aggregator, kinds["_GramianWeighting"])
            and not hasattr(aggregator, "reset")  # what remembers earlier steps would not survive a resume
        }

    def forward(self, losses: Mapping[str, Tensor], shared_parameters: Sequence[nn.Parameter]) -> Tensor:
        losses_T = torch.stack([loss.float() for loss in losses.values()])
        if not torch.is_grad_enabled():
            return losses_T.sum()
        with torch.no_grad():
            weights_T = self.method(_gramian(list(losses.values()), shared_parameters))
        return (weights_T.to(losses_T) * losses_T).sum()


def _gramian(losses: Sequence[Tensor], shared_parameters: Sequence[nn.Parameter]) -> Tensor:
    """[T, T] inner products of the losses' gradients, on the parameters that at least two of them use."""
    rows = [
        torch.autograd.grad(
            loss, shared_parameters, retain_graph=True, allow_unused=True, materialize_grads=False
        )
        for loss in losses
    ]
    gramian = losses[0].new_zeros(len(losses), len(losses), dtype=torch.float32)
    for columns in zip(*rows, strict=True):
        used = [column for column, gradient in enumerate(columns) if gradient is not None]
        if len(used) > 1:
            flat = torch.stack([columns[column].flatten().float() for column in used])
            index = torch.tensor(used, device=gramian.device)
            gramian[index[:, None], index] += flat @ flat.T
    return gramian


def build_weighting(spec: str | Mapping[str, Any], tasks: Collection[str]) -> TaskWeighting:
    """A weighting as a configuration names it.

    Args:
        spec: "fixed", "uncertainty", a method of `GradientWeights`, or {"name": ..., "options": {...}};
            the options are the class's own arguments.
        tasks: names of the tasks.

    Raises:
        InputError: no such name, or options that it does not take.

    Example:
        >>> build_weighting({"name": "fixed", "options": {"weights": {"genre": 0.2}}}, ["click", "genre"])
        FixedWeights()
    """
    spec = {"name": spec} if isinstance(spec, str) else spec
    name, options = str(spec.get("name")), dict(spec.get("options") or {})
    try:
        if name == "fixed":
            return FixedWeights(**options)
        if name == "uncertainty":
            return UncertaintyWeights(tasks, **options)
    except TypeError as error:
        raise InputError(f"task weights, {name}: {error}") from error
    known = GradientWeights.methods()
    if name not in known:
        known_names = {"fixed", "uncertainty", *known}
        raise InputError(f"task weights: no kind {name!r}.{did_you_mean(name, known_names)}")
    return GradientWeights(name, options)
