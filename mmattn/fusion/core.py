"""The shared fusion core: entry, layers of programmable attention, pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmattn.fusion.block import FusionBlock, NarrowBlock
from mmattn.fusion.entry import Entry
from mmattn.types import Fused, Tokens

__all__ = ["FusionCore"]


class FusionCore(nn.Module):
    """Tokens of several encoders in, `Fused` out; every part is injected (see `mmattn.build`).

    Args:
        entry: brings all modalities to one width.
        blocks: layers over the joint tokens, in order; may be empty.
        pool: makes the joint vector and one a modality.

    Example:
        >>> import torch
        >>> from mmattn.fusion.pool import AttentionPool
        >>> core = FusionCore(Entry({"text": 3}, dim=8), [], AttentionPool(dim=8, modalities=1))
        >>> core({"text": Tokens.from_sequences([torch.randn(2, 3)], "text")}).pooled.shape
        torch.Size([1, 8])
    """

    def __init__(self, entry: Entry, blocks: Sequence[FusionBlock | NarrowBlock], pool: nn.Module):
        super().__init__()
        self.entry = entry
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool

    @property
    def dim(self) -> int:
        """Width D of everything that comes out."""
        return self.entry.dim

    def forward(self, parts: Mapping[str, Tokens], context: Any = None) -> Fused:
        """Fuse the samples.

        Args:
            parts: modality -> tokens of its encoder; leave out what is absent from the whole batch.
            context: handed to every attention program (edges, task).
        """
        tokens = self.entry(parts)
        for block in self.blocks:
            tokens = block(tokens, context)
        return self.pool(tokens)
