"""Cutting one long sample by what its mask leaves out: blocks of queries against the keys they can see."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from mmattn.attention.execution.layout import Layout, Side
from mmattn.attention.language.block_bounds import BlockFields, BlockPairs, summarise
from mmattn.attention.language.position_masks import Mask

__all__ = ["Stretch", "cut"]

# Blocks of tokens by which masks are skipped: queries that run together, keys that are read together.
_QUERIES, _KEYS = 128, 64


@dataclass(frozen=True)
class Stretch:
    """Some queries of the sample, and stretches of its keys that they can see.

    Args:
        first, queries: the first query's number, and how many there are.
        ranges: first and last + 1 of the keys.
        certain: may all of these queries see all of these keys?
    """

    first: int
    queries: int
    ranges: tuple[tuple[int, int], ...]
    certain: bool

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return sum(last - first for first, last in self.ranges)

    @property
    def pairs(self) -> int:
        """Pairs that are scored."""
        return self.queries * self.keys


def cut(layout: Layout, mask: Mask, q_tokens: Tensor, k_tokens: Tensor, limit: int) -> list[Stretch]:
    """All queries of a sample in order; neighbours that see all of the same keys stay together.

    Args:
        q_tokens, k_tokens: [Q] and [K], numbers of the sample's tokens.
        limit: most pairs that a stretch may hold, except for a single query.
    """
    queries, keys = len(q_tokens), len(k_tokens)
    most = max(1, limit // keys)
    size = min(_QUERIES, most)
    bounds = mask.bounds(
        BlockPairs(
            _blocks(layout.query, q_tokens, size, query=True),
            _blocks(layout.key, k_tokens, _KEYS, query=False),
        )
    )
    shape = (-(-queries // size), -(-keys // _KEYS))
    may, must = (bound.expand(shape).tolist() for bound in bounds)
    stretches: list[Stretch] = []
    for block, (seen, certain_of) in enumerate(zip(may, must, strict=True)):
        new = Stretch(
            first=block * size,
            queries=min(size, queries - block * size),
            ranges=_ranges(seen, keys),
            certain=all(sure for sure, visible in zip(certain_of, seen, strict=True) if visible),
        )
        last = stretches[-1] if stretches else None
        alike = last is not None and last.certain and new.certain and last.ranges == new.ranges
        if last is not None and alike and last.queries + new.queries <= most:
            stretches[-1] = replace(last, queries=last.queries + new.queries)
        else:
            stretches.append(new)
    return stretches


def _blocks(side: Side, tokens: Tensor, size: int, query: bool) -> BlockFields:
    low, high, kinds = summarise(side.position[tokens], side.modality[tokens], side.modalities, size)
    if query:
        return BlockFields(low[:, None], high[:, None], kinds[:, None], side.modalities)
    return BlockFields(low[None], high[None], kinds[None], side.modalities)


def _ranges(seen: list[bool], keys: int) -> tuple[tuple[int, int], ...]:
    """Stretches of keys that the seen blocks cover."""
    ranges: list[tuple[int, int]] = []
    for block, visible in enumerate(seen):
        if not visible:
            continue
        first, last = block * _KEYS, min((block + 1) * _KEYS, keys)
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    return tuple(ranges)
