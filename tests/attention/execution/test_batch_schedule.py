"""Schedules: every pair once, padding where it pays, long samples cut by what the mask leaves out."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.execution.layout import Layout
from mmattn.attention.execution.packing import slice_ranges
from mmattn.attention.execution.schedule import CostModel, Schedule, build_schedule
from mmattn.attention.language.position_masks import Mask
from mmattn.attention.testing.random_programs import random_mask, random_tokens
from mmattn.types import Tokens

Words = Callable[..., Tokens]
PACKED = CostModel(seconds_per_step=1.0, seconds_per_pair=1e-4, seconds_per_moved_token=0.0)
ALONE = CostModel(seconds_per_step=1e-9, seconds_per_pair=1.0, seconds_per_moved_token=1.0)
SMALL = CostModel(seconds_per_step=1e-9, seconds_per_pair=1.0, seconds_per_moved_token=1.0, max_pairs=40)


def pairs_seen(found: Schedule, layout: Layout) -> torch.Tensor:
    """[Nq, Nk], how often each pair of tokens of one sample is scored and allowed."""
    seen = torch.zeros(layout.query.starts[-1], layout.key.starts[-1], dtype=torch.int64)
    for step in found.steps:
        shape = (len(step.samples), 1, step.num_queries, step.num_keys)
        allowed = torch.ones(shape, dtype=torch.bool) if step.mask is None else step.mask.expand(shape)
        for row, sample in enumerate(step.samples):
            # Padded queries repeat the last token: only those that are there count.
            present = min(step.num_queries, layout.query.length_list[sample] - step.first_query)
            q, k = step.q_tokens[row, :present], step.k_tokens[row]
            index, column = allowed[row, 0, :present].nonzero(as_tuple=True)
            seen.index_put_((q[index], k[column]), torch.ones_like(index), accumulate=True)
    return seen


@pytest.mark.parametrize("settings", [PACKED, ALONE, SMALL], ids=["packed", "alone", "small"])
@pytest.mark.parametrize("seed", range(30))
def test_every_allowed_pair_is_scored_once(
    settings: CostModel, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmattn.attention.execution.block_sparsity._QUERY_BLOCK_SIZE", 8)
    monkeypatch.setattr("mmattn.attention.execution.block_sparsity._KEY_BLOCK_SIZE", 4)
    monkeypatch.setattr("mmattn.attention.execution.tiling._LONG_SAMPLE_TOKENS", 8)
    rng = random.Random(seed)
    q = random_tokens(rng, 5, 1)
    kv = q if seed % 2 else random_tokens(rng, 5, 1)
    layout, mask = Layout.from_tokens(q, kv), random_mask(rng)
    actual = build_schedule(layout, mask, settings)
    assert torch.equal(pairs_seen(actual, layout), expected(mask, q, kv).long())
    if settings is SMALL:
        assert all(step.num_pairs <= max(40, step.num_keys) for step in actual.steps)


def expected(mask: Mask, q: Tokens, kv: Tokens) -> torch.Tensor:
    from mmattn.attention.language.pairs import Pairs, TokenFields

    pairs = Pairs(
        TokenFields(q.position[:, None], q.modality[:, None], q.modalities),
        TokenFields(kv.position[None], kv.modality[None], kv.modalities),
        torch.zeros(1, 1, 1, dtype=torch.int64),
    )
    return mask.allow(pairs) & (q.sample[:, None] == kv.sample)


def test_a_window_reads_only_the_keys_around_each_block(words: Words) -> None:
    tokens = words([1024], 1)
    actual = build_schedule(Layout.from_tokens(tokens, tokens), A.window(10), ALONE)
    # Blocks of 128 queries; 10 further reach one more block of 64 keys on either side.
    assert [(step.first_query, step.num_queries, step.key_ranges) for step in actual.steps[:2]] == [
        (0, 128, ((0, 192),)),
        (128, 128, ((64, 320),)),
    ]
    assert len(actual.steps) == 8


def test_routes_need_no_mask_where_a_block_sees_all_of_its_keys() -> None:
    names = ("a", "b")
    tokens = Tokens.cat(
        [Tokens.from_lengths(torch.zeros(256, 1), torch.tensor([256]), name) for name in names]
    )
    actual = build_schedule(Layout.from_tokens(tokens, tokens), A.route({"a": ["a"], "b": ["b"]}), ALONE)
    assert [(step.first_query, step.num_queries, step.key_ranges, step.allowed) for step in actual.steps] == [
        (0, 256, ((0, 256),), None),
        (256, 256, ((256, 512),), None),
    ]


def test_short_samples_run_together_and_long_ones_alone(words: Words) -> None:
    tokens = words([3, 200, 2, 3, 2], 1)
    settings = CostModel(seconds_per_step=1.0, seconds_per_pair=1 / 30, seconds_per_moved_token=0.0)
    actual = build_schedule(Layout.from_tokens(tokens, tokens), A.full, settings)
    # Padding two samples of 2 tokens to 3 wastes 10 pairs, cheaper than a step, which is worth 30.
    assert [(step.samples, step.num_queries) for step in actual.steps] == [((1,), 200), ((0, 3, 2, 4), 3)]
    # Where moving rows is dear, the samples stay where they are.
    stay = build_schedule(
        Layout.from_tokens(tokens, tokens),
        A.full,
        CostModel(seconds_per_step=1.0, seconds_per_pair=1 / 30, seconds_per_moved_token=1.0),
    )
    assert [step.samples for step in stay.steps] == [(0,), (1,), (2,), (3,), (4,)]
    assert stay.q_order.index is None


def test_stretches_add_up_their_gradients() -> None:
    values = torch.arange(5.0, dtype=torch.float64)[:, None].requires_grad_()
    parts = slice_ranges(values, [(0, 3), (2, 5), (2, 3)])
    assert [part[:, 0].tolist() for part in parts] == [[0, 1, 2], [2, 3, 4], [2]]
    sum((part * factor).sum() for part, factor in zip(parts, (1, 10, 100), strict=True)).backward()  # type: ignore[union-attr]
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [1, 1, 111, 10, 10]


def test_packing_goes_there_and_back_with_its_gradients(words: Words) -> None:
    tokens = words([3, 0, 7, 2], 4)
    actual = build_schedule(Layout.from_tokens(tokens, tokens), A.full, PACKED)
    order = actual.q_order
    assert order.padding is not None
    values = tokens.values.clone().requires_grad_()
    ranges = [(0, len(order.padding))]
    [packed] = order.slices(values, ranges)
    back = order.unpack([packed])
    assert torch.equal(back, values)
    weight = torch.randn_like(values)
    (back * weight).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, weight)
