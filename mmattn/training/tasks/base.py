"""What is trained: the one contract between the training loop and everything that it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Task"]


class Task(nn.Module, ABC):
    """What is trained: holds the model as a submodule, gives batches, a loss and a validation score."""

    _num_batches = 0

    @abstractmethod
    def batches(self, epoch: int, generator: torch.Generator) -> Iterable[Any]:
        """Return the batches of one epoch, drawn with `generator` only.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Return the loss of one batch, a scalar.

        Args:
            batch: as `batches` returned it.
        """

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Validation figures; the first one, higher is better, decides which epoch is kept.

        Nothing, where nothing is held out: then the last epoch is kept.
        """

    def extra_metrics(self) -> dict[str, float]:
        """Figures of the epoch that decide nothing, for the history; asked for once, after `validate`."""
        return {}

    def num_batches(self, epoch: int) -> int:
        """Return the number of batches of an epoch; the learning rate schedule is made for it.

        By default the first epoch is drawn once and counted, and stands for all: say it yourself where
        drawing takes long, or where epochs differ.

        Args:
            epoch: its number, from 1.
        """
        if not self._num_batches:
            self._num_batches = sum(1 for _ in self.batches(1, torch.Generator().manual_seed(0)))
        return self._num_batches
