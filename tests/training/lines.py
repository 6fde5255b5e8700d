"""A task small enough to be trained many times in a test, with dropout so that random numbers matter."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.training import loop
from mmattn.training.loop import History, LoopConfig
from mmattn.training.tasks.base import Task


class Line(Task):
    """Learn y = 2 x1 - 3 x2 from 31 points in batches of `size`; killed before batch `kill`, if asked."""

    def __init__(self, size: int = 5, kill: int = 0, dropout: float = 0.2):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 7), nn.Dropout(dropout), nn.Linear(7, 1))
        self.x = torch.randn(31, 2)
        self.y = self.x @ torch.tensor([[2.0], [-3.0]])
        self.size, self.kill, self.forwards = size, kill, 0

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from torch.randperm(31, generator=generator).split(self.size)

    def forward(self, batch: Tensor) -> Tensor:
        self.forwards += 1
        if self.forwards == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return (self.net(self.x[batch]) - self.y[batch]).square().mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        return {"score": -float((self.net(self.x) - self.y).square().mean())}


# A plain loop: no average, no early stopping.
PLAIN: dict[str, Any] = {"weight_decay": 0.01, "warmup_ratio": 0.05, "patience": 0, "ema_decay": 0.0}
_LOOP_KEYS = {each.name for each in fields(LoopConfig)}


def train(task: Task, **settings: Any) -> History:
    """`mmattn.training.loop.train` with the keys of `LoopConfig` among its keyword arguments."""
    config = {key: settings.pop(key) for key in _LOOP_KEYS & settings.keys()}
    return loop.train(task, LoopConfig(**{**PLAIN, **config}), **settings)
