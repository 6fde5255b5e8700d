"""What the context of a call holds, checked and brought to the tokens it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.execution.graph_edges import BlockEdges, JoinedEdges, join
from mmattn.attention.execution.layout import Layout, Side
from mmattn.attention.language.biases import BoxBias, GraphBias, box_columns
from mmattn.attention.language.pairs import Fields, Pairs
from mmattn.attention.language.parameters import Dynamic
from mmattn.attention.language.term import Term
from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = ["Extras", "extras", "predictor", "sample_pairs"]


@dataclass(frozen=True, eq=False)
class Extras:
    """What the context gives to the terms, by token.

    Args:
        query, key: name -> columns [N] of that side, for example of boxes.
        present: [Nk] boolean from `context["presence"]`, or None.
        edges: name -> the pairs of tokens that an edge joins.
    """

    query: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    key: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    present: Tensor | None = None
    edges: Mapping[str, JoinedEdges] = field(default_factory=dict)


def extras(program: Term, q: Tokens, kv: Tokens, layout: Layout, context: Mapping[str, Any]) -> Extras:
    """Boxes, edges and presence, by token.

    Raises:
        InputError: something that a term refers to is missing or has another shape.
    """
    boxes: dict[str, tuple[Tensor, Tensor]] = {}
    edges = {}
    for term in program.walk():
        if isinstance(term, BoxBias):
            boxes[term.name] = _boxes(term, q, kv, _required(context, term.name, str(term)))
        elif isinstance(term, GraphBias):
            edges[term.name] = join(term, _required(context, term.name, str(term)), layout)
    return Extras(
        query={name: box_columns(pair[0]) for name, pair in boxes.items()},
        key={name: box_columns(pair[1]) for name, pair in boxes.items()},
        present=_present(context, kv, layout),
        edges=edges,
    )


def sample_pairs(
    layout: Layout,
    extras: Extras,
    sample: int,
    queries: slice | None,
    head: Tensor,
    parameters: Mapping[str, Tensor],
    slots: tuple[str, ...],
) -> Pairs:
    """Queries (all, or some of them) and keys of one sample, [Q, 1] and [1, K].

    Args:
        parameters: name -> [H, ...]; dynamic numbers as predicted for this sample, [H].
    """
    query, key = layout.query, layout.key
    start, stop = query.starts[sample], query.starts[sample + 1]
    chosen = range(start, stop)[queries or slice(None)]
    q = slice(chosen.start, chosen.stop)
    k = slice(key.starts[sample], key.starts[sample + 1])
    shape = (1, q.stop - q.start, k.stop - k.start)
    return Pairs(
        query=_slice(query, q, (slice(None), None), extras.query),
        key=_slice(key, k, (None, slice(None)), extras.key, extras.present),
        head=head,
        parameters=parameters,
        edges={
            name: replace(
                BlockEdges.of(joined.between(q.start, q.stop, offset=q.start - start), shape),
                shape=shape[1:],
            )
            for name, joined in extras.edges.items()
        },
        slots=slots,
    )


def _slice(
    side: Side,
    tokens: slice,
    shape: tuple[Any, ...],
    extra: Mapping[str, tuple[Tensor, ...]],
    present: Tensor | None = None,
) -> Fields:
    """The fields of some tokens, shaped to broadcast."""
    return Fields(
        position=side.position[tokens][shape],
        modality=side.modality[tokens][shape],
        names=side.modalities,
        time=None if side.time is None else side.time[tokens][shape],
        entity=None if side.entity is None else side.entity[tokens][shape],
        extra={name: tuple(column[tokens][shape] for column in columns) for name, columns in extra.items()},
        present=None if present is None else present[tokens][shape],
    )


def predictor(term: Dynamic, q: Tokens, context: Mapping[str, Any]) -> Tensor:
    """[B, D], what a dynamic number is predicted from.

    Raises:
        InputError: the context has no task, or one of another shape.
    """
    if term.on == "input":
        total_BD = q.values.new_zeros(len(q), q.dim).index_add(0, q.sample, q.values)
        return total_BD / q.lengths.clamp(min=1)[:, None]
    task = _required(context, "task", str(term))
    if not isinstance(task, Tensor) or task.shape not in ((q.dim,), (len(q), q.dim)):
        raise InputError(
            f'Attention: context["task"] is {_got(task)}, expected [{q.dim}] or [{len(q)}, {q.dim}]'
        )
    return task.to(q.values).expand(len(q), q.dim)


def _required(context: Mapping[str, Any], name: str, term: str) -> Any:
    if name not in context:
        raise InputError(
            f"Attention: {term} needs context[{name!r}], which is missing.{nearest(name, context)}"
        )
    return context[name]


def _boxes(term: BoxBias, q: Tokens, kv: Tokens, given: Any) -> tuple[Tensor, Tensor]:
    query, key = given if isinstance(given, tuple) and len(given) == 2 else (given, given)
    for side, tokens, boxes in (("queries", q, query), ("keys", kv, key)):
        where = f"Attention: context[{term.name!r}] for the {side}"
        count = len(tokens.values)
        if not isinstance(boxes, Tensor) or boxes.shape != (count, 4) or not boxes.is_floating_point():
            raise InputError(f"{where} is {_got(boxes)}, expected a floating point [{count}, 4]")
        if bool((boxes[:, 2:] <= boxes[:, :2]).any()):
            raise InputError(
                f"{where} has a box without area, expected left < right and top < bottom, or NaN"
            )
    return query.to(q.values), key.to(q.values)


def _present(context: Mapping[str, Any], kv: Tokens, layout: Layout) -> Tensor | None:
    """[Nk] from `context["presence"]`."""
    presence = context.get("presence")
    if presence is None:
        return None
    expected = (len(kv), len(kv.modalities))
    if not isinstance(presence, Tensor) or presence.shape != expected or presence.dtype != torch.bool:
        raise InputError(
            f'Attention: context["presence"] is {_got(presence)}, expected boolean {list(expected)}'
        )
    return presence[layout.key.sample, kv.modality]


def _got(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else repr(value)
