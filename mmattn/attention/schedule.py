"""A batch cut into steps: groups of samples, or stretches of one sample's queries, against their keys.

The schedule depends on the tokens' layout and the program's mask only. It is made once and kept with
the layout. Short samples of like length run together, padded; long samples run alone and, where the
mask leaves whole blocks out, query block by query block against the keys that the block can see.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from mmattn.attention.blocks import BlockFields, BlockPairs, summarise
from mmattn.attention.layout import Layout, Side
from mmattn.attention.masks import Causal, Full, Mask
from mmattn.attention.order import Order
from mmattn.attention.pairs import Fields, Pairs

__all__ = ["Schedule", "Settings", "Step", "schedule"]

# Blocks of tokens by which masks are skipped: queries that run together, keys that are read together.
_QUERIES, _KEYS = 128, 64
# A sample is cut where that leaves at most this share of its pairs.
_WORTH = 0.75


@dataclass(frozen=True)
class Settings:
    """What a backend asks of its schedule.

    Args:
        call: seconds that one more step costs.
        pair: seconds for each query-key pair.
        row: seconds to move one token's queries, keys, values and results to another place and back.
        limit: most pairs that one step may hold.
    """

    call: float
    pair: float
    row: float
    limit: int = 1 << 62


@dataclass(frozen=True, eq=False)
class Step:
    """Some queries of G samples against some of the samples' keys.

    Args:
        samples: the G samples.
        first: the first query's number within its sample (0 unless a sample is cut).
        queries: Q, with padding.
        ranges: stretches of the packed keys, G * K rows in all.
        keys: K, with padding.
        q_tokens, k_tokens: [G, Q] and [G, K], numbers of the tokens; anything in padding.
        allowed: boolean, broadcastable to [G, 1, Q, K]; None where everything is.
        causal: is the lower triangle meant instead?
    """

    samples: tuple[int, ...]
    first: int
    queries: int
    ranges: tuple[tuple[int, int], ...]
    keys: int
    q_tokens: Tensor
    k_tokens: Tensor
    allowed: Tensor | None = None
    causal: bool = False

    @property
    def pairs(self) -> int:
        """Pairs that are scored, with padding."""
        return len(self.samples) * self.queries * self.keys

    @cached_property
    def mask(self) -> Tensor | None:
        """`allowed`, with the lower triangle written out."""
        if not self.causal:
            return self.allowed
        return torch.ones(self.queries, self.keys, dtype=torch.bool, device=self.q_tokens.device).tril()


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
        moved = sum(len(order.inverse) for order in (self.q_order, self.k_order) if order.inverse is not None)
        return len(self.steps) * settings.call + self.pairs * settings.pair + moved * settings.row / 2


def schedule(layout: Layout, mask: Mask, settings: Settings, present: Tensor | None = None) -> Schedule:
    """The schedule for a mask, made once a layout (unless `present` [Nk], which changes, matters)."""
    if present is not None and any(term.word == "present" for term in mask.walk()):
        return _Builder(layout, mask, settings, present).build()
    key = ("schedule", mask, settings)
    if key not in layout.cache:
        layout.cache[key] = _Builder(layout, mask, settings, None).build()
    return layout.cache[key]


@dataclass(frozen=True)
class _Tile:
    """Samples that run together, padded to the longest."""

    samples: tuple[int, ...]
    queries: int
    keys: int


class _Builder:
    def __init__(self, layout: Layout, mask: Mask, settings: Settings, present: Tensor | None) -> None:
        self.layout, self.mask, self.settings, self.present = layout, mask, settings, present
        self.causal = isinstance(mask, Causal) and layout.increasing
        self.plain = isinstance(mask, Full) or self.causal
        self.shapes = list(zip(layout.query.sizes, layout.key.sizes, strict=True))

    def build(self) -> Schedule:
        tiles = self._neighbours()
        packed = self._alike()
        if self._seconds(packed) + len(self.layout.query.sample) * self.settings.row < self._seconds(tiles):
            return self._schedule(packed, *self._orders(packed))
        return self._schedule(tiles, Order(), Order())

    # --- which samples run together ---------------------------------------------------------------

    def _together(self, count: int, shape: tuple[int, int]) -> bool:
        """May `count` samples of this shape be one step? Long samples with a mask are better cut."""
        pairs = shape[0] * shape[1]
        return count * pairs <= self.settings.limit and (self.plain or pairs < _QUERIES * _QUERIES)

    def _neighbours(self) -> list[_Tile]:
        """Samples as they stand; those of one shape that follow each other run together."""
        tiles: list[_Tile] = []
        first = 0
        for sample, shape in enumerate(self.shapes):
            if shape != self.shapes[first] or not self._together(sample + 1 - first, shape):
                tiles.append(_Tile(tuple(range(first, sample)), *self.shapes[first]))
                first = sample
        if self.shapes:
            tiles.append(_Tile(tuple(range(first, len(self.shapes))), *self.shapes[first]))
        return [tile for tile in tiles if tile.samples]

    def _alike(self) -> list[_Tile]:
        """Samples of like shape together; a shape joins a tile where its padding is cheaper than a step."""
        by_shape: dict[tuple[int, int], list[int]] = {}
        for sample, shape in enumerate(self.shapes):
            by_shape.setdefault(shape, []).append(sample)
        worth = self.settings.call / self.settings.pair
        tiles: list[_Tile] = []
        # From the longest keys to the shortest: a tile's first shape says how long its keys are.
        for (queries, keys), samples in sorted(
            by_shape.items(), key=lambda item: item[0][::-1], reverse=True
        ):
            if tiles and keys:
                last = tiles[-1]
                shape = (max(last.queries, queries), last.keys)
                count = len(last.samples) + len(samples)
                waste = count * shape[0] * shape[1] - len(samples) * queries * keys
                waste -= len(last.samples) * last.queries * last.keys
                if waste <= worth and self._together(count, shape):
                    tiles[-1] = _Tile((*last.samples, *samples), *shape)
                    continue
            most = next(n for n in (len(samples), 1) if n == 1 or self._together(n, (queries, keys)))
            tiles.extend(
                _Tile(tuple(samples[i : i + most]), queries, keys) for i in range(0, len(samples), most)
            )
        return tiles

    def _seconds(self, tiles: list[_Tile]) -> float:
        pairs = sum(len(tile.samples) * tile.queries * tile.keys for tile in tiles)
        return len(tiles) * self.settings.call + pairs * self.settings.pair

    def _orders(self, tiles: list[_Tile]) -> tuple[Order, Order]:
        queries = _order(self.layout.query, [(tile.samples, tile.queries) for tile in tiles])
        if self.layout.itself:
            return queries, queries
        return queries, _order(self.layout.key, [(tile.samples, tile.keys) for tile in tiles])

    # --- the steps of the tiles -------------------------------------------------------------------

    def _schedule(self, tiles: list[_Tile], q_order: Order, k_order: Order) -> Schedule:
        steps: list[Step] = []
        q_row = k_row = 0
        for tile in tiles:
            count = len(tile.samples)
            q_tokens = _tokens(q_order, q_row, count, tile.queries, self.layout)
            k_tokens = _tokens(k_order, k_row, count, tile.keys, self.layout)
            if tile.queries:
                steps.extend(self._steps(tile, q_tokens, k_tokens, k_row))
            q_row += count * tile.queries
            k_row += count * tile.keys
        return Schedule(tuple(steps), q_order, k_order)

    def _steps(self, tile: _Tile, q_tokens: Tensor, k_tokens: Tensor, k_row: int) -> Iterator[Step]:
        rows = ((k_row, k_row + len(tile.samples) * tile.keys),)
        whole = Step(tile.samples, 0, tile.queries, rows, tile.keys, q_tokens, k_tokens, causal=self.causal)
        too_large = whole.pairs > self.settings.limit
        if not tile.keys:
            yield whole
        elif len(tile.samples) == 1 and (too_large or not self._together(1, (tile.queries, tile.keys))):
            yield from self._cut(whole, k_row)
        elif self.plain:
            yield _with(whole, self._padding(tile))
        else:
            yield _with(whole, self._allowed(whole, self._padding(tile)))

    def _padding(self, tile: _Tile) -> Tensor | None:
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
        allowed = self.mask.allow(
            Pairs(*fields(self.layout, step, self.present), head=step.q_tokens[:1, :1, None])
        )
        if valid is not None:
            allowed = allowed & valid
        return None if bool(allowed.all()) else allowed

    # --- cutting one long sample ------------------------------------------------------------------

    def _cut(self, whole: Step, k_row: int) -> Iterator[Step]:
        """One sample, query block by query block, or whole where the mask leaves too little out."""
        blocks = list(self._query_blocks(whole))
        pairs = sum(count * sum(last - first for first, last in ranges) for _, count, ranges, _ in blocks)
        if pairs > _WORTH * whole.pairs and whole.pairs <= self.settings.limit:
            yield _with(whole, None if self.plain else self._allowed(whole))
            return
        for first, count, ranges, certain in blocks:
            step = Step(
                samples=whole.samples,
                first=first,
                queries=count,
                ranges=tuple((k_row + low, k_row + high) for low, high in ranges),
                keys=sum(high - low for low, high in ranges),
                q_tokens=whole.q_tokens[:, first : first + count],
                k_tokens=_columns(whole.k_tokens, ranges),
            )
            yield step if certain or not step.keys else _with(step, self._allowed(step))

    def _query_blocks(self, whole: Step) -> Iterator[tuple[int, int, tuple[tuple[int, int], ...], bool]]:
        """(first query, queries, stretches of keys, is all of it allowed?), equal neighbours joined."""
        most = max(1, self.settings.limit // whole.keys)
        size = min(_QUERIES, most)
        bounds = self.mask.bounds(
            BlockPairs(
                _blocks(self.layout.query, whole.q_tokens[0], size, query=True),
                _blocks(self.layout.key, whole.k_tokens[0], _KEYS, query=False),
            )
        )
        shape = (-(-whole.queries // size), -(-whole.keys // _KEYS))
        may, must = (bound.expand(shape).tolist() for bound in bounds)
        current: tuple[int, int, tuple[tuple[int, int], ...], bool] | None = None
        for block, (seen, certain_of) in enumerate(zip(may, must, strict=True)):
            ranges = _ranges(seen, whole.keys)
            certain = all(sure for sure, visible in zip(certain_of, seen, strict=True) if visible)
            count = min(size, whole.queries - block * size)
            if current and certain and current[3] and current[2] == ranges and current[1] + count <= most:
                current = (current[0], current[1] + count, ranges, True)
                continue
            if current:
                yield current
            current = (block * size, count, ranges, certain)
        if current:
            yield current


def fields(layout: Layout, step: Step, present: Tensor | None = None) -> tuple[Fields, Fields]:
    """The fields of a step's tokens, [G, 1, Q, 1] and [G, 1, 1, K]."""
    q, k = step.q_tokens[:, None, :, None], step.k_tokens[:, None, None, :]
    return _gather(layout.query, q), _gather(layout.key, k, present)


