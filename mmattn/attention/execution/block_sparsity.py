"""Cutting one long sample by what its mask leaves out: blocks of queries against the keys they can see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from mmattn.attention.language.block_bounds import BlockFields, BlockPairs, summarize_blocks

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import Layout, TokenLayout
    from mmattn.attention.language.position_masks import Mask

__all__ = ["QueryBlock", "split_queries"]

# Blocks of tokens by which masks are skipped: queries that run together, keys that are read together.
_QUERY_BLOCK_SIZE, _KEY_BLOCK_SIZE = 128, 64


@dataclass(frozen=True)
class QueryBlock:
    """Some queries of the sample, and stretches of its keys that they can see.

    Args:
        first_query, num_queries: the first query's number, and how many there are.
        key_ranges: first and last + 1 of the keys.
        fully_allowed: may all of these queries see all of these keys?
    """

    first_query: int
    num_queries: int
    key_ranges: tuple[tuple[int, int], ...]
    fully_allowed: bool

    @property
    def num_keys(self) -> int:
        """How many keys there are."""
        return sum(last - first for first, last in self.key_ranges)

    @property
    def num_pairs(self) -> int:
        """Pairs that are scored."""
        return self.num_queries * self.num_keys


def split_queries(
    layout: Layout, mask: Mask, q_tokens: Tensor, k_tokens: Tensor, max_pairs: int
) -> list[QueryBlock]:
    """All queries of a sample in order; neighbours that see all of the same keys stay together.

    Args:
        layout: layout of queries and keys.
        mask: mask of the program.
        q_tokens: [Q] indices of the sample's query tokens.
        k_tokens: [K] indices of the sample's key tokens.
        max_pairs: largest number of pairs of a block, except for a single query.
    """
    queries, keys = len(q_tokens), len(k_tokens)
    most = max(1, max_pairs // keys)
    size = min(_QUERY_BLOCK_SIZE, most)
    bounds = mask.bounds(
        BlockPairs(
            _block_fields(layout.query, q_tokens, size, is_query=True),
            _block_fields(layout.key, k_tokens, _KEY_BLOCK_SIZE, is_query=False),
        )
    )
    shape = (-(-queries // size), -(-keys // _KEY_BLOCK_SIZE))
    may, must = (bound.expand(shape).tolist() for bound in bounds)
    stretches: list[QueryBlock] = []
    for block, (seen, certain_of) in enumerate(zip(may, must, strict=True)):
        new = QueryBlock(
            first_query=block * size,
            num_queries=min(size, queries - block * size),
            key_ranges=_merge_key_ranges(seen, keys),
            fully_allowed=all(sure for sure, visible in zip(certain_of, seen, strict=True) if visible),
        )
        last = stretches[-1] if stretches else None
        alike = (
            last is not None
            and last.fully_allowed
            and new.fully_allowed
            and last.key_ranges == new.key_ranges
        )
        if last is not None and alike and last.num_queries + new.num_queries <= most:
            stretches[-1] = replace(last, num_queries=last.num_queries + new.num_queries)
        else:
            stretches.append(new)
    return stretches


def _block_fields(side: TokenLayout, tokens: Tensor, size: int, is_query: bool) -> BlockFields:
    low, high, kinds = summarize_blocks(side.position[tokens], side.modality[tokens], side.modalities, size)
    if is_query:
        return BlockFields(low[:, None], high[:, None], kinds[:, None], side.modalities)
    return BlockFields(low[None], high[None], kinds[None], side.modalities)


def _merge_key_ranges(visible_blocks: list[bool], num_keys: int) -> tuple[tuple[int, int], ...]:
    """Stretches of keys that the seen blocks cover."""
    ranges: list[tuple[int, int]] = []
    for block, visible in enumerate(visible_blocks):
        if not visible:
            continue
        first, last = block * _KEY_BLOCK_SIZE, min((block + 1) * _KEY_BLOCK_SIZE, num_keys)
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    return tuple(ranges)
