"""Reading a small learned table for every pair of a block, with a gradient that adds up quickly.

Indexing would do the same, but its gradient adds one pair after the other and dominates a whole block
of attention; sorting pairs by table entry is not needed either, since the table is small.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["lookup"]


def lookup(table: Tensor, *index: Tensor) -> Tensor:
    """Entries of a table for every head.

    Args:
        table: [H, X, ...], one row a head.
        *index: int64 index into each of the other dimensions, shaped to broadcast, with a dimension of size 1
            for the heads before the last two where there are more than two: [Q, K], or [G, 1, Q, K].

    Returns:
        [..., H, Q, K].
    """
    flat = index[0]
    for size, part in zip(table.shape[2:], index[1:], strict=True):
        flat = flat * size + part
    result: Tensor = _Lookup.apply(table.flatten(1), flat)  # type: ignore[no-untyped-call]
    return result


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_HX: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.entries = table_HX.shape[1]
        block = index.squeeze(-3) if index.dim() > 2 else index
        entries = table_HX.index_select(1, block.reshape(-1)).view(len(table_HX), *block.shape)
        return entries.movedim(0, -3)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        gradient_HP = gradients[0].movedim(-3, 0).flatten(1)
        place_P = index.reshape(-1)
        total_HX = gradient_HP.new_zeros(len(gradient_HP), ctx.entries)
        return total_HX.scatter_add_(1, place_P.expand_as(gradient_HP), gradient_HP), None
