"""What the context of a call holds, checked and brought to the tokens it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.execution.graph_edges import BlockEdges, TokenEdges, join_edges
from mmattn.attention.language.biases import BoxBias, GraphBias, box_features
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import Layout, TokenLayout
    from mmattn.attention.language.parameters import Dynamic
    from mmattn.attention.language.term import Term

__all__ = ["ContextTensors", "build_context_tensors", "dynamic_input", "sample_pairs"]


@dataclass(frozen=True, eq=False)
class ContextTensors:
    """What the context gives to the terms, by token.

    Args:
        query, key: name -> columns [N] of that side, for example of boxes.
        present: [Nk] boolean from `context["presence"]`, or None.
        edges: name -> the pairs of tokens that an edge joins.
    """

    query: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    key: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    present: Tensor | None = None
    edges: Mapping[str, TokenEdges] = field(default_factory=dict)


def build_context_tensors(
    program: Term, q: Tokens, kv: Tokens, layout: Layout, context: Mapping[str, Any]
) -> ContextTensors:
    """Boxes, edges and presence, by token.

    Args:
        program: program of the layer.
        q: queries.
        kv: keys and values.
        layout: layout of both.
        context: what a call gives beside the tokens, by name.

    Raises:
        InputError: something that a term refers to is missing or has another shape.
    """
    boxes: dict[str, tuple[Tensor, Tensor]] = {}
    edges = {}
    for term in program.walk():
        if isinstance(term, BoxBias):
            boxes[term.name] = _box_tensors(term, q, kv, _require(context, term.name, str(term)))
        elif isinstance(term, GraphBias):
            edges[term.name] = join_edges(term, _require(context, term.name, str(term)), layout)
    return ContextTensors(
        query={name: box_features(pair[0]) for name, pair in boxes.items()},
        key={name: box_features(pair[1]) for name, pair in boxes.items()},
        present=_token_presence(context, kv, layout),
        edges=edges,
    )


def sample_pairs(
    layout: Layout,
    context_tensors: ContextTensors,
    sample: int,
    queries: slice | None,
    head: Tensor,
    parameters: Mapping[str, Tensor],
    modality_slots: tuple[str, ...],
) -> Pairs:
    """Queries (all, or some of them) and keys of one sample, [Q, 1] and [1, K].

    Args:
        layout: layout of queries and keys.
        context_tensors: what the context gives.
        sample: index of the sample.
        queries: which of its queries; None for all.
        head: [H, 1, 1] indices of the heads.
        parameters: name -> [H, ...]; dynamic numbers as predicted for this sample, [H].
        modality_slots: the layer's numbering of modalities.
    """
    query, key = layout.query, layout.key
    start, stop = query.starts[sample], query.starts[sample + 1]
    chosen = range(start, stop)[queries or slice(None)]
    q = slice(chosen.start, chosen.stop)
    k = slice(key.starts[sample], key.starts[sample + 1])
    shape = (1, q.stop - q.start, k.stop - k.start)
    return Pairs(
        query=_slice_fields(query, q, (slice(None), None), context_tensors.query),
        key=_slice_fields(key, k, (None, slice(None)), context_tensors.key, context_tensors.present),
        head=head,
        parameters=parameters,
        edges={
            name: replace(
                BlockEdges.from_pairs(joined.for_queries(q.start, q.stop, offset=q.start - start), shape),
                shape=shape[1:],
            )
            for name, joined in context_tensors.edges.items()
        },
        modality_slots=modality_slots,
    )


def _slice_fields(
    side: TokenLayout,
    tokens: slice,
    shape: tuple[Any, ...],
    extra: Mapping[str, tuple[Tensor, ...]],
    present: Tensor | None = None,
) -> TokenFields:
    """The fields of some tokens, shaped to broadcast."""
    return TokenFields(
        position=side.position[tokens][shape],
        modality=side.modality[tokens][shape],
        modalities=side.modalities,
        time=None if side.time is None else side.time[tokens][shape],
        entity=None if side.entity is None else side.entity[tokens][shape],
        extra={name: tuple(column[tokens][shape] for column in columns) for name, columns in extra.items()},
        present=None if present is None else present[tokens][shape],
    )


def dynamic_input(term: Dynamic, q: Tokens, context: Mapping[str, Any]) -> Tensor:
    """[B, D], what a dynamic number is predicted from.

    Args:
        term: the dynamic number.
        q: queries.
        context: what a call gives beside the tokens, by name.

    Raises:
        InputError: the context has no task, or one of another shape.
    """
    if term.on == "input":
        total_BD = q.values.new_zeros(len(q), q.dim).index_add(0, q.sample, q.values)
        return total_BD / q.lengths.clamp(min=1)[:, None]
    task = _require(context, "task", str(term))
    if not isinstance(task, Tensor) or task.shape not in ((q.dim,), (len(q), q.dim)):
        raise InputError(
            f'Attention: context["task"] is {_describe_value(task)}, expected [{q.dim}] or [{len(q)}, '
            f"{q.dim}]"
        )
    return task.to(q.values).expand(len(q), q.dim)


def _require(context: Mapping[str, Any], name: str, term: str) -> Any:
    if name not in context:
        raise InputError(
            f"Attention: {term} needs context[{name!r}], which is missing.{did_you_mean(name, context)}"
        )
    return context[name]


def _box_tensors(term: BoxBias, q: Tokens, kv: Tokens, value: Any) -> tuple[Tensor, Tensor]:
    query, key = value if isinstance(value, tuple) and len(value) == 2 else (value, value)
    for side, tokens, boxes in (("queries", q, query), ("keys", kv, key)):
        where = f"Attention: context[{term.name!r}] for the {side}"
        count = len(tokens.values)
        if not isinstance(boxes, Tensor) or boxes.shape != (count, 4) or not boxes.is_floating_point():
            raise InputError(f"{where} is {_describe_value(boxes)}, expected a floating point [{count}, 4]")
        if bool((boxes[:, 2:] <= boxes[:, :2]).any()):
            raise InputError(
                f"{where} has a box without area, expected left < right and top < bottom, or NaN"
            )
    return query.to(q.values), key.to(q.values)


def _token_presence(context: Mapping[str, Any], kv: Tokens, layout: Layout) -> Tensor | None:
    """[Nk] from `context["presence"]`."""
    presence = context.get("presence")
    if presence is None:
        return None
    expected = (len(kv), len(kv.modalities))
    if not isinstance(presence, Tensor) or presence.shape != expected or presence.dtype != torch.bool:
        raise InputError(
            f'Attention: context["presence"] is {_describe_value(presence)}, expected boolean '
            f"{list(expected)}"
        )
    return presence[layout.key.sample, kv.modality]


def _describe_value(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)
