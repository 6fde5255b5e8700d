"""Schedules: every pair once, padding where it pays, long samples cut by what the mask leaves out."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.execution.layout import Layout
from mmattn.attention.execution.packing import stretches
from mmattn.attention.execution.schedule import Schedule, Settings, schedule
from mmattn.attention.language.position_masks import Mask
from mmattn.attention.testing.random_programs import draw_mask, draw_tokens
from mmattn.types import Tokens

Words = Callable[..., Tokens]
PACKED = Settings(call=1.0, pair=1e-4, row=0.0)
ALONE = Settings(call=1e-9, pair=1.0, row=1.0)
SMALL = Settings(call=1e-9, pair=1.0, row=1.0, limit=40)


def pairs_seen(found: Schedule, layout: Layout) -> torch.Tensor:
    """[Nq, Nk], how often each pair of tokens of one sample is scored and allowed."""
    seen = torch.zeros(layout.query.starts[-1], layout.key.starts[-1], dtype=torch.int64)
    for step in found.steps:
        shape = (len(step.samples), 1, step.queries, step.keys)
        allowed = torch.ones(shape, dtype=torch.bool) if step.mask is None else step.mask.expand(shape)
        for row, sample in enumerate(step.samples):
            # Padded queries repeat the last token: only those that are there count.
            there = min(step.queries, layout.query.sizes[sample] - step.first)
            q, k = step.q_tokens[row, :there], step.k_tokens[row]
            place, column = allowed[row, 0, :there].nonzero(as_tuple=True)
            seen.index_put_((q[place], k[column]), torch.ones_like(place), accumulate=True)
    return seen


@pytest.mark.parametrize("settings", [PACKED, ALONE, SMALL], ids=["packed", "alone", "small"])
@pytest.mark.parametrize("seed", range(30))
def test_every_allowed_pair_is_scored_once(
    settings: Settings, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmattn.attention.execution.block_sparsity._QUERIES", 8)
    monkeypatch.setattr("mmattn.attention.execution.block_sparsity._KEYS", 4)
    monkeypatch.setattr("mmattn.attention.execution.tiling._LONG", 8)
    rng = random.Random(seed)
    q = draw_tokens(rng, 5, 1)
    kv = q if seed % 2 else draw_tokens(rng, 5, 1)
    layout, mask = Layout.of(q, kv), draw_mask(rng)
    found = schedule(layout, mask, settings)
    assert torch.equal(pairs_seen(found, layout), expected(mask, q, kv).long())
    if settings is SMALL:
        assert all(step.pairs <= max(40, step.keys) for step in found.steps)


def expected(mask: Mask, q: Tokens, kv: Tokens) -> torch.Tensor:
    from mmattn.attention.language.pairs import Fields, Pairs

    pairs = Pairs(
        Fields(q.position[:, None], q.modality[:, None], q.modalities),
        Fields(kv.position[None], kv.modality[None], kv.modalities),
        torch.zeros(1, 1, 1, dtype=torch.int64),
    )
    return mask.allow(pairs) & (q.sample[:, None] == kv.sample)


def test_a_window_reads_only_the_keys_around_each_block(words: Words) -> None:
    tokens = words([1024], 1)
    found = schedule(Layout.of(tokens, tokens), A.window(10), ALONE)
    # Blocks of 128 queries; 10 further reach one more block of 64 keys on either side.
    assert [(step.first, step.queries, step.ranges) for step in found.steps[:2]] == [
        (0, 128, ((0, 192),)),
        (128, 128, ((64, 320),)),
    ]
    assert len(found.steps) == 8


def test_routes_need_no_mask_where_a_block_sees_all_of_its_keys() -> None:
    names = ("a", "b")
    tokens = Tokens.cat(
        [Tokens.from_lengths(torch.zeros(256, 1), torch.tensor([256]), name) for name in names]
    )
    found = schedule(Layout.of(tokens, tokens), A.route({"a": ["a"], "b": ["b"]}), ALONE)
    assert [(step.first, step.queries, step.ranges, step.allowed) for step in found.steps] == [
        (0, 256, ((0, 256),), None),
        (256, 256, ((256, 512),), None),
    ]


def test_short_samples_run_together_and_long_ones_alone(words: Words) -> None:
    tokens = words([3, 200, 2, 3, 2], 1)
    settings = Settings(call=1.0, pair=1 / 30, row=0.0)
    found = schedule(Layout.of(tokens, tokens), A.full, settings)
    # Padding two samples of 2 tokens to 3 wastes 10 pairs, cheaper than a step, which is worth 30.
    assert [(step.samples, step.queries) for step in found.steps] == [((1,), 200), ((0, 3, 2, 4), 3)]
    # Where moving rows is dear, the samples stay where they are.
    stay = schedule(Layout.of(tokens, tokens), A.full, Settings(call=1.0, pair=1 / 30, row=1.0))
    assert [step.samples for step in stay.steps] == [(0,), (1,), (2,), (3,), (4,)]
    assert stay.q_order.index is None


def test_stretches_add_up_their_gradients() -> None:
    values = torch.arange(5.0, dtype=torch.float64)[:, None].requires_grad_()
    parts = stretches(values, [(0, 3), (2, 5), (2, 3)])
    assert [part[:, 0].tolist() for part in parts] == [[0, 1, 2], [2, 3, 4], [2]]
    sum((part * factor).sum() for part, factor in zip(parts, (1, 10, 100), strict=True)).backward()  # type: ignore[union-attr]
    assert values.grad is not None
    assert values.grad[:, 0].tolist() == [1, 1, 111, 10, 10]


def test_packing_goes_there_and_back_with_its_gradients(words: Words) -> None:
    tokens = words([3, 0, 7, 2], 4)
    found = schedule(Layout.of(tokens, tokens), A.full, PACKED)
    order = found.q_order
    assert order.padding is not None
    values = tokens.values.clone().requires_grad_()
    ranges = [(0, len(order.padding))]
    [packed] = order.stretches(values, ranges)
    back = order.unpack([packed])
    assert torch.equal(back, values)
    weight = torch.randn_like(values)
    (back * weight).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, weight)
