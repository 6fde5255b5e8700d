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

__all__ = ["BlockFields", "BlockPairs", "Bounds", "summarize_blocks"]


class Bounds(NamedTuple):
    """Of every two blocks, boolean [..., nQ, nK]: may a pair be allowed, must every pair be?"""

    may_hold: Tensor
    must_hold: Tensor

    @classmethod
    def unknown(cls, pairs: BlockPairs) -> Bounds:
        """Anything is possible.

        Args:
            pairs: blocks of queries and keys.
        """
        may = torch.ones_like(pairs.query.min_position | pairs.key.min_position, dtype=torch.bool)
        return cls(may, ~may)

    @classmethod
    def all_allowed(cls, pairs: BlockPairs) -> Bounds:
        """Everything is allowed.

        Args:
            pairs: blocks of queries and keys.
        """
        may = torch.ones_like(pairs.query.min_position | pairs.key.min_position, dtype=torch.bool)
        return cls(may, may)


@dataclass(frozen=True, eq=False)
class BlockFields:
    """Blocks of one side.

    Args:
        min_position, max_position: smallest and largest position, [..., nQ, 1] or [..., 1, nK].
        modality_present: boolean, [..., nQ, 1, M] or [..., 1, nK, M]: which modalities are in the block?
        modalities: the modalities.
    """

    min_position: Tensor
    max_position: Tensor
    modality_present: Tensor
    modalities: tuple[str, ...]

    def has_modality(self, modality: str) -> Bounds:
        """May a token be, and must all tokens be, of that modality?

        Args:
            modality: its name.
        """
        if modality not in self.modalities:
            none = torch.zeros_like(self.min_position, dtype=torch.bool)
            return Bounds(none, none)
        index = self.modalities.index(modality)
        may = self.modality_present[..., index]
        return Bounds(may, may & (self.modality_present.sum(-1) == 1))


@dataclass(frozen=True, eq=False)
class BlockPairs:
    """Blocks of queries against blocks of keys."""

    query: BlockFields
    key: BlockFields

    def distances(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest distance in positions that two tokens of the blocks can have."""
        ahead, behind = (
            self.key.min_position - self.query.max_position,
            self.query.min_position - self.key.max_position,
        )
        nearest = torch.maximum(ahead, behind).clamp(min=0)
        farthest = torch.maximum(
            self.key.max_position - self.query.min_position, self.query.max_position - self.key.min_position
        )
        return nearest, farthest


def summarize_blocks(
    position: Tensor, modality: Tensor, modalities: tuple[str, ...], block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Low, high [n] and kinds [n, M] of the blocks of `block_size` tokens; the last one may be shorter.

    Args:
        position: [N] positions of the tokens.
        modality: [N] indices into `modalities`.
        modalities: names of the modalities M.
        block_size: tokens of a block.
    """
    count = -(-len(position) // block_size)
    # Repeating the last token fills the last block without changing what is known of it.
    source = torch.arange(count * block_size, device=position.device).clamp(max=len(position) - 1)
    blocked = position[source].view(count, block_size)
    kinds = torch.zeros(count, max(len(modalities), 1), dtype=torch.bool, device=position.device)
    kinds.scatter_(1, modality[source].view(count, block_size), True)
    return blocked.amin(1), blocked.amax(1), kinds
