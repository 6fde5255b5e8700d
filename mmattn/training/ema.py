"""A moving average of the weights: often better than the last ones, and much calmer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """Exponential moving average of the trained weights, which forgets its start quickly.

    After step s the average moves towards the weights by 1 - min(decay, s / (s + 10)): the first steps
    count as in a plain mean. `torch.optim.swa_utils.AveragedModel` copies the whole module, and a task
    holds its data; here only the trained weights are copied.

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
        """After a step of the optimizer."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 10))
        for name, weight in self.weights.items():
            self.mean[name].lerp_(weight, share)

    @contextmanager
    def average_parameters(self) -> Iterator[None]:
        """The module holds the average; at the end it has its own weights again."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        try:
            self._copy_into_module(self.mean)
            yield
        finally:
            self._copy_into_module(own)

    @torch.no_grad()
    def _copy_into_module(self, values: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        return {"steps": self.steps, "mean": self.mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.steps = state["steps"]
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)
