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

from mmattn.errors import InputError, did_you_mean

__all__ = ["SCHEDULES", "LearningRateSchedule"]

SCHEDULES = ("cosine", "constant", "step", "exponential", "plateau")


class LearningRateSchedule:
    """The rate of every step: a linear warm-up, and then one of `SCHEDULES`.

    In the warm-up of W steps the rate of step s = 1, 2, ... is s/W of the peak. With n steps an epoch
    and T steps in all, it is then, as a share of the peak:

        constant:     1
        cosine:       (1 + cos(pi (s - W - 1) / (T - W))) / 2
        step:         `lr_decay` to the power of the number of times that `lr_decay_epochs` epochs have passed
        exponential:  `lr_decay` to the power of (s - W - 1) / (n `lr_decay_epochs`)
        plateau:      multiplied by `lr_decay` after every `lr_decay_epochs` epochs in turn without a better
            one

    Each group of the optimizer keeps its own peak: the rate that it has when the schedule is built.

    Paper: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017 (cosine).

    Args:
        kind: one of `SCHEDULES`.
        optimizer: as torch made it, before anything wraps it.
        steps_per_epoch: optimizer steps of each epoch.
        warmup_ratio: share of all steps in which the rate rises.
        lr_decay: factor, above 0 and at most 1.
        lr_decay_epochs: epochs, at least 1.

    Raises:
        InputError: no such schedule, or a number out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
        >>> schedule = LearningRateSchedule("step", optimizer, steps_per_epoch=[2, 2, 2], warmup_ratio=1 / 3,
        ...     lr_decay=0.5, lr_decay_epochs=2)
        >>> rates = []
        >>> for step in range(6):
        ...     rates.append(schedule.learning_rate)
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
        steps_per_epoch: Sequence[int],
        warmup_ratio: float = 0.0,
        lr_decay: float = 0.1,
        lr_decay_epochs: int = 10,
    ):
        _check(kind, warmup_ratio, lr_decay, lr_decay_epochs)
        self.optimizer = optimizer
        self.total_steps = sum(steps_per_epoch)
        self.steps_taken = 0
        self.warmup_steps = round(warmup_ratio * self.total_steps)
        parts: list[LRScheduler] = []
        if self.warmup_steps:
            parts += [
                torch_schedulers.LinearLR(optimizer, 1 / self.warmup_steps, total_iters=self.warmup_steps - 1)
            ]
        if kind in ("cosine", "step", "exponential"):
            parts += [
                _decay_scheduler(
                    kind, optimizer, steps_per_epoch, self.warmup_steps, lr_decay, lr_decay_epochs
                )
            ]
        self._step_scheduler = None
        if parts:  # a warm-up alone stays at the peak when it is over
            self._step_scheduler = torch_schedulers.SequentialLR(
                optimizer, parts, [self.warmup_steps][: len(parts) - 1]
            )
        self._plateau_scheduler = None
        if kind == "plateau":
            self._plateau_scheduler = torch_schedulers.ReduceLROnPlateau(
                optimizer, mode="max", factor=lr_decay, patience=lr_decay_epochs - 1, threshold=0.0
            )

    @property
    def learning_rate(self) -> float:
        """The rate of the next step, of the group that learns fastest."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    def step(self) -> None:
        """After a step of the optimizer."""
        self.steps_taken += 1
        # A task that gives more batches than it said goes on at the last rate.
        if self._step_scheduler is not None and self.steps_taken < self.total_steps:
            self._step_scheduler.step()

    def step_epoch(self, score: float) -> None:
        """End an epoch.

        Args:
            score: validation score, higher is better.
        """
        if self._plateau_scheduler is not None and self.steps_taken >= self.warmup_steps:
            self._plateau_scheduler.step(score)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on."""
        parts = {"by_step": self._step_scheduler, "by_epoch": self._plateau_scheduler}
        states = {key: part.state_dict() for key, part in parts.items() if part is not None}
        return {"taken": self.steps_taken, **states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; the rates themselves are in the optimizer's state.

        Args:
            state: as `state_dict` returned it.
        """
        self.steps_taken = state["taken"]
        for key, part in (("by_step", self._step_scheduler), ("by_epoch", self._plateau_scheduler)):
            if part is not None:
                part.load_state_dict(state[key])


def _check(kind: str, warmup_ratio: float, lr_decay: float, lr_decay_epochs: int) -> None:
    if kind not in SCHEDULES:
        raise InputError(f"training: no schedule {kind!r}.{did_you_mean(kind, SCHEDULES)}")
    if not 0 <= warmup_ratio <= 1:
        raise InputError(
            f"training warmup_ratio: got {warmup_ratio}, expected a share of all steps, from 0 to 1"
        )
    if not 0 < lr_decay <= 1:
        raise InputError(f"training lr_decay: got {lr_decay}, expected a factor above 0 and at most 1")
    if lr_decay_epochs < 1:
        raise InputError(f"training lr_decay_epochs: got {lr_decay_epochs}, expected 1 or more")


def _decay_scheduler(
    kind: str,
    optimizer: Optimizer,
    steps_per_epoch: Sequence[int],
    warmup_steps: int,
    lr_decay: float,
    lr_decay_epochs: int,
) -> LRScheduler:
    """What comes after the warm-up; its own count of steps starts at 0 there."""
    total = sum(steps_per_epoch)
    if kind == "cosine":
        return torch_schedulers.CosineAnnealingLR(optimizer, T_max=max(total - warmup_steps, 1))
    if kind == "exponential":
        per_epoch = max(total / max(len(steps_per_epoch), 1), 1)
        return torch_schedulers.ExponentialLR(optimizer, lr_decay ** (1 / (per_epoch * lr_decay_epochs)))
    ends = list(
        accumulate(steps_per_epoch)
    )  # epochs may differ in length, so that no fixed step size would do
    return torch_schedulers.LambdaLR(
        optimizer, lambda after: lr_decay ** (bisect_right(ends, warmup_steps + after) // lr_decay_epochs)
    )
