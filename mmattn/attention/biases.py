"""Biases: what is added to the score of a pair, whatever the score is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmattn.attention.pairs import Pairs
from mmattn.attention.parameters import ParameterSpec
from mmattn.attention.scores import Change
from mmattn.attention.terms import word
from mmattn.errors import InputError

__all__ = ["Bias", "modality_bias"]


class Bias(Change):
    """Base of the biases."""

    def bias(self, pairs: Pairs) -> Tensor:
        """What is added, broadcastable to [..., H, Q, K]."""
        raise NotImplementedError

    def change(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score + self.bias(pairs)


@word
@dataclass(frozen=True, repr=False)
class ModalityBias(Bias):
    """A learned number for every head, query modality and key modality, [H, M, M].

    Args:
        name: of the parameter.
        modalities: the modalities that have a row, in order; left out, the layer gives each modality
            a row when it first meets it (or when `Attention.name_modalities` says so).
    """

    name: str
    modalities: tuple[str, ...] = ()

    word: ClassVar[str] = "modality_bias"

    def __post_init__(self) -> None:
        self._check_name("name")
        if isinstance(self.modalities, str) or not all(isinstance(name, str) for name in self.modalities):
            raise self._wrong("modalities", "a list of names")
        object.__setattr__(self, "modalities", tuple(self.modalities))
        if len(set(self.modalities)) != len(self.modalities):
            raise InputError(f"modality_bias: got {list(self.modalities)}, expected distinct modalities")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        size = len(self.modalities) or "M"
        return (ParameterSpec(self.name, (size, size)),)

    def bias(self, pairs: Pairs) -> Tensor:
        names = self.modalities or pairs.slots
        return pairs.lookup(self.name, pairs.slot(pairs.query, names), pairs.slot(pairs.key, names))

    def words(self) -> str:
        return f"plus a learned bias for each pair of modalities ({self.name!r})"


modality_bias = ModalityBias
