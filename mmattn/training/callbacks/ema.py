"""Exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.training.callbacks.base import Callback

if TYPE_CHECKING:
    from mmattn.training.state import TrainingState

__all__ = ["ExponentialMovingAverage", "WeightAveraging"]


class WeightAveraging(Callback):
    """Validate and keep an exponential moving average of the weights instead of the weights themselves.

    Args:
        decay: from 0 to below 1.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._average: ExponentialMovingAverage | None = None
        self._restored: dict[str, Any] | None = None

    @property
    def average(self) -> ExponentialMovingAverage:
        """The average of the training in progress."""
        assert self._average is not None  # set by `on_train_start`
        return self._average

    def on_train_start(self, state: TrainingState) -> None:
        self._average = ExponentialMovingAverage(state.task, self.decay)
        if self._restored is not None:
            self._average.load_state_dict(self._restored)
            self._restored = None

    def on_step_end(self, state: TrainingState) -> None:
        self.average.update()

    def evaluation_weights(self, state: TrainingState) -> AbstractContextManager[None]:
        return self.average.average_parameters()

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._restored = state  # the weights to average are known when training starts


class ExponentialMovingAverage:
    """Exponential moving average of the trained weights with a warm-up of the decay.

    After step s the average moves towards the weights by 1 - min(decay, s / (s + 10)), so that the first
    steps count as in an arithmetic mean. `torch.optim.swa_utils.AveragedModel` would copy the whole module,
    and a task holds its data; only the trained weights are copied here.

    Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    Args:
        module: whose trained weights are averaged.
        decay: from 0 to below 1.

    Example:
        >>> from torch import nn
        >>> net = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(net.weight)
        >>> average = ExponentialMovingAverage(net, decay=0.5)
        >>> _ = nn.init.ones_(net.weight)
        >>> average.update()  # 1 - min(.5, 1/11) = 10/11 of the way
        >>> with average.average_parameters():
        ...     print(f"{net.weight.item():.4f}")
        0.9091
        >>> net.weight.item()
        1.0
    """

    def __init__(self, module: nn.Module, decay: float):
        self.weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.decay = decay
        self.steps = 0
        self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the weights, after an optimizer step."""
        self.steps += 1
        step_size = 1 - min(self.decay, self.steps / (self.steps + 10))
        for name, weight in self.weights.items():
            self.mean[name].lerp_(weight, step_size)

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """Let the module hold the average inside the context, and its own weights again afterwards."""
        current = {name: weight.detach().clone() for name, weight in self.weights.items()}
        try:
            self._copy_into_module(self.mean)
            yield
        finally:
            self._copy_into_module(current)

    @torch.no_grad()
    def _copy_into_module(self, values: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the average."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: of an average of the same parameters.
        """
        self.steps = state["steps"]
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)
