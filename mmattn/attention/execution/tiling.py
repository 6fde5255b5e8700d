"""Which samples of a batch run together, before anybody looks at a mask.

Samples of one length are stacked. Short ones that stand side by side are joined into one sequence, whose
mask keeps them apart: nothing has to be moved or padded for that. And samples from anywhere in the batch
can be brought together and padded to the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["CostModel", "SampleGroup", "fits_in_one_step", "group_by_shape", "group_neighbors"]

Shape = tuple[int, int]

# Samples with as many pairs as this many tokens have among themselves are better cut by their mask.
_LONG_SAMPLE_TOKENS = 128


@dataclass(frozen=True)
class CostModel:
    """What a backend asks of its schedule.

    Args:
        seconds_per_step: seconds that one more step costs.
        seconds_per_pair: seconds for each query-key pair.
        seconds_per_moved_token: seconds to move one token's queries, keys, values and results to another
            place and back.
        seconds_per_query: seconds for each query, however few keys it has.
        max_pairs: most pairs that one step may hold, except for a single query.
        max_tokens: most queries or keys in a step of several samples; beyond it caches overflow.
        concatenate: may samples share a row, with a mask that keeps them apart?
    """

    seconds_per_step: float
    seconds_per_pair: float
    seconds_per_moved_token: float
    seconds_per_query: float = 0.0
    max_pairs: int = 1 << 62
    max_tokens: int = 1 << 62
    concatenate: bool = False


@dataclass(frozen=True)
class SampleGroup:
    """Samples that run together.

    Args:
        samples: their numbers.
        num_queries, num_keys: of one row: a sample's, padded to the longest, or all samples' if they are
            joined.
        concatenated: do the samples share one row?
    """

    samples: tuple[int, ...]
    num_queries: int
    num_keys: int
    concatenated: bool = False

    @property
    def num_rows(self) -> int:
        """Sequences that run side by side."""
        return 1 if self.concatenated else len(self.samples)

    def seconds(self, cost_model: CostModel) -> float:
        """Estimated cost.

        Args:
            cost_model: seconds of a step, a pair and a packed token.
        """
        return cost_model.seconds_per_step + self.num_rows * self.num_queries * (
            self.num_keys * cost_model.seconds_per_pair + cost_model.seconds_per_query
        )


def fits_in_one_step(count: int, shape: Shape, cost_model: CostModel, needs_no_mask: bool) -> bool:
    """May `count` samples of this shape be one step? Long samples with a mask are better cut.

    Args:
        count: number of samples.
        shape: queries and keys of a sample.
        cost_model: seconds of a step, a pair and a packed token.
        needs_no_mask: is there no mask to cut by?
    """
    pairs = shape[0] * shape[1]
    if not needs_no_mask and pairs >= _LONG_SAMPLE_TOKENS * _LONG_SAMPLE_TOKENS:
        return False
    return count * pairs <= cost_model.max_pairs and (
        count == 1 or count * max(shape) <= cost_model.max_tokens
    )


def group_neighbors(shapes: Sequence[Shape], cost_model: CostModel, needs_no_mask: bool) -> list[SampleGroup]:
    """Samples as they stand, as many in one tile as can be stacked or joined.

    Args:
        shapes: queries and keys of each sample.
        cost_model: seconds of a step, a pair and a packed token.
        needs_no_mask: whether every query attends to every key.
    """
    tiles: list[SampleGroup] = []
    first = 0
    while first < len(shapes):
        last = _end_of_stack(shapes, first, cost_model, needs_no_mask)
        tile = SampleGroup(tuple(range(first, last)), *shapes[first])
        if cost_model.concatenate:
            until, queries, keys = _end_of_concatenation(shapes, first, cost_model)
            if until > last:
                last, tile = until, SampleGroup(tuple(range(first, until)), queries, keys, concatenated=True)
        tiles.append(tile)
        first = last
    return tiles


def _end_of_stack(shapes: Sequence[Shape], first: int, cost_model: CostModel, needs_no_mask: bool) -> int:
    """Where the run of samples of one shape ends that fits into one step."""
    last = first + 1
    while (
        last < len(shapes)
        and shapes[last] == shapes[first]
        and fits_in_one_step(last + 1 - first, shapes[first], cost_model, needs_no_mask)
    ):
        last += 1
    return last


def _end_of_concatenation(shapes: Sequence[Shape], first: int, cost_model: CostModel) -> tuple[int, int, int]:
    """Where a joined row ends, and its queries and keys: its pairs are worth less than another step."""
    most = min(cost_model.seconds_per_step / cost_model.seconds_per_pair, cost_model.max_pairs)
    queries, keys = shapes[first]
    last = first + 1
    while last < len(shapes) and (queries + shapes[last][0]) * (keys + shapes[last][1]) <= most:
        queries, keys = queries + shapes[last][0], keys + shapes[last][1]
        last += 1
    return last, queries, keys


def group_by_shape(shapes: Sequence[Shape], cost_model: CostModel, needs_no_mask: bool) -> list[SampleGroup]:
    """Samples of like shape together; a shape joins others where its padding is cheaper than a step.

    Args:
        shapes: queries and keys of each sample.
        cost_model: seconds of a step, a pair and a packed token.
        needs_no_mask: whether every query attends to every key.
    """
    by_shape: dict[Shape, list[int]] = {}
    for sample, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(sample)
    groups: list[tuple[Shape, list[int]]] = []
    # From the longest keys to the shortest: a group's first shape says how long its keys are.
    for shape, samples in sorted(by_shape.items(), key=lambda item: item[0][::-1], reverse=True):
        if groups and shape[1]:
            (queries, keys), members = groups[-1]
            padded = (max(queries, shape[0]), keys)
            grown = SampleGroup((*members, *samples), *padded)
            apart = [SampleGroup(tuple(members), queries, keys), SampleGroup(tuple(samples), *shape)]
            cheaper = grown.seconds(cost_model) <= sum(tile.seconds(cost_model) for tile in apart)
            if cheaper and fits_in_one_step(1, padded, cost_model, needs_no_mask):
                groups[-1] = (padded, [*members, *samples])
                continue
        groups.append((shape, samples))
    return [
        tile for shape, samples in groups for tile in _split_group(shape, samples, cost_model, needs_no_mask)
    ]


def _split_group(
    shape: Shape, samples: list[int], cost_model: CostModel, needs_no_mask: bool
) -> Iterator[SampleGroup]:
    """As few tiles as the limits allow."""
    most = len(samples)
    while most > 1 and not fits_in_one_step(most, shape, cost_model, needs_no_mask):
        most = -(-most // 2)
    for first in range(0, len(samples), most):
        yield SampleGroup(tuple(samples[first : first + most]), *shape)
