"""Bringing tokens into another order, and reading overlapping stretches of them, with cheap gradients.

Indexing a tensor has a gradient that adds row by row, and slicing it once a sample has one that fills a
whole tensor for each slice. Both dominate a jagged layer on the CPU. Here every gradient is one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Order", "stretches"]


@dataclass(frozen=True, eq=False)
class Order:
    """Where each row of a packed tensor comes from.

    Args:
        index: [P] rows of the original, with anything in padded rows; None where nothing moves.
        inverse: [N] rows of the packed tensor.
        padding: [..] rows of the packed tensor that stand for nothing.
    """

    index: Tensor | None = None
    inverse: Tensor | None = None
    padding: Tensor | None = None

    def pack(self, values: Tensor) -> Tensor:
        """[N, ...] -> [P, ...], zeros in padded rows."""
        return values if self.index is None else _Pack.apply(values, self)

    def unpack(self, packed: Tensor) -> Tensor:
        """[P, ...] -> [N, ...]."""
        return packed if self.index is None else _Unpack.apply(packed, self)

    def _to_packed(self, values: Tensor) -> Tensor:
        assert self.index is not None
        packed = values.index_select(0, self.index)
        return packed if self.padding is None else packed.index_fill_(0, self.padding, 0.0)

    def _to_original(self, packed: Tensor) -> Tensor:
        assert self.inverse is not None
        return packed.index_select(0, self.inverse)


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, order: Order) -> Tensor:
        ctx.order = order
        return order._to_packed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.order._to_original(gradients[0]), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, order: Order) -> Tensor:
        ctx.order = order
        return order._to_original(packed)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.order._to_packed(gradients[0]), None


def stretches(values: Tensor, ranges: list[tuple[int, int]]) -> list[Tensor]:
    """`values[first:last]` for every range; ranges may overlap and leave rows out."""
    sizes = [last - first for first, last in ranges]
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    if ends[-1] == len(values) and all(first == end for (first, _), end in zip(ranges, ends, strict=False)):
        return list(values.split(sizes))
    if not values.requires_grad:
        return [values[first:last] for first, last in ranges]
    return list(_Stretches.apply(values, ranges))


class _Stretches(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, ranges: list[tuple[int, int]]) -> tuple[Tensor, ...]:
        ctx.ranges, ctx.shape = ranges, values.shape
        return tuple(values[first:last] for first, last in ranges)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        total = gradients[0].new_zeros(ctx.shape)
        for (first, last), gradient in zip(ctx.ranges, gradients, strict=True):
            total[first:last] += gradient
        return total, None
