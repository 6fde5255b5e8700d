"""Histories become what comes next: numbers by hand, order and time that matter, odd histories."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mmattn import InputError
from mmattn.data.histories import Histories
from mmattn.heads.recommendation.next_item_loss import full_softmax, sample_negatives, sampled_softmax
from mmattn.heads.recommendation.popularity_over_time import SECONDS_PER_DAY, PopularityOverTime
from mmattn.heads.recommendation.sequence import SequenceHead
from mmattn.heads.recommendation.sequence_steps import (
    SequenceSteps,
    final_states,
    history_steps,
    sample_training_steps,
)
from mmattn.heads.recommendation.user_towers import BagTower, SequenceTower
from mmattn.testing.plugin_checks import check_head


def histories() -> Histories:
    return Histories.from_events(
        [0, 0, 0, 2, 2], [5, 3, 4, 3, 0], [10.0, 30.0, 20.0, 7.0, 11.0], num_users=3, cutoff_time=31.0
    )


# --- histories ------------------------------------------------------------------------------------


def test_histories_are_sorted_by_time_and_cut_to_the_last() -> None:
    met = histories()
    assert met.offsets.tolist() == [0, 3, 3, 5]
    assert met.items.tolist() == [5, 4, 3, 3, 0]
    assert met.last_events(2).items.tolist() == [4, 3, 3, 0]
    assert met.last_events(2).time.tolist() == [20.0, 30.0, 7.0, 11.0]
    part = met.slice_events([2, 0], [1, 0], [2, 1])
    assert (part.offsets.tolist(), part.items.tolist()) == ([0, 1, 2], [0, 5])
    assert met.to_sparse(6).toarray()[2].tolist() == [1, 0, 0, 1, 0, 0]


def test_events_of_one_moment_keep_their_order() -> None:
    met = Histories.from_events([0] * 4, [7, 2, 5, 3], [1.0, 0.0, 1.0, 1.0], num_users=1)
    assert met.items.tolist() == [2, 7, 5, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cutoff_time": 30.0},
            "1 events lie in the future of the split, which is at 30.*user 0 with item 3",
        ),
        ({"time": [1.0, np.nan, 0.0]}, "1 events without a time"),
        ({"users": [0, 1, 7]}, "got users 0 to 7, expected 0 to 2"),
        ({"items": [1]}, "got 3 users, 1 items and 3 times"),
    ],
)
def test_histories_that_cannot_be(change: dict, message: str) -> None:
    good = {"users": [0, 1, 0], "items": [2, 1, 3], "time": [3.0, 4.0, 30.0], "num_users": 3}
    with pytest.raises(InputError, match=message):
        Histories.from_events(**{**good, **change})


# --- steps ----------------------------------------------------------------------------------------


def test_steps_are_led_by_a_start_and_aim_at_the_next_item() -> None:
    met, generator = histories(), torch.Generator().manual_seed(0)
    steps = sample_training_steps(met, np.array([2, 0]), np.arange(6), max_length=9, generator=generator)
    assert steps.items.tolist() == [-1, 3, -1, 5, 4]  # the last events are targets alone
    assert steps.targets.tolist() == [3, 0, 5, 4, 3]
    assert steps.lengths.tolist() == [2, 3]
    assert steps.times[[0, 2]].isnan().all()
    assert steps.times[[1, 4]].tolist() == [7.0, 20.0]
    whole = history_steps(met)  # at the test there is nothing to be predicted, and all of it counts
    assert whole.items.tolist() == [-1, 5, 4, 3, -1, -1, 3, 0]
    assert (whole.targets == -1).all()


def test_targets_lie_within_the_horizon_and_are_never_met_before() -> None:
    items = [0, 1, 2, 0, 3, 4, 1]
    met = Histories.from_events([0] * 7, items, np.arange(7.0), num_users=1)
    seen: dict[int, set[int]] = {}
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        steps = sample_training_steps(
            met, np.array([0]), np.arange(5), max_length=9, horizon=3, generator=generator
        )
        for step, target in enumerate(steps.targets.tolist()):
            seen.setdefault(step, set()).add(target)
    # After step 1 (item 0) come 1, 2 and 0, of which 0 was met; after step 5 (item 3) come 4 and 1.
    assert seen[0] == {0, 1, 2}
    assert seen[1] == {1, 2, -1}
    assert seen[5] == {4, -1}
    assert seen[6] == {-1}
    assert len(seen) == 7


def test_a_window_within_a_history_does_not_teach_the_start() -> None:
    met = Histories.from_events([0] * 50, np.arange(50), np.arange(50.0), num_users=1)
    begins = set()
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        steps = sample_training_steps(met, np.array([0]), np.arange(50), max_length=47, generator=generator)
        first = int(steps.items[1])
        begins.add(first)
        assert steps.lengths.tolist() == [47]
        assert steps.targets[0] == (0 if first == 0 else -1)
        assert steps.targets[1:-1].tolist() == steps.items[2:].tolist()
        assert steps.targets[-1] == first + 46
    assert begins == {0, 1, 2, 3}


def test_popularity_is_asked_for_when_the_next_event_happens() -> None:
    requested: list[list[float]] = []

    def point(time: np.ndarray) -> np.ndarray:
        requested.append(time.tolist())
        return np.zeros(len(time), np.int64)

    generator = torch.Generator().manual_seed(0)
    sample_training_steps(
        histories(), np.array([0]), np.arange(6), max_length=9, popularity_index_fn=point, generator=generator
    )
    assert requested == [[10.0, 20.0, 30.0, 0.0]]  # after the last one, nothing is asked


# --- popularity in time ---------------------------------------------------------------------------


def test_popularity_fades_by_half_and_knows_nothing_of_what_comes_later() -> None:
    items, days = np.array([0, 0, 1, 2]), np.array([0.0, 20.0, 40.0, 59.0])
    trends = PopularityOverTime(
        items,
        days * SECONDS_PER_DAY,
        3,
        [0, 10],
        serving_time=60 * SECONDS_PER_DAY,
        grid_step=10 * SECONDS_PER_DAY,
    )
    assert (trends.grid_times_S / SECONDS_PER_DAY).tolist() == [0, 10, 20, 30, 40, 50, 60]
    counts = np.expm1(trends.table_SFI.astype(float))
    np.testing.assert_allclose(counts[-1, 0], [2, 1, 1], rtol=1e-6)
    # After 60 days: 2^-6 + 2^-4, 2^-2, 2^-0.1.
    np.testing.assert_allclose(counts[-1, 1], [2**-6 + 2**-4, 2**-2, 2**-0.1], rtol=1e-5)
    # On day 40 the choice of that moment is not known yet.
    np.testing.assert_allclose(counts[4], [[2, 0, 0], [2**-4 + 2**-2, 0, 0]], rtol=1e-5)
    assert trends.grid_index(
        [-5 * SECONDS_PER_DAY, 9 * SECONDS_PER_DAY, 10 * SECONDS_PER_DAY, 999 * SECONDS_PER_DAY]
    ).tolist() == [0, 0, 1, 6]
    for point, moment in enumerate(trends.grid_times_S):  # the slow way
        for item in range(3):
            mine = days[(items == item) & (days * SECONDS_PER_DAY < moment)] * SECONDS_PER_DAY
            expected = sum(0.5 ** ((moment - then) / SECONDS_PER_DAY / 10) for then in mine)
            assert counts[point, 1, item] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_popularity_that_cannot_be() -> None:
    with pytest.raises(InputError, match="got half-lives"):
        PopularityOverTime([0], [0.0], 1, [-1])
    with pytest.raises(InputError, match="1 choices at 5 or later"):
        PopularityOverTime([0, 0], [4.0, 5.0], 1, [0], serving_time=5.0)


# --- losses ---------------------------------------------------------------------------------------


def test_full_softmax_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0], [0.0, 0.0]])
    loss = full_softmax(logits, torch.tensor([0, -1, 1]), torch.tensor([1.0, 9.0, 3.0]))
    # log 4 with weight 1, nothing with weight 9, log 2 with weight 3.
    assert loss.item() == pytest.approx((math.log(4) + 3 * math.log(2)) / 4)


@pytest.mark.parametrize("name", ["uniform", "popularity"])
def test_sampled_softmax_is_the_full_one_on_average(name: str) -> None:
    torch.manual_seed(0)
    counts_C = torch.randint(1, 40, (31,))
    scores_C = counts_C.log() + 0.3 * torch.randn(31)
    full = full_softmax(scores_C[None], torch.tensor([7]))
    generator = torch.Generator().manual_seed(1)
    drawn, expected = sample_negatives(name, counts_C, 200_000, generator)
    loss = sampled_softmax(scores_C[None, 7], scores_C[drawn][None], expected, (drawn == 7)[None])
    assert loss.item() == pytest.approx(full.item(), abs=0.03)
    uncorrected = sampled_softmax(
        scores_C[None, 7], scores_C[drawn][None], torch.full_like(expected, 200_000 / 31), (drawn == 7)[None]
    )
    if name == "popularity":  # without the correction, popular items are pushed down too far
        assert abs(uncorrected.item() - full.item()) > 0.1


def test_draws_follow_popularity_and_never_what_nobody_chose() -> None:
    counts = torch.tensor([1, 0, 3])
    drawn, expected = sample_negatives("popularity", counts, 4000, torch.Generator().manual_seed(0))
    assert (drawn != 1).all()
    assert (drawn == 2).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert set(expected.tolist()) == {1000.0, 3000.0}
    with pytest.raises(InputError, match="got 'popular', expected one of.*popularity"):
        sample_negatives("popular", counts, 3)
    with pytest.raises(InputError, match="to draw from 0 items"):
        sample_negatives("popularity", counts * 0, 3)


# --- towers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sequence", "bag"])
def test_no_state_sees_what_comes_later(kind: str) -> None:
    torch.manual_seed(0)
    tower = SequenceTower(8, layers=2, heads=2) if kind == "sequence" else BagTower(8, heads=2)
    for parameter in tower.parameters():  # the blocks start as the identity
        torch.nn.init.normal_(parameter, std=0.3)
    tower.eval()
    steps, items = history_steps(histories()), torch.randn(6, 8)
    states = tower(steps, items)
    changed = items.clone()
    changed[3] = torch.randn(8)  # the last of user 0, the first of user 2
    moved = (tower(steps, changed) - states).abs().amax(1) > 1e-4
    assert moved.tolist() == [False, False, False, True, False, False, True, True]
    # A user without a history has the state of the start, which is the same for everybody.
    torch.testing.assert_close(final_states(steps, states)[1], states[0])


def test_the_order_matters_to_the_sequence_alone() -> None:
    torch.manual_seed(0)
    items = torch.randn(5, 8)
    orders = [0, 1, 2, 3, 4], [3, 1, 0, 2, 4]
    entry, other = (Histories.from_events([0] * 5, order, np.full(5, 9.0), num_users=1) for order in orders)
    for kind, moves in (("sequence", True), ("bag", False)):
        head = SequenceHead(8, tower=kind, width=8, heads=2, positional_encoding=kind == "sequence").eval()  # type: ignore[arg-type]
        for parameter in head.tower.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        first, second = (head.user_states(history_steps(met), items) for met in (entry, other))
        assert bool((first - second).abs().max() > 1e-3) == moves, kind


def test_time_decides_what_counts() -> None:
    torch.manual_seed(0)
    head = SequenceHead(8, tower="bag", width=8, heads=1).eval()
    decay = dict(head.tower.named_parameters())["attention.terms.decay"]
    torch.nn.init.normal_(head.tower.attention.o_proj.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        decay[:, 8:] = -50.0  # what lies far back is forgotten
    items = torch.randn(3, 8)
    met = Histories.from_events([0, 0, 1], [0, 1, 1], [0.0, 9e7, 9e7], num_users=2)
    both, alone = head.user_states(history_steps(met), items)
    torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)


# --- the head -------------------------------------------------------------------------------------


def test_the_head_holds_its_contract() -> None:
    check_head("sequence")


def test_scores_are_inner_products_with_popularity_as_coordinates() -> None:
    torch.manual_seed(0)
    head = SequenceHead(8, width=4, heads=1, popularity_half_lives=[30, 0]).eval()
    states, items, popularity = torch.randn(3, 4), torch.randn(5, 4), torch.rand(2, 5)
    users, vectors = head.scoring_vectors(states, items, popularity)
    assert (users.shape, vectors.shape) == ((3, 6), (5, 6))
    # Before training each kind of popularity counts half.
    expected = states @ items.T / 2 + popularity.mean(0)
    torch.testing.assert_close(users @ vectors.T, expected)
    torch.testing.assert_close(head._scores(states, items, popularity[None], torch.zeros(3).long()), expected)


def test_the_loss_step_by_step() -> None:
    """What was met is no candidate, popularity is that of each step's moment, users weigh by their length."""
    torch.manual_seed(0)
    head, fused, _ = SequenceHead.example(8)
    head = SequenceHead(
        8, width=4, heads=1, popularity_half_lives=[0], activity_power=0.25, dropout=0.0
    ).eval()
    torch.nn.init.normal_(head.popularity_weights.weight)  # type: ignore[union-attr]
    item, target, point = [-1, 2, -1, 0, 3], [2, 1, 0, -1, 1], [0, 1, 0, 0, 2]
    time = torch.tensor([torch.nan, 5.0, torch.nan, 2.0, 8.0], dtype=torch.float64)
    steps = SequenceSteps(
        *(torch.tensor(x) for x in (item, [2, 3])), time, torch.tensor(target), torch.tensor(point)
    )
    popularity = torch.rand(3, 1, 4)
    items = head(fused)
    states = head.states(steps, items)
    weights = head.popularity_weights(states)[:, 0]  # type: ignore[misc]
    total = weighed = 0.0
    for step, (right, user, length) in enumerate(zip(target, [0, 0, 1, 1, 1], [2, 2, 3, 3, 3], strict=True)):
        first = 0 if user == 0 else 2
        left = [candidate for candidate in range(4) if candidate not in item[first : step + 1]]
        scores = {
            c: math.exp((states[step] @ items[c] / 2 + weights[step] * popularity[point[step], 0, c]).item())
            for c in left
        }
        if right >= 0:
            total += length**-0.25 * -math.log(scores[right] / sum(scores.values()))
            weighed += length**-0.25
    loss = head.loss(fused, steps, popularity=popularity)
    assert loss.item() == pytest.approx(total / weighed, rel=1e-5)


