"""One call of a layer, as a backend sees it: projected tokens, the program, and all it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.attention.execution.context_tensors import ContextTensors, sample_pairs
from mmattn.attention.execution.graph_edges import BlockEdges, TokenEdges
from mmattn.attention.execution.schedule import Step, step_fields
from mmattn.attention.language.pairs import Pairs
from mmattn.attention.language.parameters import Dynamic, Learned, Number

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["AttentionCall"]


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """What a backend runs.

    Args:
        program: one program for all heads of this call.
        q, k, v: [Nq, H, K], [Nk, H, K], [Nk, H, K].
        layout: which tokens form a sample.
        parameters: name -> [H, ...] for all heads of the layer; dynamic numbers [B, H], as predicted.
        first_head: the row of this call's first head in the parameters.
        modality_slots: the layer's numbering of modalities.
        context_tensors: what the context gives.
        dropout: probability that a weight is dropped, 0 outside training.
    """

    program: Program
    q: Tensor
    k: Tensor
    v: Tensor
    layout: Layout
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    first_head: int = 0
    modality_slots: tuple[str, ...] = ()
    context_tensors: ContextTensors = field(default_factory=ContextTensors)
    dropout: float = 0.0

    @cached_property
    def head(self) -> Tensor:
        """[H, 1, 1], the rows of this call's heads in the parameters."""
        return self.first_head + torch.arange(self.q.shape[1], device=self.q.device)[:, None, None]

    @cached_property
    def _dynamic_names(self) -> frozenset[str]:
        return frozenset(term.name for term in self.program.walk() if isinstance(term, Dynamic))

    def number_per_query(self, value: Number) -> Tensor | float:
        """A number of the program for every query token: itself, [H, 1] or [Nq, H, 1].

        Args:
            value: number of the program, constant, learned or dynamic.
        """
        if isinstance(value, float):
            return value
        rows = slice(self.first_head, self.first_head + self.q.shape[1])
        theta = self.parameters[value.name]
        if isinstance(value, Learned):
            return (value.start * theta[rows].exp())[:, None]
        number_BH = value.start * theta[:, rows].exp()
        return number_BH.repeat_interleave(self.layout.query.offsets.diff(), dim=0)[..., None]

    # --- what terms see -------------------------------------------------------------------------

    def sample_pairs(self, sample: int, queries: slice | None = None) -> Pairs:
        """Queries (all, or some of them) and keys of one sample, [Q, 1] and [1, K].

        Args:
            sample: index of the sample.
            queries: which of its queries; None for all.
        """
        parameters = {
            name: value[sample] if name in self._dynamic_names else value
            for name, value in self.parameters.items()
        }
        return sample_pairs(
            self.layout, self.context_tensors, sample, queries, self.head, parameters, self.modality_slots
        )

    def step_pairs(self, step: Step) -> Pairs:
        """The queries and keys of a step, [G, 1, Q, 1] and [G, 1, 1, K].

        Args:
            step: group of samples that run together.
        """
        query, key = step_fields(self.layout, step, self.context_tensors.present)
        q, k = step.q_tokens[:, None, :, None], step.k_tokens[:, None, None, :]
        samples = torch.tensor(step.samples, device=self.q.device) if self._dynamic_names else None
        return Pairs(
            replace(
                query,
                extra={
                    name: _index_columns(columns, q) for name, columns in self.context_tensors.query.items()
                },
            ),
            replace(
                key,
                extra={
                    name: _index_columns(columns, k) for name, columns in self.context_tensors.key.items()
                },
            ),
            head=self.head,
            parameters={
                name: value[samples] if name in self._dynamic_names else value
                for name, value in self.parameters.items()
            },
            edges={
                name: self._step_edges(step, joined) for name, joined in self.context_tensors.edges.items()
            },
            modality_slots=self.modality_slots,
        )

    def _step_edges(self, step: Step, token_edges: TokenEdges) -> BlockEdges:
        starts = self.layout.query.starts
        parts = []
        for row, sample in enumerate(step.samples):
            first = starts[sample] + step.first_query
            last = min(first + step.num_queries, starts[sample + 1])
            parts.append(token_edges.for_queries(first, last, row, offset=step.first_query))
        rows, query, key, relation = (torch.cat(columns) for columns in zip(*parts, strict=True))
        if len(step.samples) == 1:
            # The step may hold some of the keys only: find each key's column, and drop those without.
            first_key = self.layout.key.starts[step.samples[0]]
            size = self.layout.key.starts[step.samples[0] + 1] - first_key
            column = torch.full((size,), -1, device=key.device)
            column[step.k_tokens[0] - first_key] = torch.arange(step.num_keys, device=key.device)
            key = column[key]
            seen = key >= 0
            rows, query, key, relation = rows[seen], query[seen], key[seen], relation[seen]
        return BlockEdges.from_pairs(
            (rows, query, key, relation), (len(step.samples), step.num_queries, step.num_keys)
        )


def _index_columns(columns: tuple[Tensor, ...], tokens: Tensor) -> tuple[Tensor, ...]:
    return tuple(column[tokens] for column in columns)
