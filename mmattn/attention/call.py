"""One call of a layer, as a backend sees it: projected tokens, the program, and all it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.layout import Layout, Side
from mmattn.attention.pairs import Fields, Pairs
from mmattn.attention.program import Program

__all__ = ["Call", "Extras"]


@dataclass(frozen=True, eq=False)
class Extras:
    """What the context gives to the terms, by token.

    Args:
        query, key: name -> [N, ...] of that side, for example boxes.
        present: [Nk] boolean from `context["presence"]`, or None.
        edges: name -> the pairs of tokens that an edge joins.
    """

    query: Mapping[str, Tensor] = field(default_factory=dict)
    key: Mapping[str, Tensor] = field(default_factory=dict)
    present: Tensor | None = None
    edges: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Call:
    """What a backend runs.

    Args:
        program: one program for all heads of this call.
        q, k, v: [Nq, H, K], [Nk, H, K], [Nk, H, K].
        layout: which tokens form a sample.
        parameters: name -> [H, ...] for all heads of the layer; dynamic numbers [B, H], as predicted.
        first_head: the number of this call's first head within the layer.
        slots: the layer's numbering of modalities.
        extras: what the context gives.
        dropout: probability that a weight is dropped, 0 outside training.
    """

    program: Program
    q: Tensor
    k: Tensor
    v: Tensor
    layout: Layout
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    first_head: int = 0
    slots: tuple[str, ...] = ()
    extras: Extras = field(default_factory=Extras)
    dropout: float = 0.0

    @property
    def head(self) -> Tensor:
        """[H, 1, 1], the heads of this call by number."""
        return self.first_head + torch.arange(self.q.shape[1], device=self.q.device)[:, None, None]

    def sample_pairs(self, sample: int) -> Pairs:
        """Queries and keys of one sample against each other, [Q, 1] and [1, K]."""
        query, key = self.layout.query, self.layout.key
        q = slice(query.starts[sample], query.starts[sample + 1])
        k = slice(key.starts[sample], key.starts[sample + 1])
        present = None if self.extras.present is None else self.extras.present[None, k]
        return Pairs(
            query=_fields(query, q, (slice(None), None), self.extras.query),
            key=_fields(key, k, (None, slice(None)), self.extras.key, present),
            head=self.head,
            parameters=self._of_sample(sample),
            edges={name: joined.of_sample(sample) for name, joined in self.extras.edges.items()},
            slots=self.slots,
        )

    def _of_sample(self, sample: int) -> dict[str, Tensor]:
        """The parameters, of dynamic numbers the sample's own."""
        dynamic = {term.name for term in self.program.walk() if term.word == "dynamic"}  # type: ignore[attr-defined]
        return {name: value[sample] if name in dynamic else value for name, value in self.parameters.items()}


def _fields(
    side: Side,
    tokens: slice,
    shape: tuple[Any, ...],
    extra: Mapping[str, Tensor],
    present: Tensor | None = None,
) -> Fields:
    """The fields of some tokens, shaped to broadcast."""
    return Fields(
        position=side.position[tokens][shape],
        modality=side.modality[tokens][shape],
        names=side.modalities,
        time=None if side.time is None else side.time[tokens][shape],
        entity=None if side.entity is None else side.entity[tokens][shape],
        extra={name: value[tokens][shape] for name, value in extra.items()},
        present=present,
    )
