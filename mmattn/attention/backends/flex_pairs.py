"""Terms inside a FlexAttention kernel: single pairs, with every number in a captured tensor.

The terms' own code is traced, as it stands, with `Pairs` over one query, one key and one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.flex_edges import CapturedEdges, build_edge_table
from mmattn.attention.language.biases import Bias, GraphBias
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.attention.language.parameters import Learned, Number

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.layout import TokenLayout

__all__ = ["CapturedFields", "CapturedTensors", "capture_tensors", "flex_pairs", "padded_num_samples"]


@dataclass(frozen=True, eq=False)
class CapturedFields:
    """One side's fields, [L] each, padded. Padding belongs to no sample."""

    position: Tensor
    modality: Tensor
    sample: Tensor
    modalities: tuple[str, ...]
    time: Tensor | None
    extra: Mapping[str, tuple[Tensor, ...]]
    present: Tensor | None


@dataclass(frozen=True, eq=False)
class CapturedTensors:
    """Everything that a traced program reads.

    Args:
        query, key: fields.
        parameters: [H, ...] of this call's heads, dynamic numbers [B, H].
        constants: tables that terms ask for, by their numbers.
        edges: what `graph_bias` looks pairs up in.
        modality_slots: the layer's numbering of modalities.
    """

    query: CapturedFields
    key: CapturedFields
    parameters: Mapping[str, Tensor]
    constants: Mapping[Any, Tensor]
    edges: Mapping[str, CapturedEdges]
    modality_slots: tuple[str, ...]


def capture_tensors(call: AttentionCall, padded_queries: int, padded_keys: int) -> CapturedTensors:
    """Padded fields, and the constants that the program's terms ask for.

    Args:
        call: tensors, layout and program.
        padded_queries: length to which the queries' side is padded.
        padded_keys: length to which the keys' side is padded.
    """
    heads = slice(call.first_head, call.first_head + call.q.shape[1])
    dynamic = {term.name for term in call.program.walk() if term.term_name == "dynamic"}  # type: ignore[attr-defined]
    parameters = {
        name: _pad_samples(value[:, heads]) if name in dynamic else value[heads].contiguous()
        for name, value in call.parameters.items()
    }
    query, key = call.layout.query, call.layout.key
    first_B = _first_time(query, key)
    return CapturedTensors(
        query=_capture_fields(query, padded_queries, -1, call.context_tensors.query, None, first_B),
        key=_capture_fields(
            key, padded_keys, -2, call.context_tensors.key, call.context_tensors.present, first_B
        ),
        parameters=parameters,
        constants=_record_constants(call),
        edges={
            term.name: build_edge_table(
                call.context_tensors.edges[term.name], term.relations, call.layout, padded_queries
            ).with_weight(parameters[term.name])
            for term in call.program.chain.modifiers
            if isinstance(term, GraphBias)
        },
        modality_slots=call.modality_slots,
    )


def padded_num_samples(num_samples: int) -> int:
    """A power of two: a kernel is compiled for a number of samples, and these shall be few.

    Args:
        num_samples: number of samples, at least 1.
    """
    return 1 << max(num_samples - 1, 0).bit_length()


def _pad_samples(number_BH: Tensor) -> Tensor:
    return F.pad(number_BH, (0, 0, 0, padded_num_samples(len(number_BH)) - len(number_BH))).contiguous()


def _capture_fields(
    side: TokenLayout,
    length: int,
    padding_sample: int,
    extra: Mapping[str, tuple[Tensor, ...]],
    present: Tensor | None,
    first_B: Tensor | None,
) -> CapturedFields:
    more = (0, length - len(side.position))
    time = None
    if side.time is not None and first_B is not None:
        # Dates do not fit into float32, but the differences within a sample do.
        time = F.pad((side.time - first_B[side.sample]).float(), more)
    return CapturedFields(
        position=F.pad(side.position, more),
        modality=F.pad(side.modality, more),
        sample=F.pad(side.sample, more, value=padding_sample),
        modalities=side.modalities,
        time=time,
        # Ones keep the logarithms of padded boxes finite.
        extra={
            name: tuple(F.pad(column, more, value=1.0) for column in columns)
            for name, columns in extra.items()
        },
        present=None if present is None else F.pad(present, more),
    )


