"""A batch cut into steps: groups of samples, or stretches of one sample's queries, against their keys.

The schedule depends on the tokens' layout and the program's mask only. It is made once and kept with
the layout. Which samples run together is decided in tiles.py; long samples run alone and, where the mask
leaves whole blocks out, query block by query block against the keys that the block can see (cut.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.execution.block_sparsity import QueryBlock, split_queries
from mmattn.attention.execution.packing import PackedOrder
from mmattn.attention.execution.tiling import (
    CostModel,
    SampleGroup,
    fits_in_one_step,
    group_by_shape,
    group_neighbors,
)
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.attention.language.position_masks import Causal, Full, Mask

if TYPE_CHECKING:
    from mmattn.attention.execution.layout import Layout, TokenLayout

__all__ = ["CostModel", "Schedule", "Step", "build_schedule", "step_fields"]

# A sample is cut where that leaves at most this share of its pairs.
_MAX_PAIR_FRACTION = 0.75


@dataclass(frozen=True, eq=False)
class Step:
    """Some queries against some keys, in G rows side by side: a sample each, or joined samples in one.

    Args:
        samples: the samples.
        num_rows: G.
        first_query: the first query's number within its sample (0 unless a sample is cut).
        num_queries: Q, with padding.
        num_keys: K, with padding.
        q_start: where the step's G * Q queries begin in the packed order.
        key_ranges: stretches of the packed keys, G * K rows in all.
        q_order, k_order: how tokens are packed.
        allowed: boolean, broadcastable to [G, 1, Q, K]; None where everything is.
        causal: is the lower triangle meant instead?
    """

    samples: tuple[int, ...]
    num_rows: int
    first_query: int
    num_queries: int
    num_keys: int
    q_start: int
    key_ranges: tuple[tuple[int, int], ...]
    q_order: PackedOrder
    k_order: PackedOrder
    allowed: Tensor | None = None
    causal: bool = False

    @property
    def num_pairs(self) -> int:
        """Pairs that are scored, with padding."""
        return self.num_rows * self.num_queries * self.num_keys

    @cached_property
    def q_tokens(self) -> Tensor:
        """[G, Q], numbers of the query tokens; anything in padding."""
        last = self.q_start + self.num_rows * self.num_queries
        return self.q_order.token_indices([(self.q_start, last)]).view(self.num_rows, self.num_queries)

    @cached_property
    def k_tokens(self) -> Tensor:
        """[G, K], numbers of the key tokens; anything in padding."""
        return self.k_order.token_indices(self.key_ranges).view(self.num_rows, self.num_keys)

    @cached_property
    def mask(self) -> Tensor | None:
        """`allowed`, with the lower triangle written out."""
        if not self.causal:
            return self.allowed
        return torch.ones(
            self.num_queries, self.num_keys, dtype=torch.bool, device=self.q_order.device
        ).tril()


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps, and the order of queries and keys in which they read them."""

    steps: tuple[Step, ...]
    q_order: PackedOrder
    k_order: PackedOrder

    @property
    def num_pairs(self) -> int:
        """Pairs that are scored in all, with padding."""
        return sum(step.num_pairs for step in self.steps)

    def seconds(self, cost_model: CostModel) -> float:
        """Estimated cost.

        Args:
            cost_model: seconds of a step, a pair and a packed token.
        """
        queries = sum(step.num_rows * step.num_queries for step in self.steps)
        moved = sum(len(order.inverse) for order in (self.q_order, self.k_order) if order.inverse is not None)
        return (
            len(self.steps) * cost_model.seconds_per_step
            + queries * cost_model.seconds_per_query
            + self.num_pairs * cost_model.seconds_per_pair
            + moved * cost_model.seconds_per_moved_token / 2
        )