def test_an_item_without_content_or_id_has_no_vector() -> None:
    head, fused, _ = SequenceHead.example(8)
    fused.pooled[2] = 0.0
    items = head.eval()(fused)
    assert not items[2].any()
    assert items[0].any()


def test_ids_are_dropped_in_training_and_never_without_content() -> None:
    torch.manual_seed(0)
    _, fused, _ = SequenceHead.example(8)
    head = SequenceHead(8, width=4, heads=1, num_ids=4, id_dropout=0.5, dropout=0.0)
    content, ids = head.content_projection(fused.pooled), torch.tensor([0, 1, 2, -1])  # type: ignore[misc]
    with torch.no_grad():
        head.id_embedding.weight.fill_(1.0)  # type: ignore[union-attr]
    kept = torch.stack([(head(fused, ids) - content)[:, 0] for _ in range(300)])
    assert set(kept.round(decimals=4).unique().tolist()) == {0.0, 1.0}
    assert kept[:, :3].mean().item() == pytest.approx(0.5, abs=0.05)
    assert not kept[:, 3].any()
    alone = SequenceHead(8, width=4, heads=1, num_ids=4, use_content=False)
    torch.testing.assert_close(alone(fused, ids)[:3], alone.id_embedding.weight[:3])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tower": "bags"}, "user: got 'bags', expected one of"),
        ({"loss": "uniforms"}, "loss: got 'uniforms', expected one of"),
        ({"max_length": 0}, "got longest 0"),
        ({"use_content": False}, "neither content nor ids"),
    ],
)
def test_heads_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SequenceHead(8, **options)
