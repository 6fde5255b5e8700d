"""A batch cut into steps: groups of samples, or stretches of one sample's queries, against their keys.

The schedule depends on the tokens' layout and the program's mask only. It is made once and kept with
the layout. Which samples run together is decided in tiles.py; long samples run alone and, where the mask
leaves whole blocks out, query block by query block against the keys that the block can see (cut.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.execution.block_sparsity import Stretch, cut
from mmattn.attention.execution.layout import Layout, Side
from mmattn.attention.execution.packing import Order
from mmattn.attention.execution.tiling import Settings, Tile, alike, fits, neighbours
from mmattn.attention.language.pairs import Fields, Pairs
from mmattn.attention.language.position_masks import Causal, Full, Mask

__all__ = ["Schedule", "Settings", "Step", "fields", "schedule"]

# A sample is cut where that leaves at most this share of its pairs.
_WORTH = 0.75


@dataclass(frozen=True, eq=False)
class Step:
    """Some queries against some keys, in G rows side by side: a sample each, or joined samples in one.

    Args:
        samples: the samples.
        rows: G.
        first: the first query's number within its sample (0 unless a sample is cut).
        queries: Q, with padding.
        keys: K, with padding.
        q_row: where the step's G * Q queries begin in the packed order.
        ranges: stretches of the packed keys, G * K rows in all.
        q_order, k_order: how tokens are packed.
        allowed: boolean, broadcastable to [G, 1, Q, K]; None where everything is.
        causal: is the lower triangle meant instead?
    """

    samples: tuple[int, ...]
    rows: int
    first: int
    queries: int
    keys: int
    q_row: int
    ranges: tuple[tuple[int, int], ...]
    q_order: Order
    k_order: Order
    allowed: Tensor | None = None
    causal: bool = False

    @property
    def pairs(self) -> int:
        """Pairs that are scored, with padding."""
        return self.rows * self.queries * self.keys

    @cached_property
    def q_tokens(self) -> Tensor:
        """[G, Q], numbers of the query tokens; anything in padding."""
        last = self.q_row + self.rows * self.queries
        return self.q_order.tokens([(self.q_row, last)]).view(self.rows, self.queries)

    @cached_property
    def k_tokens(self) -> Tensor:
        """[G, K], numbers of the key tokens; anything in padding."""
        return self.k_order.tokens(self.ranges).view(self.rows, self.keys)

    @cached_property
    def mask(self) -> Tensor | None:
        """`allowed`, with the lower triangle written out."""
        if not self.causal:
            return self.allowed
        return torch.ones(self.queries, self.keys, dtype=torch.bool, device=self.q_order.device).tril()


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps, and the order of queries and keys in which they read them."""

    steps: tuple[Step, ...]
    q_order: Order
    k_order: Order

    @property
    def pairs(self) -> int:
        """Pairs that are scored in all, with padding."""
        return sum(step.pairs for step in self.steps)

    def seconds(self, settings: Settings) -> float:
        """Estimated cost."""
        queries = sum(step.rows * step.queries for step in self.steps)
        moved = sum(len(order.inverse) for order in (self.q_order, self.k_order) if order.inverse is not None)
        return (
            len(self.steps) * settings.call
            + queries * settings.query
            + self.pairs * settings.pair
            + moved * settings.row / 2
        )


def schedule(layout: Layout, mask: Mask, settings: Settings, present: Tensor | None = None) -> Schedule:
    """The schedule for a mask, made once a layout (unless `present` [Nk], which changes, matters)."""
    if present is not None and any(term.word == "present" for term in mask.walk()):
        return _Builder(layout, mask, settings, present).build()
    cache = layout.by_length if isinstance(mask, Full) else layout.cache
    key = ("schedule", mask, settings)
    if key not in cache:
        cache[key] = _Builder(layout, mask, settings, None).build()
    return cache[key]


