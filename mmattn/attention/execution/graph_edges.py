"""Knowledge-graph edges over a batch of tokens: which pairs of tokens of one sample an edge joins.

The join is done over the sorted edges, once a layout and context. Nothing of size N x N is made; a
block of scores gets the edges that fall into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.biases import GraphBias

__all__ = ["BlockEdges", "TokenEdges", "join_edges"]


@dataclass(frozen=True, eq=False)
class TokenEdges:
    """Pairs of tokens that an edge joins, in the order of their queries.

    Args:
        query, key: [P], numbers of the tokens within their sample.
        relation: [P].
        starts: [Nq + 1], where the pairs of each query token of the batch begin (a list).
    """

    query: Tensor
    key: Tensor
    relation: Tensor
    starts: list[int]

    def for_queries(self, first: int, last: int, row: int = 0, offset: int = 0) -> tuple[Tensor, ...]:
        """(row, query, key, relation) for the query tokens first to last - 1 of the batch.

        Args:
            first: first query token.
            last: last query token + 1.
            row: number of the row in the result.
            offset: number of the first key of the row.
        """
        pairs = slice(self.starts[first], self.starts[last])
        query = self.query[pairs] - offset
        return torch.full_like(query, row), query, self.key[pairs], self.relation[pairs]


@dataclass(frozen=True, eq=False)
class BlockEdges:
    """The edges that fall into one block of scores.

    Args:
        flat_index: [P], flat places in a block of `shape`.
        relation: [P].
        shape: ([G,] Q, K).
    """

    flat_index: Tensor
    relation: Tensor
    shape: tuple[int, ...]

    @classmethod
    def from_pairs(cls, pairs: tuple[Tensor, ...], shape: tuple[int, int, int]) -> BlockEdges:
        """From (row, query, key, relation) and the block's shape [G, Q, K].

        Args:
            pairs: rows, queries, keys and relations of the edges, [E] each.
            shape: G, Q and K of the block.
        """
        row, query, key, relation = pairs
        return cls((row * shape[1] + query) * shape[2] + key, relation, shape)

    def bias(self, weight: Tensor) -> Tensor:
        """[..., H, Q, K] from a weight [H, relations]: what the edges add up to.

        Args:
            weight: [H, relations] learned bias of each relation.
        """
        size = 1
        for length in self.shape:
            size *= length
        total_HP = weight.new_zeros(len(weight), size).index_add(1, self.flat_index, weight[:, self.relation])
        return total_HP.view(len(weight), *self.shape).movedim(0, -3)


def join_edges(term: GraphBias, edges: object, layout: Layout) -> TokenEdges:
    """The pairs of tokens that the edges join; kept with the layout for these very edges.

    Args:
        term: the bias that uses the edges.
        edges: int64 [3, E]: query entity, key entity, relation.
        layout: layout of queries and keys.

    Raises:
        InputError: edges of another shape or with unknown relations, or tokens without entities.
    """
    where = f"graph_bias({term.name})"
    if not isinstance(edges, Tensor) or edges.dim() != 2 or len(edges) != 3 or edges.dtype != torch.int64:
        got = f"{tuple(edges.shape)} {edges.dtype}" if isinstance(edges, Tensor) else repr(edges)
        raise InputError(
            f"{where}: context[{term.name!r}] is {got}, expected int64 [3, E]: head, tail, relation"
        )
    key = ("edges", id(edges))
    if key not in layout.cache:
        if edges.shape[1] and not (0 <= int(edges[2].min()) and int(edges[2].max()) < term.relations):
            raise InputError(
                f"{where}: got relations {int(edges[2].min())} to {int(edges[2].max())}, "
                f"expected 0 to {term.relations - 1}"
            )
        if layout.query.entity is None or layout.key.entity is None:
            raise InputError(f"{where}: got tokens without entities, expected Tokens.entity")
        layout.cache[key] = (
            edges,
            _match_edges(edges, layout),
        )  # holding the edges keeps their id from being reused
    result: TokenEdges = layout.cache[key][1]
    return result


def _match_edges(edges: Tensor, layout: Layout) -> TokenEdges:
    query, key = layout.query, layout.key
    assert query.entity is not None
    assert key.entity is not None
    # Only edges with both ends in the batch matter: a hub of the graph may have millions of others.
    edges = edges[:, torch.isin(edges[0], query.entity) & torch.isin(edges[1], key.entity) & (edges[0] >= 0)]
    head, order = edges[0].sort(stable=True)
    tail, relation = edges[1, order], edges[2, order]
    token, edge = _expand_ranges(
        torch.searchsorted(head, query.entity), torch.searchsorted(head, query.entity, right=True)
    )
    # A key matches where its sample and entity are the ones wanted: one sorted number for both.
    top = int(key.entity.max()) + 1 if len(key.entity) else 1
    sorted_key, key_order = (key.sample * top + key.entity).masked_fill(key.entity < 0, -1).sort(stable=True)
    wanted = query.sample[token] * top + tail[edge]
    pair, match = _expand_ranges(
        torch.searchsorted(sorted_key, wanted), torch.searchsorted(sorted_key, wanted, right=True)
    )
    token, relation, matched = token[pair], relation[edge[pair]], key_order[match]
    counts = torch.bincount(token, minlength=len(query.entity))
    return TokenEdges(
        query=token - query.offsets[query.sample[token]],
        key=matched - key.offsets[key.sample[matched]],
        relation=relation,
        starts=[0, *counts.cumsum(0).tolist()],
    )


def _expand_ranges(first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Every (i, j) with first[i] <= j < last[i], in the order of i."""
    counts = last - first
    row = torch.arange(len(first), device=first.device).repeat_interleave(counts)
    begin = counts.cumsum(0) - counts
    return row, first[row] + torch.arange(len(row), device=first.device) - begin[row]
