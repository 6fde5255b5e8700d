"""Terms inside a FlexAttention kernel: single pairs, with every number in a captured tensor.

The terms' own code is traced, as it stands, with `Pairs` over one query, one key and one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.flex_edges import CapturedEdges, find_edges
from mmattn.attention.execution.attention_call import Call
from mmattn.attention.execution.layout import Side
from mmattn.attention.language.biases import Bias, GraphBias
from mmattn.attention.language.pairs import Fields, Pairs
from mmattn.attention.language.parameters import Learned, Number

__all__ = ["Captured", "CapturedSide", "capture", "flex_pairs", "padded_rows"]


@dataclass(frozen=True, eq=False)
class CapturedSide:
    """One side's fields, [L] each, padded. Padding belongs to no sample."""

    position: Tensor
    modality: Tensor
    sample: Tensor
    names: tuple[str, ...]
    time: Tensor | None
    extra: Mapping[str, tuple[Tensor, ...]]
    present: Tensor | None


@dataclass(frozen=True, eq=False)
class Captured:
    """Everything that a traced program reads.

    Args:
        query, key: fields.
        parameters: [H, ...] of this call's heads, dynamic numbers [B, H].
        constants: tables that terms ask for, by their numbers.
        edges: what `graph_bias` looks pairs up in.
        slots: the layer's numbering of modalities.
    """

    query: CapturedSide
    key: CapturedSide
    parameters: Mapping[str, Tensor]
    constants: Mapping[Any, Tensor]
    edges: Mapping[str, CapturedEdges]
    slots: tuple[str, ...]


def capture(call: Call, queries: int, keys: int) -> Captured:
    """Padded fields, and the constants that the program's terms ask for."""
    heads = slice(call.first_head, call.first_head + call.q.shape[1])
    dynamic = {term.name for term in call.program.walk() if term.word == "dynamic"}  # type: ignore[attr-defined]
    parameters = {
        name: _rows(value[:, heads]) if name in dynamic else value[heads].contiguous()
        for name, value in call.parameters.items()
    }
    query, key = call.layout.query, call.layout.key
    first_B = _first_time(query, key)
    return Captured(
        query=_side(query, queries, -1, call.extras.query, None, first_B),
        key=_side(key, keys, -2, call.extras.key, call.extras.present, first_B),
        parameters=parameters,
        constants=_constants(call),
        edges={
            term.name: find_edges(
                call.extras.edges[term.name], term.relations, call.layout, queries
            ).with_weight(parameters[term.name])
            for term in call.program.chain.changes
            if isinstance(term, GraphBias)
        },
        slots=call.slots,
    )


def padded_rows(samples: int) -> int:
    """A power of two: a kernel is compiled for a number of samples, and these shall be few."""
    return 1 << max(samples - 1, 0).bit_length()


def _rows(number_BH: Tensor) -> Tensor:
    return F.pad(number_BH, (0, 0, 0, padded_rows(len(number_BH)) - len(number_BH))).contiguous()


def _side(
    side: Side,
    length: int,
    nobody: int,
    extra: Mapping[str, tuple[Tensor, ...]],
    present: Tensor | None,
    first_B: Tensor | None,
) -> CapturedSide:
    more = (0, length - len(side.position))
    time = None
    if side.time is not None and first_B is not None:
        # Dates do not fit into float32, but the differences within a sample do.
        time = F.pad((side.time - first_B[side.sample]).float(), more)
    return CapturedSide(
        position=F.pad(side.position, more),
        modality=F.pad(side.modality, more),
        sample=F.pad(side.sample, more, value=nobody),
        names=side.modalities,
        time=time,
        # Ones keep the logarithms of padded boxes finite.
        extra={
            name: tuple(F.pad(column, more, value=1.0) for column in columns)
            for name, columns in extra.items()
        },
        present=None if present is None else F.pad(present, more),
    )


def _first_time(*sides: Side) -> Tensor | None:
    """[B], the earliest known time of each sample; infinity where there is none."""
    known = [side for side in sides if side.time is not None]
    if not known:
        return None
    first_B = known[0].time.new_full((len(known[0].sizes),), float("inf"))  # type: ignore[union-attr]
    for side in known:
        assert side.time is not None
        first_B = first_B.scatter_reduce(0, side.sample, side.time.nan_to_num(nan=float("inf")), "amin")
    return first_B


@dataclass(frozen=True)
class _Recorder(Pairs):
    """Remembers the constants that terms ask for."""

    found: dict[Any, Tensor] = field(default_factory=dict)

    def constant(self, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
        self.found[numbers] = super().constant(numbers, dtype)
        return self.found[numbers]


def _constants(call: Call) -> dict[Any, Tensor]:
    """Run every term once, on one pair, to learn its tables. Done once a layout."""
    key = ("flex constants", call.program, call.slots)
    if key not in call.layout.cache:
        sample = next(
            s for s in range(call.layout.samples) if call.layout.query.sizes[s] and call.layout.key.sizes[s]
        )
        pairs = call.sample_pairs(sample, slice(0, 1))
        recorder = _Recorder(**{name: getattr(pairs, name) for name in Pairs.__dataclass_fields__})
        with torch.no_grad():
            call.program.mask.allow(recorder)
            for term in call.program.chain.changes:
                if isinstance(term, Bias):
                    term.bias(recorder)
        call.layout.cache[key] = recorder.found
    return call.layout.cache[key]


@dataclass(frozen=True)
class _FlexPairs(Pairs):
    """One query, one key, one head, while a kernel is traced."""

    sample: Tensor | None = None
    constants: Mapping[Any, Tensor] = field(default_factory=dict)

    def number(self, value: Number) -> Tensor | float:
        if isinstance(value, float):
            return value
        theta = self.parameters[value.name]
        chosen = theta[self.head] if isinstance(value, Learned) else theta[self.sample, self.head]
        return value.start * torch.exp(chosen)

    def lookup(self, name: str, *index: Tensor) -> Tensor:
        return self.parameters[name][(self.head, *index)]

    def constant(self, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self.constants[numbers]

    def bucket(self, value: Tensor, boundaries: tuple[float, ...]) -> Tensor:
        reached = torch.zeros_like(self.query.position)
        for boundary in boundaries:  # NaN reaches none of them
            reached = reached + (value >= boundary)
        return reached


def flex_pairs(captured: Captured, head: Tensor, query: Tensor, key: Tensor) -> Pairs:
    """What terms see of one pair."""
    return _FlexPairs(
        query=_fields(captured.query, query),
        key=_fields(captured.key, key),
        head=head,
        parameters=captured.parameters,
        slots=captured.slots,
        # Padded queries belong to no sample: any row of the numbers will do, nothing is made of it.
        sample=captured.query.sample[query].clamp(min=0),
        constants=captured.constants,
    )


def _fields(side: CapturedSide, token: Tensor) -> Fields:
    return Fields(
        position=side.position[token],
        modality=side.modality[token],
        names=side.names,
        time=None if side.time is None else side.time[token],
        extra={name: tuple(column[token] for column in columns) for name, columns in side.extra.items()},
        present=None if side.present is None else side.present[token],
    )
