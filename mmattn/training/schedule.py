"""What the learning rate does in training, built from PyTorch's own schedulers.

The rate is counted in optimizer steps, not in epochs, so that the warm-up of a short training is
smooth too, and epochs may differ in length.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

from mmattn.errors import InputError, nearest

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = ("cosine", "constant", "step", "exponential", "plateau")


class Schedule:
    """The rate of every step: a linear warm-up, and then one of `SCHEDULES`.

    In the warm-up of W steps the rate of step s = 1, 2, ... is s/W of the peak. With n steps an epoch
    and T steps in all, it is then, as a share of the peak:

        constant:     1
        cosine:       (1 + cos(pi (s - W - 1) / (T - W))) / 2
        step:         `decay` to the power of the number of times that `decay_epochs` epochs have passed
        exponential:  `decay` to the power of (s - W - 1) / (n `decay_epochs`)
        plateau:      multiplied by `decay` after every `decay_epochs` epochs in turn without a better one

    Each group of the optimizer keeps its own peak: the rate that it has when the schedule is built.

    Paper: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017 (cosine).

    Args:
        kind: one of `SCHEDULES`.
        optimizer: as torch made it, before anything wraps it.
        steps: optimizer steps of each epoch.
        warmup: share of all steps in which the rate rises.
        decay: factor, above 0 and at most 1.
        decay_epochs: epochs, at least 1.

    Raises:
        InputError: no such schedule, or a number out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
        >>> schedule = Schedule("step", optimizer, steps=[2, 2, 2], warmup=1 / 3, decay=0.5, decay_epochs=2)
        >>> rates = []
        >>> for step in range(6):
        ...     rates.append(schedule.rate)
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.4, 0.8, 0.8, 0.8, 0.4, 0.4]
    """

    def __init__(
        self,
        kind: str,
        optimizer: Optimizer,
        *,
        steps: Sequence[int],
        warmup: float = 0.0,
        decay: float = 0.1,
        decay_epochs: int = 10,
    ):
        _check(kind, warmup, decay, decay_epochs)
        self.optimizer = optimizer
        self.total = sum(steps)
        self.taken = 0
        self.warmup = round(warmup * self.total)
        parts: list[LRScheduler] = []
        if self.warmup:
            parts += [torch_schedulers.LinearLR(optimizer, 1 / self.warmup, total_iters=self.warmup - 1)]
        if kind in ("cosine", "step", "exponential"):
            parts += [_fall(kind, optimizer, steps, self.warmup, decay, decay_epochs)]
        self._by_step = None
        if parts:  # a warm-up alone stays at the peak when it is over
            self._by_step = torch_schedulers.SequentialLR(optimizer, parts, [self.warmup][: len(parts) - 1])
        self._by_epoch = None
        if kind == "plateau":
            self._by_epoch = torch_schedulers.ReduceLROnPlateau(
                optimizer, mode="max", factor=decay, patience=decay_epochs - 1, threshold=0.0
            )

    @property
    def rate(self) -> float:
        """The rate of the next step, of the group that learns fastest."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def step(self) -> None:
        """After a step of the optimizer."""
        self.taken += 1
        # A task that gives more batches than it said goes on at the last rate.
        if self._by_step is not None and self.taken < self.total:
            self._by_step.step()

    def epoch(self, score: float) -> None:
        """After an epoch, with its validation score, higher is better."""
        if self._by_epoch is not None and self.taken >= self.warmup:
            self._by_epoch.step(score)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        parts = {"by_step": self._by_step, "by_epoch": self._by_epoch}
        states = {key: part.state_dict() for key, part in parts.items() if part is not None}
        return {"taken": self.taken, **states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the rates themselves are the optimizer's state."""
        self.taken = state["taken"]
        for key, part in (("by_step", self._by_step), ("by_epoch", self._by_epoch)):
            if part is not None:
                part.load_state_dict(state[key])


def _check(kind: str, warmup: float, decay: float, decay_epochs: int) -> None:
    if kind not in SCHEDULES:
        raise InputError(f"training: no schedule {kind!r}.{nearest(kind, SCHEDULES)}")
    if not 0 <= warmup <= 1:
        raise InputError(f"training warmup: got {warmup}, expected a share of all steps, from 0 to 1")
    if not 0 < decay <= 1:
        raise InputError(f"training decay: got {decay}, expected a factor above 0 and at most 1")
    if decay_epochs < 1:
        raise InputError(f"training decay_epochs: got {decay_epochs}, expected 1 or more")


def _fall(
    kind: str, optimizer: Optimizer, steps: Sequence[int], warmup: int, decay: float, decay_epochs: int
) -> LRScheduler:
    """What comes after the warm-up; its own count of steps starts at 0 there."""
    total = sum(steps)
    if kind == "cosine":
        return torch_schedulers.CosineAnnealingLR(optimizer, T_max=max(total - warmup, 1))
    if kind == "exponential":
        per_epoch = max(total / max(len(steps), 1), 1)
        return torch_schedulers.ExponentialLR(optimizer, decay ** (1 / (per_epoch * decay_epochs)))
    ends = list(accumulate(steps))  # epochs may differ in length, so that no fixed step size would do
    return torch_schedulers.LambdaLR(
        optimizer, lambda after: decay ** (bisect_right(ends, warmup + after) // decay_epochs)
    )
