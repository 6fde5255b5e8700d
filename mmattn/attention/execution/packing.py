"""Bringing tokens into another order, and reading overlapping stretches of them, with cheap gradients.

Indexing a tensor has a gradient that adds row by row, and slicing it once a sample has one that fills a
whole tensor for each slice. Both dominate a jagged layer on the CPU. Here every gradient is one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import TokenLayout

__all__ = ["PackedOrder", "slice_ranges"]


@dataclass(frozen=True, eq=False)
class PackedOrder:
    """Where each row of a packed tensor comes from.

    Args:
        device: of the tokens.
        index: [P] rows of the original; padded rows repeat a row of their sample. None: nothing moves.
        inverse: [N] rows of the packed tensor.
        padding: boolean [P], rows that stand for nothing; None where there are none.
    """

    device: torch.device
    index: Tensor | None = None
    inverse: Tensor | None = None
    padding: Tensor | None = None

    @classmethod
    def from_groups(cls, side: TokenLayout, groups: Sequence[tuple[Sequence[int], int]]) -> PackedOrder:
        """The order that puts the samples of each tile together, each padded to the tile's length.

        Args:
            side: layout of the tokens.
            groups: (samples, length) of each.
        """
        device = side.position.device
        samples = torch.tensor([sample for group, _ in groups for sample in group], device=device)
        lengths = torch.tensor([length for group, length in groups for _ in group], device=device)
        total = int(lengths.sum())
        ends = lengths.cumsum(0)
        row = torch.arange(len(samples), device=device).repeat_interleave(lengths, output_size=total)
        within = torch.arange(total, device=device) - (ends - lengths)[row]
        is_token = within < side.offsets.diff()[samples][row]
        # Padding repeats the sample's last token: whatever is wrong with a sample stays in that sample.
        last = (side.offsets[1:][samples][row] - 1).clamp(min=0)
        index = torch.minimum(side.offsets[:-1][samples][row] + within, last)
        inverse = torch.empty(side.starts[-1], dtype=torch.int64, device=device)
        inverse[index[is_token]] = is_token.nonzero()[:, 0]
        return cls(device, index, inverse, None if bool(is_token.all()) else ~is_token)

    def token_indices(self, ranges: Sequence[tuple[int, int]]) -> Tensor:
        """The numbers of the tokens in stretches of packed rows.

        Args:
            ranges: first row and last row + 1 of each slice.
        """
        if self.index is not None:
            parts = [self.index[first:last] for first, last in ranges]
        else:
            parts = [torch.arange(first, last, device=self.device) for first, last in ranges]
        if not parts:
            return torch.empty(0, dtype=torch.int64, device=self.device)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def slices(
        self, values: Tensor, ranges: list[tuple[int, int]], separate_buffers: bool = False
    ) -> Iterator[Tensor]:
        """Stretches of the packed rows of [N, ...], one after the other.

        Nobody may look at padded rows, and no gradient flows through them. Where gradients are not recorded,
        stretches share their memory in turn: each is read before the next is asked for, or `separate_buffers`
            is said.

        Args:
            values: [N, ...] values of the tokens.
            ranges: first row and last row + 1 of each slice.
            separate_buffers: copy each slice into memory of its own.
        """
        if self.index is None:
            return iter(slice_ranges(values, ranges))
        if torch.is_grad_enabled() and values.requires_grad:
            return iter(slice_ranges(_Pack.apply(values, self), ranges))  # type: ignore[no-untyped-call]
        if (
            separate_buffers or torch.is_grad_enabled()
        ):  # queries without a gradient are kept for that of the keys
            return self._gather_ranges(values, ranges, None)
        # A small piece of memory that is used again is much faster than a large one, or than new ones.
        size = max((last - first for first, last in ranges), default=0)
        return self._gather_ranges(values, ranges, values.new_empty(size, *values.shape[1:]))

    def _gather_ranges(
        self, values: Tensor, ranges: list[tuple[int, int]], buffer: Tensor | None
    ) -> Iterator[Tensor]:
        for first, last in ranges:
            out = None if buffer is None else buffer[: last - first]
            yield torch.index_select(values, 0, self.index[first:last], out=out)  # type: ignore[index]

    def unpack(self, parts: Iterable[Tensor]) -> Tensor:
        """Stretches of [P, ...], in their order, at least one -> [N, ...].

        Args:
            parts: slices of packed rows, in order.
        """
        if self.index is None:
            parts = list(parts)
            return torch.cat(parts) if len(parts) > 1 else parts[0]
        # Without a gradient every part is put in its place, and forgotten, before the next is computed.
        return _Unpack.apply(self, *parts) if torch.is_grad_enabled() else self._scatter_parts(parts)  # type: ignore[no-untyped-call]

    def _scatter_parts(self, parts: Iterable[Tensor]) -> Tensor:
        assert self.inverse is not None
        values, row = None, 0
        for part in parts:
            if values is None:  # padded rows end in a row of their own, which is cut off
                values = part.new_empty(len(self.inverse) + 1, *part.shape[1:])
            values.index_copy_(0, self.scatter_index[row : row + len(part)], part)
            row += len(part)
        assert values is not None
        return values[:-1]

    @cached_property
    def scatter_index(self) -> Tensor:
        """[P] rows of the original, and N for padded rows."""
        assert self.index is not None
        assert self.inverse is not None
        return self.index if self.padding is None else self.index.masked_fill(self.padding, len(self.inverse))


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, order: PackedOrder) -> Tensor:
        ctx.order = order
        return values.index_select(0, order.index)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0].index_select(0, ctx.order.inverse), None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, order: PackedOrder, *parts: Tensor) -> Tensor:
        ctx.order, ctx.sizes = order, [len(part) for part in parts]
        return order._scatter_parts(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        order = ctx.order
        parts = [gradients[0].index_select(0, rows) for rows in order.index.split(ctx.sizes)]
        if order.padding is not None:
            for part, padding in zip(parts, order.padding.split(ctx.sizes), strict=True):
                part[padding] = 0.0
        return None, *parts


def slice_ranges(values: Tensor, ranges: list[tuple[int, int]]) -> list[Tensor]:
    """`values[first:last]` for every range; ranges may overlap and leave rows out.

    Args:
        values: [N, ...].
        ranges: first row and last row + 1 of each slice.
    """
    sizes = [last - first for first, last in ranges]
    ends = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    if ends[-1] == len(values) and all(first == end for (first, _), end in zip(ranges, ends, strict=False)):
        return list(values.split(sizes))
    if not values.requires_grad:
        return [values[first:last] for first, last in ranges]
    return list(_SliceRanges.apply(values, ranges))  # type: ignore[no-untyped-call]


class _SliceRanges(torch.autograd.Function):
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