def build_schedule(
    layout: Layout, mask: Mask, cost_model: CostModel, present: Tensor | None = None
) -> Schedule:
    """The schedule for a mask, made once a layout (unless `present` [Nk], which changes, matters).

    Args:
        layout: layout of queries and keys.
        mask: mask of the program.
        cost_model: seconds of a step, a pair and a packed token.
        present: [Nk] whether each key may be attended to in this call; None for all.
    """
    if present is not None and any(term.term_name == "present" for term in mask.walk()):
        return _Builder(layout, mask, cost_model, present).build()
    cache = layout.cache_by_length if isinstance(mask, Full) else layout.cache
    key = ("schedule", mask, cost_model)
    if key not in cache:
        cache[key] = _Builder(layout, mask, cost_model, None).build()
    result: Schedule = cache[key]
    return result


class _Builder:
    def __init__(self, layout: Layout, mask: Mask, cost_model: CostModel, present: Tensor | None) -> None:
        self.layout, self.mask, self.cost_model, self.present = layout, mask, cost_model, present
        self.causal = isinstance(mask, Causal) and layout.has_increasing_positions
        self.needs_no_mask = isinstance(mask, Full) or self.causal
        self.shapes = list(zip(layout.query.length_list, layout.key.length_list, strict=True))

    def build(self) -> Schedule:
        tiles = group_neighbors(self.shapes, self.cost_model, self.needs_no_mask)
        packed = group_by_shape(self.shapes, self.cost_model, self.needs_no_mask) if len(tiles) > 1 else tiles
        if self._seconds(packed) + self.layout.query.starts[
            -1
        ] * self.cost_model.seconds_per_moved_token < self._seconds(tiles):
            return self._schedule(packed, *self._packed_orders(packed))
        stay = PackedOrder(self.layout.query.position.device)
        return self._schedule(tiles, stay, stay)

    def _seconds(self, groups: list[SampleGroup]) -> float:
        return sum(tile.seconds(self.cost_model) for tile in groups)

    def _packed_orders(self, groups: list[SampleGroup]) -> tuple[PackedOrder, PackedOrder]:
        queries = PackedOrder.from_groups(
            self.layout.query, [(tile.samples, tile.num_queries) for tile in groups]
        )
        if self.layout.is_self_attention:
            return queries, queries
        return queries, PackedOrder.from_groups(
            self.layout.key, [(tile.samples, tile.num_keys) for tile in groups]
        )

    # --- the steps of the tiles -------------------------------------------------------------------

    def _schedule(self, groups: list[SampleGroup], q_order: PackedOrder, k_order: PackedOrder) -> Schedule:
        steps: list[Step] = []
        q_row = k_row = 0
        for tile in groups:
            k_last = k_row + tile.num_rows * tile.num_keys
            if tile.num_queries:
                whole = Step(
                    samples=tile.samples,
                    num_rows=tile.num_rows,
                    first_query=0,
                    num_queries=tile.num_queries,
                    num_keys=tile.num_keys,
                    q_start=q_row,
                    key_ranges=((k_row, k_last),),
                    q_order=q_order,
                    k_order=k_order,
                    allowed=self._same_sample_mask(tile, q_row, k_row)
                    if tile.concatenated and tile.num_keys
                    else None,
                    causal=self.causal and not tile.concatenated,
                )
                steps.extend(self._steps(whole, tile))
            q_row, k_row = q_row + tile.num_rows * tile.num_queries, k_last
        return Schedule(tuple(steps), q_order, k_order)

    def _steps(self, full_step: Step, group: SampleGroup) -> Iterator[Step]:
        if group.concatenated or not group.num_keys:
            yield full_step
        elif len(group.samples) == 1 and not fits_in_one_step(
            1, (group.num_queries, group.num_keys), self.cost_model, self.needs_no_mask
        ):
            yield from self._split_sample(full_step)
        elif self.needs_no_mask:
            yield self._with_mask(full_step, self._key_padding_mask(group))
        else:
            yield self._with_mask(full_step, self._step_mask(full_step, self._key_padding_mask(group)))

    def _same_sample_mask(self, group: SampleGroup, q_start: int, k_start: int) -> Tensor:
        """[1, 1, Q, K], the mask of samples that share a row."""
        q, k = slice(q_start, q_start + group.num_queries), slice(k_start, k_start + group.num_keys)
        same = (self.layout.query.sample[q, None] == self.layout.key.sample[k])[None, None]
        if isinstance(self.mask, Full):
            return same
        query = _select_fields(self.layout.query, (None, None, q, None))
        key = _select_fields(self.layout.key, (None, None, None, k), self.present)
        return same & self._evaluate_mask(query, key)

    def _key_padding_mask(self, group: SampleGroup) -> Tensor | None:
        """[G, 1, 1, K], which keys are there; None where all are, or where the triangle hides the others."""
        lengths = [self.shapes[sample][1] for sample in group.samples]
        if min(lengths) == group.num_keys or self.causal:
            return None
        device = self.layout.key.position.device
        valid = torch.arange(group.num_keys, device=device) < torch.tensor(lengths, device=device)[:, None]
        return valid[:, None, None, :]

    def _step_mask(self, step: Step, valid: Tensor | None = None) -> Tensor | None:
        """The mask of a step, None where it allows everything."""
        if isinstance(self.mask, Full):
            return valid
        allowed = self._evaluate_mask(*step_fields(self.layout, step, self.present))
        if valid is not None:
            allowed = allowed & valid
        return None if bool(allowed.all()) else allowed

    def _evaluate_mask(self, query: TokenFields, key: TokenFields) -> Tensor:
        return self.mask.allow(Pairs(query, key, head=query.position[:1, :1, :1, 0]))  # no mask asks for it

    def _with_mask(self, step: Step, allowed: Tensor | None) -> Step:
        return step if allowed is None else replace(step, allowed=allowed)

    # --- cutting one long sample ------------------------------------------------------------------

    def _split_sample(self, full_step: Step) -> Iterator[Step]:
        """One sample, query block by query block, or whole where the mask leaves too little out."""
        stretches = split_queries(
            self.layout, self.mask, full_step.q_tokens[0], full_step.k_tokens[0], self.cost_model.max_pairs
        )
        pairs = sum(stretch.num_pairs for stretch in stretches)
        if (
            pairs > _MAX_PAIR_FRACTION * full_step.num_pairs
            and full_step.num_pairs <= self.cost_model.max_pairs
        ):
            yield self._with_mask(full_step, None if self.needs_no_mask else self._step_mask(full_step))
            return
        for stretch in stretches:
            step = self._query_block_step(full_step, stretch)
            yield (
                step
                if stretch.fully_allowed or not step.num_keys
                else self._with_mask(step, self._step_mask(step))
            )

    def _query_block_step(self, full_step: Step, query_block: QueryBlock) -> Step:
        [(k_row, _)] = full_step.key_ranges
        return replace(
            full_step,
            first_query=query_block.first_query,
            num_queries=query_block.num_queries,
            num_keys=query_block.num_keys,
            q_start=full_step.q_start + query_block.first_query,
            key_ranges=tuple((k_row + low, k_row + high) for low, high in query_block.key_ranges),
            causal=False,
        )


def step_fields(layout: Layout, step: Step, present: Tensor | None = None) -> tuple[TokenFields, TokenFields]:
    """The fields of a step's tokens, [G, 1, Q, 1] and [G, 1, 1, K].

    Args:
        layout: layout of queries and keys.
        step: group of samples that run together.
        present: [Nk] whether each key may be attended to in this call; None for all.
    """
    q, k = step.q_tokens[:, None, :, None], step.k_tokens[:, None, None, :]
    return _select_fields(layout.query, q), _select_fields(layout.key, k, present)


def _select_fields(side: TokenLayout, tokens: Any, present: Tensor | None = None) -> TokenFields:
    """The fields at an index: numbers of tokens, or a stretch of them."""
    return TokenFields(
        position=side.position[tokens],
        modality=side.modality[tokens],
        modalities=side.modalities,
        time=None if side.time is None else side.time[tokens],
        entity=None if side.entity is None else side.entity[tokens],
        present=None if present is None else present[tokens],
    )
