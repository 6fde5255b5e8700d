"""What is known about whole blocks of tokens, so that a mask can skip them without looking at a pair.

Of a block only its range of positions and the modalities in it are kept. From these every mask says of
two blocks whether a pair of them may be allowed and whether all of them must be; both answers are safe,
neither has to be sharp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["BlockFields", "BlockPairs", "Bounds", "summarise"]


class Bounds(NamedTuple):
    """Of every two blocks, boolean [..., nQ, nK]: may a pair be allowed, must every pair be?"""

    may: Tensor
    must: Tensor

    @classmethod
    def unknown(cls, pairs: BlockPairs) -> Bounds:
        """Anything is possible."""
        may = torch.ones_like(pairs.query.low | pairs.key.low, dtype=torch.bool)
        return cls(may, ~may)

    @classmethod
    def everything(cls, pairs: BlockPairs) -> Bounds:
        """Everything is allowed."""
        may = torch.ones_like(pairs.query.low | pairs.key.low, dtype=torch.bool)
        return cls(may, may)


@dataclass(frozen=True, eq=False)
class BlockFields:
    """Blocks of one side.

    Args:
        low, high: smallest and largest position, [..., nQ, 1] or [..., 1, nK].
        kinds: boolean, [..., nQ, 1, M] or [..., 1, nK, M]: which modalities are in the block?
        names: the modalities.
    """

    low: Tensor
    high: Tensor
    kinds: Tensor
    names: tuple[str, ...]

    def has(self, modality: str) -> Bounds:
        """May a token be, and must all tokens be, of that modality?"""
        if modality not in self.names:
            none = torch.zeros_like(self.low, dtype=torch.bool)
            return Bounds(none, none)
        index = self.names.index(modality)
        may = self.kinds[..., index]
        return Bounds(may, may & (self.kinds.sum(-1) == 1))


@dataclass(frozen=True, eq=False)
class BlockPairs:
    """Blocks of queries against blocks of keys."""

    query: BlockFields
    key: BlockFields

    def distances(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest distance in positions that two tokens of the blocks can have."""
        ahead, behind = self.key.low - self.query.high, self.query.low - self.key.high
        nearest = torch.maximum(ahead, behind).clamp(min=0)
        farthest = torch.maximum(self.key.high - self.query.low, self.query.high - self.key.low)
        return nearest, farthest


def summarise(
    position: Tensor, modality: Tensor, names: tuple[str, ...], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Low, high [n] and kinds [n, M] of the blocks of `size` tokens; the last one may be shorter."""
    count = -(-len(position) // size)
    # Repeating the last token fills the last block without changing what is known of it.
    place = torch.arange(count * size, device=position.device).clamp(max=len(position) - 1)
    blocked = position[place].view(count, size)
    kinds = torch.zeros(count, max(len(names), 1), dtype=torch.bool, device=position.device)
    kinds.scatter_(1, modality[place].view(count, size), True)
    return blocked.amin(1), blocked.amax(1), kinds