def _gather(side: Side, tokens: Tensor, present: Tensor | None = None) -> Fields:
    return Fields(
        position=side.position[tokens],
        modality=side.modality[tokens],
        names=side.modalities,
        time=None if side.time is None else side.time[tokens],
        entity=None if side.entity is None else side.entity[tokens],
        present=None if present is None else present[tokens],
    )


def _with(step: Step, allowed: Tensor | None) -> Step:
    return replace(step, allowed=allowed)


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


def _columns(tokens: Tensor, ranges: tuple[tuple[int, int], ...]) -> Tensor:
    if len(ranges) == 1:
        return tokens[:, ranges[0][0] : ranges[0][1]]
    return torch.cat([tokens[:, first:last] for first, last in ranges] or [tokens[:, :0]], dim=1)


def _tokens(order: Order, row: int, count: int, length: int, layout: Layout) -> Tensor:
    """[G, L] numbers of the tokens in packed rows."""
    rows = slice(row, row + count * length)
    if order.index is not None:
        return order.index[rows].view(count, length)
    return torch.arange(rows.start, rows.stop, device=layout.query.position.device).view(count, length)


def _order(side: Side, tiles: list[tuple[tuple[int, ...], int]]) -> Order:
    """The order that puts the samples of each tile together, each padded to the tile's length."""
    device = side.position.device
    samples = torch.tensor([sample for group, _ in tiles for sample in group], device=device)
    lengths = torch.tensor([length for group, length in tiles for _ in group], device=device)
    total = int(lengths.sum())
    ends = lengths.cumsum(0)
    row = torch.arange(len(samples), device=device).repeat_interleave(lengths, output_size=total)
    within = torch.arange(total, device=device) - (ends - lengths)[row]
    there = within < side.offsets.diff()[samples][row]
    # Padding repeats the sample's last token: whatever is wrong with a sample stays in that sample.
    last = (side.offsets[1:][samples][row] - 1).clamp(min=0)
    index = torch.minimum(side.offsets[:-1][samples][row] + within, last)
    inverse = torch.empty(side.starts[-1], dtype=torch.int64, device=device)
    inverse[index[there]] = there.nonzero()[:, 0]
    return Order(index, inverse, None if bool(there.all()) else ~there)
