"""Which samples of a batch run together, before anybody looks at a mask.

Samples of one length are stacked. Short ones that stand side by side are joined into one sequence, whose
mask keeps them apart: nothing has to be moved or padded for that. And samples from anywhere in the batch
can be brought together and padded to the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Settings", "Tile", "alike", "fits", "neighbours"]

Shape = tuple[int, int]

# Samples with as many pairs as this many tokens have among themselves are better cut by their mask.
_LONG = 128


@dataclass(frozen=True)
class Settings:
    """What a backend asks of its schedule.

    Args:
        call: seconds that one more step costs.
        pair: seconds for each query-key pair.
        row: seconds to move one token's queries, keys, values and results to another place and back.
        query: seconds for each query, however few keys it has.
        limit: most pairs that one step may hold, except for a single query.
        tokens: most queries or keys in a step of several samples; beyond it caches overflow.
        join: may samples share a row, with a mask that keeps them apart?
    """

    call: float
    pair: float
    row: float
    query: float = 0.0
    limit: int = 1 << 62
    tokens: int = 1 << 62
    join: bool = False


@dataclass(frozen=True)
class Tile:
    """Samples that run together.

    Args:
        samples: their numbers.
        queries, keys: of one row: a sample's, padded to the longest, or all samples' if they are joined.
        joined: do the samples share one row?
    """

    samples: tuple[int, ...]
    queries: int
    keys: int
    joined: bool = False

    @property
    def rows(self) -> int:
        """Sequences that run side by side."""
        return 1 if self.joined else len(self.samples)

    def seconds(self, settings: Settings) -> float:
        """Estimated cost."""
        return settings.call + self.rows * self.queries * (self.keys * settings.pair + settings.query)


def fits(count: int, shape: Shape, settings: Settings, plain: bool) -> bool:
    """May `count` samples of this shape be one step? Long samples with a mask are better cut.

    Args:
        plain: is there no mask to cut by?
    """
    pairs = shape[0] * shape[1]
    if not plain and pairs >= _LONG * _LONG:
        return False
    return count * pairs <= settings.limit and (count == 1 or count * max(shape) <= settings.tokens)


def neighbours(shapes: Sequence[Shape], settings: Settings, plain: bool) -> list[Tile]:
    """Samples as they stand, as many in one tile as can be stacked or joined."""
    tiles: list[Tile] = []
    first = 0
    while first < len(shapes):
        last = _stacked(shapes, first, settings, plain)
        tile = Tile(tuple(range(first, last)), *shapes[first])
        if settings.join:
            until, queries, keys = _joined(shapes, first, settings)
            if until > last:
                last, tile = until, Tile(tuple(range(first, until)), queries, keys, joined=True)
        tiles.append(tile)
        first = last
    return tiles


def _stacked(shapes: Sequence[Shape], first: int, settings: Settings, plain: bool) -> int:
    """Where the run of samples of one shape ends that fits into one step."""
    last = first + 1
    while (
        last < len(shapes)
        and shapes[last] == shapes[first]
        and fits(last + 1 - first, shapes[first], settings, plain)
    ):
        last += 1
    return last


def _joined(shapes: Sequence[Shape], first: int, settings: Settings) -> tuple[int, int, int]:
    """Where a joined row ends, and its queries and keys: its pairs are worth less than another step."""
    most = min(settings.call / settings.pair, settings.limit)
    queries, keys = shapes[first]
    last = first + 1
    while last < len(shapes) and (queries + shapes[last][0]) * (keys + shapes[last][1]) <= most:
        queries, keys = queries + shapes[last][0], keys + shapes[last][1]
        last += 1
    return last, queries, keys


def alike(shapes: Sequence[Shape], settings: Settings, plain: bool) -> list[Tile]:
    """Samples of like shape together; a shape joins others where its padding is cheaper than a step."""
    by_shape: dict[Shape, list[int]] = {}
    for sample, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(sample)
    groups: list[tuple[Shape, list[int]]] = []
    # From the longest keys to the shortest: a group's first shape says how long its keys are.
    for shape, samples in sorted(by_shape.items(), key=lambda item: item[0][::-1], reverse=True):
        if groups and shape[1]:
            (queries, keys), members = groups[-1]
            padded = (max(queries, shape[0]), keys)
            grown = Tile((*members, *samples), *padded)
            apart = [Tile(tuple(members), queries, keys), Tile(tuple(samples), *shape)]
            cheaper = grown.seconds(settings) <= sum(tile.seconds(settings) for tile in apart)
            if cheaper and fits(1, padded, settings, plain):
                groups[-1] = (padded, [*members, *samples])
                continue
        groups.append((shape, samples))
    return [tile for shape, samples in groups for tile in _cut(shape, samples, settings, plain)]


def _cut(shape: Shape, samples: list[int], settings: Settings, plain: bool) -> Iterator[Tile]:
    """As few tiles as the limits allow."""
    most = len(samples)
    while most > 1 and not fits(most, shape, settings, plain):
        most = -(-most // 2)
    for first in range(0, len(samples), most):
        yield Tile(tuple(samples[first : first + most]), *shape)