def _first_time(*sides: TokenLayout) -> Tensor | None:
    """[B], the earliest known time of each sample; infinity where there is none."""
    known = [side for side in sides if side.time is not None]
    if not known:
        return None
    first_B = known[0].time.new_full((len(known[0].length_list),), float("inf"))  # type: ignore[union-attr]
    for side in known:
        assert side.time is not None
        first_B = first_B.scatter_reduce(0, side.sample, side.time.nan_to_num(nan=float("inf")), "amin")
    return first_B


@dataclass(frozen=True)
class _ConstantRecorder(Pairs):
    """Remembers the constants that terms ask for."""

    recorded: dict[Any, Tensor] = field(default_factory=dict)

    def constant(self, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
        self.recorded[numbers] = super().constant(numbers, dtype)
        return self.recorded[numbers]


def _record_constants(call: AttentionCall) -> dict[Any, Tensor]:
    """Run every term once, on one pair, to learn its tables. Done once a layout."""
    key = ("flex constants", call.program, call.modality_slots)
    if key not in call.layout.cache:
        sample = next(
            s
            for s in range(call.layout.num_samples)
            if call.layout.query.length_list[s] and call.layout.key.length_list[s]
        )
        pairs = call.sample_pairs(sample, slice(0, 1))
        recorder = _ConstantRecorder(**{name: getattr(pairs, name) for name in Pairs.__dataclass_fields__})
        with torch.no_grad():
            call.program.mask.allow(recorder)
            for term in call.program.chain.modifiers:
                if isinstance(term, Bias):
                    term.bias(recorder)
        call.layout.cache[key] = recorder.recorded
    result: dict[Any, Tensor] = call.layout.cache[key]
    return result


@dataclass(frozen=True)
class _FlexPairs(Pairs):
    """One query, one key, one head, while a kernel is traced."""

    sample: Tensor | None = None
    constants: Mapping[Any, Tensor] = field(default_factory=dict)

    def resolve_number(self, value: Number) -> Tensor | float:
        if isinstance(value, float):
            return value
        theta = self.parameters[value.name]
        chosen = theta[self.head] if isinstance(value, Learned) else theta[self.sample, self.head]
        return value.start * torch.exp(chosen)

    def lookup(self, name: str, *index: Tensor) -> Tensor:
        return self.parameters[name][(self.head, *index)]

    def constant(self, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
        return self.constants[numbers]

    def bucketize(self, value: Tensor, boundaries: tuple[float, ...]) -> Tensor:
        reached = torch.zeros_like(self.query.position)
        for boundary in boundaries:  # NaN reaches none of them
            reached = reached + (value >= boundary)
        return reached


def flex_pairs(captured: CapturedTensors, head: Tensor, query: Tensor, key: Tensor) -> Pairs:
    """What terms see of one pair.

    Args:
        captured: tensors that the kernel reads.
        head: index of the head.
        query: index of the query token.
        key: index of the key token.
    """
    return _FlexPairs(
        query=_fields_of_token(captured.query, query),
        key=_fields_of_token(captured.key, key),
        head=head,
        parameters=captured.parameters,
        modality_slots=captured.modality_slots,
        # Padded queries belong to no sample: any row of the numbers will do, nothing is made of it.
        sample=captured.query.sample[query].clamp(min=0),
        constants=captured.constants,
    )


def _fields_of_token(side: CapturedFields, token: Tensor) -> TokenFields:
    return TokenFields(
        position=side.position[token],
        modality=side.modality[token],
        modalities=side.modalities,
        time=None if side.time is None else side.time[token],
        extra={name: tuple(column[token] for column in columns) for name, columns in side.extra.items()},
        present=None if side.present is None else side.present[token],
    )
