"""What the context of a call holds, checked and brought to the tokens it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.biases import BoxBias, GraphBias, box_columns
from mmattn.attention.call import Extras
from mmattn.attention.edges import join
from mmattn.attention.layout import Layout
from mmattn.attention.parameters import Dynamic
from mmattn.attention.program import Heads, Program
from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = ["extras", "predictor"]


def extras(
    program: Program | Heads, q: Tokens, kv: Tokens, layout: Layout, context: Mapping[str, Any]
) -> Extras:
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
