"""Knowledge-graph edges inside a FlexAttention kernel: every pair looks itself up among its query's edges.

The joined pairs of tokens are kept sorted by query and key, one number a pair, and a pair is found by
binary search in the stretch of its query: a few loads, as many as the most linked query's edges have
binary digits. Which edges join a pair is a row of a small table of distinct combinations, so that the
learned bias of a combination is a matrix product outside of the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.attention.execution.graph_edges import TokenEdges
    from mmattn.attention.execution.layout import Layout

__all__ = ["CapturedEdges", "EdgeTable", "build_edge_table"]


@dataclass(frozen=True, eq=False)
class EdgeTable:
    """The pairs of tokens of a batch that edges join, ready to be searched.

    Args:
        first_edge, last_edge: [Lq], where the pairs of each query token begin and end, padded.
        key: [P], key tokens of the batch, ascending within a query; padded.
        combination: [P], the row of `counts`.
        counts: [C, relations], how many edges of each relation; row 0 has none.
        search_steps: of the binary search.
    """

    first_edge: Tensor
    last_edge: Tensor
    key: Tensor
    combination: Tensor
    counts: Tensor
    search_steps: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """What a compiled kernel depends on: padded pairs, padded combinations, steps."""
        return len(self.key), len(self.counts), self.search_steps

    def with_weight(self, weight: Tensor) -> CapturedEdges:
        """With the learned weight [H, relations].

        Args:
            weight: [H, relations] learned bias of each relation.
        """
        return CapturedEdges(self, weight @ self.counts.T.to(weight.dtype))


@dataclass(frozen=True, eq=False)
class CapturedEdges:
    """Edges and the bias [H, C] of every combination of them."""

    edge_table: EdgeTable
    bias: Tensor

    def edge_bias(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """The bias of one pair; this is traced into the kernel.

        Args:
            head: index of the head.
            query: index of the query token.
            key: index of the key token.
        """
        low, end = self.edge_table.first_edge[query], self.edge_table.last_edge[query]
        high = end
        for _ in range(self.edge_table.search_steps):
            middle = (low + high) // 2
            before = (low < high) & (self.edge_table.key[middle] < key)
            high = torch.where((low < high) & ~before, middle, high)
            low = torch.where(before, middle + 1, low)
        here = (low < end) & (self.edge_table.key[low] == key)
        return self.bias[head, torch.where(here, self.edge_table.combination[low], 0)]


def build_edge_table(
    token_edges: TokenEdges, relations: int, layout: Layout, padded_queries: int
) -> EdgeTable:
    """Bring joined edges into that form, once a layout.

    Args:
        token_edges: edges between tokens.
        relations: number of relations.
        layout: layout of queries and keys.
        padded_queries: length to which the queries' side is padded.
    """
    cache_key = ("flex edges", token_edges, padded_queries)
    if cache_key not in layout.cache:
        layout.cache[cache_key] = _build_edge_table(token_edges, relations, layout, padded_queries)
    result: EdgeTable = layout.cache[cache_key]
    return result


def _build_edge_table(
    token_edges: TokenEdges, relations: int, layout: Layout, padded_queries: int
) -> EdgeTable:
    device = token_edges.query.device
    starts = torch.tensor(token_edges.starts, device=device)
    query = torch.arange(len(starts) - 1, device=device).repeat_interleave(starts.diff())
    key = token_edges.key + layout.key.offsets[layout.query.sample[query]]
    keys = max(layout.key.starts[-1], 1)
    pairs, pair_index = torch.unique(query * keys + key, return_inverse=True)
    counts = torch.zeros(len(pairs), relations, dtype=torch.int64, device=device)
    counts.index_put_((pair_index, token_edges.relation), torch.ones_like(pair_index), accumulate=True)
    distinct, combination = torch.unique(counts, dim=0, return_inverse=True)
    query, key = pairs // keys, pairs % keys
    ends = torch.bincount(query, minlength=padded_queries).cumsum(0)
    longest = int(torch.bincount(query, minlength=1).max())
    # One place more than there are pairs: the search may end behind the last one.
    padding = (0, _next_power_of_two(len(pairs) + 1) - len(pairs))
    return EdgeTable(
        first_edge=F.pad(ends, (1, 0))[:-1],
        last_edge=ends,
        key=F.pad(key, padding),
        combination=F.pad(combination + 1, padding),
        counts=F.pad(distinct, (0, 0, 1, _next_power_of_two(len(distinct) + 1) - len(distinct) - 1)),
        search_steps=longest.bit_length(),
    )


def _next_power_of_two(number: int) -> int:
    """The next power of two: few lengths, and so few kernels."""
    return 1 << (number - 1).bit_length()