class _Builder:
    def __init__(self, layout: Layout, mask: Mask, settings: Settings, present: Tensor | None) -> None:
        self.layout, self.mask, self.settings, self.present = layout, mask, settings, present
        self.causal = isinstance(mask, Causal) and layout.increasing
        self.plain = isinstance(mask, Full) or self.causal
        self.shapes = list(zip(layout.query.sizes, layout.key.sizes, strict=True))

    def build(self) -> Schedule:
        tiles = neighbours(self.shapes, self.settings, self.plain)
        packed = alike(self.shapes, self.settings, self.plain) if len(tiles) > 1 else tiles
        if self._seconds(packed) + self.layout.query.starts[-1] * self.settings.row < self._seconds(tiles):
            return self._schedule(packed, *self._orders(packed))
        stay = Order(self.layout.query.position.device)
        return self._schedule(tiles, stay, stay)

    def _seconds(self, tiles: list[Tile]) -> float:
        return sum(tile.seconds(self.settings) for tile in tiles)

    def _orders(self, tiles: list[Tile]) -> tuple[Order, Order]:
        queries = Order.of(self.layout.query, [(tile.samples, tile.queries) for tile in tiles])
        if self.layout.itself:
            return queries, queries
        return queries, Order.of(self.layout.key, [(tile.samples, tile.keys) for tile in tiles])

    # --- the steps of the tiles -------------------------------------------------------------------

    def _schedule(self, tiles: list[Tile], q_order: Order, k_order: Order) -> Schedule:
        steps: list[Step] = []
        q_row = k_row = 0
        for tile in tiles:
            k_last = k_row + tile.rows * tile.keys
            if tile.queries:
                whole = Step(
                    samples=tile.samples,
                    rows=tile.rows,
                    first=0,
                    queries=tile.queries,
                    keys=tile.keys,
                    q_row=q_row,
                    ranges=((k_row, k_last),),
                    q_order=q_order,
                    k_order=k_order,
                    allowed=self._apart(tile, q_row, k_row) if tile.joined and tile.keys else None,
                    causal=self.causal and not tile.joined,
                )
                steps.extend(self._steps(whole, tile))
            q_row, k_row = q_row + tile.rows * tile.queries, k_last
        return Schedule(tuple(steps), q_order, k_order)

    def _steps(self, whole: Step, tile: Tile) -> Iterator[Step]:
        if tile.joined or not tile.keys:
            yield whole
        elif len(tile.samples) == 1 and not fits(1, (tile.queries, tile.keys), self.settings, self.plain):
            yield from self._cut(whole)
        elif self.plain:
            yield self._with(whole, self._padding(tile))
        else:
            yield self._with(whole, self._allowed(whole, self._padding(tile)))

    def _apart(self, tile: Tile, q_row: int, k_row: int) -> Tensor:
        """[1, 1, Q, K], the mask of samples that share a row."""
        q, k = slice(q_row, q_row + tile.queries), slice(k_row, k_row + tile.keys)
        same = (self.layout.query.sample[q, None] == self.layout.key.sample[k])[None, None]
        if isinstance(self.mask, Full):
            return same
        query = _fields(self.layout.query, (None, None, q, None))
        key = _fields(self.layout.key, (None, None, None, k), self.present)
        return same & self._pairs_allowed(query, key)

    def _padding(self, tile: Tile) -> Tensor | None:
        """[G, 1, 1, K], which keys are there; None where all are, or where the triangle hides the others."""
        lengths = [self.shapes[sample][1] for sample in tile.samples]
        if min(lengths) == tile.keys or self.causal:
            return None
        device = self.layout.key.position.device
        valid = torch.arange(tile.keys, device=device) < torch.tensor(lengths, device=device)[:, None]
        return valid[:, None, None, :]

    def _allowed(self, step: Step, valid: Tensor | None = None) -> Tensor | None:
        """The mask of a step, None where it allows everything."""
        if isinstance(self.mask, Full):
            return valid
        allowed = self._pairs_allowed(*fields(self.layout, step, self.present))
        if valid is not None:
            allowed = allowed & valid
        return None if bool(allowed.all()) else allowed

    def _pairs_allowed(self, query: Fields, key: Fields) -> Tensor:
        return self.mask.allow(Pairs(query, key, head=query.position[:1, :1, :1, 0]))  # no mask asks for it

    def _with(self, step: Step, allowed: Tensor | None) -> Step:
        return step if allowed is None else replace(step, allowed=allowed)

    # --- cutting one long sample ------------------------------------------------------------------

    def _cut(self, whole: Step) -> Iterator[Step]:
        """One sample, query block by query block, or whole where the mask leaves too little out."""
        stretches = cut(self.layout, self.mask, whole.q_tokens[0], whole.k_tokens[0], self.settings.limit)
        pairs = sum(stretch.pairs for stretch in stretches)
        if pairs > _WORTH * whole.pairs and whole.pairs <= self.settings.limit:
            yield self._with(whole, None if self.plain else self._allowed(whole))
            return
        for stretch in stretches:
            step = self._part(whole, stretch)
            yield step if stretch.certain or not step.keys else self._with(step, self._allowed(step))

    def _part(self, whole: Step, stretch: Stretch) -> Step:
        [(k_row, _)] = whole.ranges
        return replace(
            whole,
            first=stretch.first,
            queries=stretch.queries,
            keys=stretch.keys,
            q_row=whole.q_row + stretch.first,
            ranges=tuple((k_row + low, k_row + high) for low, high in stretch.ranges),
            causal=False,
        )


def fields(layout: Layout, step: Step, present: Tensor | None = None) -> tuple[Fields, Fields]:
    """The fields of a step's tokens, [G, 1, Q, 1] and [G, 1, 1, K]."""
    q, k = step.q_tokens[:, None, :, None], step.k_tokens[:, None, None, :]
    return _fields(layout.query, q), _fields(layout.key, k, present)


def _fields(side: Side, tokens: Any, present: Tensor | None = None) -> Fields:
    """The fields at an index: numbers of tokens, or a stretch of them."""
    return Fields(
        position=side.position[tokens],
        modality=side.modality[tokens],
        names=side.modalities,
        time=None if side.time is None else side.time[tokens],
        entity=None if side.entity is None else side.entity[tokens],
        present=None if present is None else present[tokens],
    )
