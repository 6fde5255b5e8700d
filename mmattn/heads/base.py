"""What every head that learns from one target a sample has in common: classes, tags, transcripts, boxes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from mmattn.types import Fused

__all__ = ["SupervisedHead"]


class SupervisedHead(nn.Module, ABC):
    """A head that learns from one target a sample, and predicts targets of the same kind.

    What it needs to know of the data (the classes, the alphabet) is given to its constructor as plain
    values, so that a saved configuration holds it; `options_for` finds that in training targets.

    Attributes:
        kind: what a target is, and so how predictions are measured and shown:
            "class" (a name), "labels" (a list of names), "tags" (a name a word), "text" (a string),
            "boxes" (`mmattn.boxes.Boxes`), "vector" (nothing is predicted but a vector).
    """

    kind: ClassVar[str]

    @classmethod
    def options_for(cls, targets: Sequence[Any]) -> Mapping[str, Any]:
        """Keyword arguments of the constructor that follow from the training targets; None is skipped.

        Raises:
            InputError: a target that is not of this head's kind.
        """
        return {}

    @abstractmethod
    def loss(self, fused: Fused, targets: Sequence[Any]) -> Tensor:
        """The loss to train with, a mean over the samples whose target is known.

        Args:
            fused: B samples.
            targets: [B] raw targets; a sample with None takes no part.

        Raises:
            InputError: a target that the head does not know (an unknown label, a character outside the
                alphabet); the message names it.
        """

    @abstractmethod
    def predict(self, fused: Fused) -> list[Any]:
        """One prediction a sample, of the same kind as the targets, with gradients off."""
