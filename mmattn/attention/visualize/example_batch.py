"""A small multimodal scene that fits a program: what `plot` draws and `check` draws its batches after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmattn.attention.language.biases import BoxBias, GraphBias, ModalityBias
from mmattn.attention.language.modality_masks import Route
from mmattn.attention.language.position_masks import Blocks, Dilated, Window
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.language.term import Term

__all__ = ["example_batch", "example_context", "program_modalities"]

_DEFAULT_TOKEN_COUNTS = {"text": 8, "image": 6, "audio": 5}
_OTHER_TOKEN_COUNT = 2
# Tokens of a modality that a picture can still show.
_MAX_TOKENS = 160


def program_modalities(program: Term) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modalities of the queries and of the keys that a program can run over.

    The usual ones and those that it names; only the latter where it is closed to others.

    Args:
        program: to be shown.
    """
    terms = list(program.walk())
    named = [name for term in terms for name in term.named_modalities()]
    routed = [set(dict(term.routes)) for term in terms if isinstance(term, Route)]
    routed = [queries for queries in routed if "*" not in queries]
    rows = [set(term.modalities) for term in terms if isinstance(term, ModalityBias) and term.modalities]
    names = [
        name
        for name in dict.fromkeys([*_DEFAULT_TOKEN_COUNTS, *named])
        if all(name in row for row in rows) and (not routed or name in named)
    ]
    return tuple(name for name in names if all(name in queries for queries in routed)), tuple(names)


def example_batch(program: Term) -> tuple[Tokens, Tokens]:
    """One sample of queries and of keys, long enough to show the program's windows and blocks.

    Every modality has positions, times a minute apart, and entities, all counted from 0.

    Args:
        program: to be shown.
    """
    reach = max((term.n for term in program.walk() if isinstance(term, (Window, Dilated, Blocks))), default=0)
    scale = min(
        max(1.0, 2 * reach / _DEFAULT_TOKEN_COUNTS["text"]), _MAX_TOKENS / _DEFAULT_TOKEN_COUNTS["text"]
    )
    query, key = program_modalities(program)
    tokens = _example_tokens(key, scale)
    return tokens if query == key else _example_tokens(query, scale), tokens


def _example_tokens(names: tuple[str, ...], scale: float) -> Tokens:
    counts = {
        name: int(_DEFAULT_TOKEN_COUNTS[name] * scale)
        if name in _DEFAULT_TOKEN_COUNTS
        else _OTHER_TOKEN_COUNT
        for name in names
    }
    return Tokens.cat(
        Tokens.from_lengths(
            torch.zeros(count, 1, dtype=torch.float64),
            torch.tensor([count]),
            name,
            time=torch.arange(count) * 60.0,
            entity=torch.arange(count),
        )
        for name, count in counts.items()
    )


def example_context(program: Term, q: Tokens, kv: Tokens) -> dict[str, Any]:
    """What the program's terms refer to: an edge from every entity to the next, boxes in rows of three.

    Args:
        program: to be shown.
        q: queries.
        kv: keys and values.
    """
    context: dict[str, Any] = {}
    for term in program.walk():
        if isinstance(term, GraphBias):
            entity = torch.arange(_MAX_TOKENS)
            context[term.name] = torch.stack([entity, entity + 1, entity % term.relations])
        elif isinstance(term, BoxBias):
            context[term.name] = (_example_boxes(q), _example_boxes(kv))
    return context


def _example_boxes(tokens: Tokens) -> torch.Tensor:
    left, top = tokens.position.double() % 3, (tokens.position // 3).double()
    return torch.stack([left, top, left + 1, top + 1], dim=1)
