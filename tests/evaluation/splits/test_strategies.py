"""Splits: the parts are what they say, nothing leaks, and a leak that is built by hand is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmattn.data.dataset import Interactions
from mmattn.errors import InputError
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.config import ProtocolConfig
from mmattn.experiments.recommendation.protocol import make_split


def interactions(seed: int, users: int, items: int, density: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(seed).random((users, items)) < density
    return np.nonzero(chosen)


@given(seed=st.integers(0, 99), users=st.integers(1, 13), items=st.integers(1, 17))
def test_random_holds_out_a_fraction_of_each_user(seed: int, users: int, items: int) -> None:
    u, i = interactions(seed, users, items)
    split = strategies.random_split(
        u, i, seed=seed, validation=0.3, test=0.25, user_count=users, item_count=items
    )
    parts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(parts) == list(range(len(u)))
    for user in range(users):
        owned = int((u == user).sum())
        assert (u[split.test] == user).sum() == int(0.25 * owned)
        assert (u[split.validation] == user).sum() == int(0.3 * owned)


def test_random_repeats_with_its_seed_only() -> None:
    u, i = interactions(0, 11, 19)
    entry, again, other = (strategies.random_split(u, i, seed=seed) for seed in (3, 3, 4))
    assert entry.test.tolist() == again.test.tolist() != other.test.tolist()


def test_random_refuses_a_pair_that_lands_on_both_sides() -> None:
    with pytest.raises(InputError, match=r"random split leaks: \d+ pairs .* user 0 with item 0"):
        strategies.random_split([0] * 10, [0] * 10, seed=0)


@given(seed=st.integers(0, 99), moments=st.integers(20, 60))
def test_global_time_never_trains_on_what_comes_later(seed: int, moments: int) -> None:
    u, i = interactions(seed, 7, 11)
    time = np.random.default_rng(seed).integers(0, moments, len(u)).astype(float)
    split = strategies.global_time_split(u, i, time, validation=0.3, test=0.3)
    assert time[split.train].max() < time[split.validation].min()
    assert time[split.validation].max() < time[split.test].min()
    assert len(split.train) + len(split.validation) + len(split.test) == len(u)


def test_global_time_keeps_repeats_out_of_the_later_parts() -> None:
    items = [5, 6, 5, 7, 7, 8]
    split = strategies.global_time_split([0] * 6, items, np.arange(6.0), validation=1 / 3, test=1 / 3)
    # Event 2 repeats event 0 of the training, event 4 repeats event 3 of the validation.
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 1], [3], [5])


def test_global_time_may_leave_a_part_out() -> None:
    split = strategies.global_time_split([0] * 5, np.arange(5), np.arange(5.0), validation=0.2, test=0.0)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 1, 2, 3], [4], [])


@pytest.mark.parametrize("time", [[0.0, np.nan, 1.0], [0.0, 1.0], [0.0, np.inf, 1.0]])
def test_global_time_needs_every_time(time: list[float]) -> None:
    with pytest.raises(InputError, match="expected 3 finite numbers"):
        strategies.global_time_split([0, 0, 0], [0, 1, 2], time)


def test_global_time_says_when_one_moment_holds_everything() -> None:
    with pytest.raises(InputError, match="train part is empty.*1 distinct times came"):
        strategies.global_time_split([0, 0, 0], [0, 1, 2], [7.0, 7.0, 7.0])


def test_cold_items_are_those_of_the_protocol() -> None:
    u, i = interactions(0, 5, 3260, density=0.02)
    split = strategies.cold_item_split(u, i, item_count=3260, seed=2)
    marked = np.random.default_rng(2).permutation(3260) < 652
    assert split.cold_items.tolist() == np.flatnonzero(marked).tolist()
    assert len(split.cold_items) == 652
    assert len(split.validation_items) == int(0.2 * (3260 - 652))
    assert not marked[split.validation_items].any()
    assert set(i[split.test]) <= set(split.cold_items)
    # Everything warm is known at the test, and only the cold items are ranked there.
    assert sorted([*split.train, *split.validation]) == np.flatnonzero(~marked[i]).tolist()
    assert split.known("test").nnz == (~marked[i]).sum()
    assert split.candidates("test").tolist() == split.cold_items.tolist()
    assert split.candidates("validation").tolist() == split.validation_items.tolist()
    assert split.known_items("test").tolist() == np.flatnonzero(~marked).tolist()
    assert len(split.known_items("validation")) == 3260 - 652 - 521


def test_changing_what_is_held_out_for_validation_leaves_the_test_alone() -> None:
    u, i = interactions(1, 7, 101)
    entry, other = (
        strategies.cold_item_split(u, i, item_count=101, seed=5, validation=part) for part in (0.1, 0.5)
    )
    assert entry.cold_items.tolist() == other.cold_items.tolist()
    assert entry.test.tolist() == other.test.tolist()


def test_known_at_the_test_includes_validation() -> None:
    split = Split("mine", [0, 0, 0], [0, 1, 2], [0], [1], [2], user_count=1, item_count=3)
    assert split.known("validation").toarray().tolist() == [[1, 0, 0]]
    assert split.known("test").toarray().tolist() == [[1, 1, 0]]
    assert split.matrix("test").toarray().tolist() == [[0, 0, 1]]
    assert split.candidates("test").tolist() == [0, 1, 2]


BASE = {
    "protocol": "mine",
    "users": [0, 0, 1, 1],
    "items": [0, 1, 2, 0],
    "train": [0],
    "validation": [1],
    "test": [2],
    "user_count": 2,
    "item_count": 3,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": [0, 2]}, "1 pairs of the test part are known before it, the first user 0 with item 0"),
        ({"items": [0, 0, 2, 0]}, "1 pairs of the validation part are known before it"),
        ({"cold_items": [0, 2]}, "1 cold items have interactions in train, the first item 0"),
        ({"cold_items": [1]}, "1 cold items have interactions in validation, the first item 1"),
        ({"validation_items": [0]}, "1 validation items have interactions in train, the first item 0"),
        ({"validation_items": [2], "cold_items": [2]}, "both cold and for validation"),
        ({"time": np.array([3.0, 4.0, 2.0, 9.0])}, "an event at 4 is known before the test part"),
        ({"time": np.array([5.0, 4.0, 9.0, 9.0])}, "an event at 5 is known before the validation part"),
        ({"items": [0, 1, 3, 0]}, "items: got 0 to 3, expected 0 to 2"),
        ({"test": [4]}, "test: got 4 to 4, expected 0 to 3"),
        ({"users": [0, 0, 1]}, "3 users and 4 items"),
        ({"users": [0.0, 0.0, 1.0, 1.0]}, "users: got float64"),
    ],
)
def test_a_split_refuses_leaks_and_nonsense(changes: dict, message: str) -> None:
    Split(**BASE)
    with pytest.raises(InputError, match=message):
        Split(**{**BASE, **changes})


@pytest.mark.parametrize("fractions", [{"test": 1.0}, {"validation": 0.6, "test": 0.5}, {"validation": -0.1}])
def test_fractions_must_leave_some_for_training(fractions: dict) -> None:
    with pytest.raises(InputError, match="leave some for training"):
        strategies.random_split([0], [0], seed=0, **fractions)


def test_leave_one_out_holds_out_the_last_two_of_each_user() -> None:
    """User 0 at times 3, 9, 1, 4 and again item 1 at 20; user 1 has two interactions only."""
    users = np.array([0, 0, 0, 0, 0, 1, 1])
    items = np.array([0, 1, 2, 3, 1, 0, 1])
    split = strategies.leave_one_out_split(users, items, [3, 9, 1, 4, 20, 5, 6])
    assert (split.test.tolist(), split.validation.tolist()) == ([1], [3])
    assert split.train.tolist() == [0, 2, 5, 6]
    assert split.known("test").toarray().tolist() == [[1, 0, 1, 1], [1, 1, 0, 0]]


def test_leave_one_out_by_a_draw() -> None:
    users, items = np.repeat(np.arange(31), 7), np.tile(np.arange(7), 31)
    split = strategies.leave_one_out_split(users, items, seed=0)
    for part in (split.test, split.validation):
        assert np.bincount(users[part], minlength=31).tolist() == [1] * 31
        assert len(np.unique(items[part])) > 3
    assert strategies.leave_one_out_split(users, items, seed=0).test.tolist() == split.test.tolist()
    assert strategies.leave_one_out_split(users, items, seed=1).test.tolist() != split.test.tolist()
    for arguments in ({}, {"time": np.arange(217.0), "seed": 0}):
        with pytest.raises(InputError, match="a time or a seed, and not both"):
            strategies.leave_one_out_split(users, items, **arguments)


def test_nothing_is_learned_from_cold_users() -> None:
    pairs = np.argwhere(np.random.default_rng(0).random((53, 37)) < 0.3)
    split = strategies.cold_user_split(pairs[:, 0], pairs[:, 1], user_count=53, seed=0)
    assert (len(split.cold_users), len(split.validation_users)) == (10, 8)
    parts = [split.train, split.validation, split.test, split.given_history]
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(pairs)))
    fitted = np.flatnonzero(np.diff(split.known("test").indptr))
    assert not np.isin(split.cold_users, fitted).any()
    cold = split.cold_users[0]
    total = int((pairs[:, 0] == cold).sum())
    assert split.histories("test")[[cold]].nnz == total // 2
    assert split.matrix("test")[[cold]].nnz == total - total // 2
    # At validation nothing at all of a cold user is there, and the waiting users have their histories.
    assert split.histories("validation")[split.cold_users].nnz == 0
    assert split.histories("validation")[split.validation_users].nnz > 0
    assert split.matrix("train")[split.validation_users].nnz == 0


@given(seed=st.integers(0, 99), users=st.integers(1, 13), items=st.integers(2, 17))
def test_a_given_test_part_is_taken_as_it_is(seed: int, users: int, items: int) -> None:
    u, i = interactions(seed, users, items)
    marked = np.random.default_rng([seed, 1]).random(len(u)) < 0.3
    parts = np.where(marked, "test", "train").astype(object)
    assume(0 < marked.sum() < len(u))
    entry, other = (
        strategies.split_from_column(u, i, parts, seed=s, validation=0.3) for s in (seed, seed + 1)
    )
    assert entry.test.tolist() == other.test.tolist() == np.flatnonzero(marked).tolist()
    assert sorted([*entry.train, *entry.validation]) == np.flatnonzero(~marked).tolist()
    for user in range(users):
        assert (u[entry.validation] == user).sum() == int(0.3 * ((u == user) & ~marked).sum())


def test_a_given_validation_part_is_kept() -> None:
    parts = ["train", "validation", "test", "train"]
    split = strategies.split_from_column([0, 0, 0, 1], [0, 1, 2, 0], parts, seed=5, validation=0.5)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == ([0, 3], [1], [2])
    assert split.seed is None  # nothing was drawn


@pytest.mark.parametrize(
    ("items", "parts", "message"),
    [
        ([0, 1, 2], ["train", "tset", "test"], "got 'tset' for interaction 1, expected one of train, valid"),
        ([0, 1, 2], ["train", "test"], r"got parts of shape \(2,\), expected \[3\]"),
        ([0, 1, 2], ["train"] * 3, "no interaction is marked 'test'"),
        ([0, 1, 2], ["test"] * 3, "no interaction is marked 'train'"),
        ([0, 1, 0], ["train", "train", "test"], "given split leaks: 1 pairs of the test part are known"),
    ],
)
def test_a_given_split_is_checked_like_any_other(items: list[int], parts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        strategies.split_from_column([0, 0, 0], items, parts, seed=0)


def test_the_protocol_needs_a_split_column_for_it() -> None:
    pairs = Interactions(np.array([0, 0]), np.array([0, 1]))
    dataset = SimpleNamespace(interactions=pairs, users=[0], items=[0, 1])
    with pytest.raises(InputError, match="got 'given', but the card names no split column"):
        make_split(dataset, ProtocolConfig("given"), seed=0)  # type: ignore[arg-type]
    marked = Interactions(pairs.users, pairs.items, split=np.array(["test", "train"], object))
    split = make_split(
        SimpleNamespace(**{**vars(dataset), "interactions": marked}), ProtocolConfig("given"), 0
    )  # type: ignore[arg-type]
    assert (split.train.tolist(), split.test.tolist()) == ([1], [0])


@given(seed=st.integers(0, 99), users=st.integers(1, 13), items=st.integers(5, 41))
def test_a_mixed_list_holds_cold_items_and_hidden_interactions(seed: int, users: int, items: int) -> None:
    u, i = interactions(seed, users, items)
    split = strategies.mixed_split(
        u, i, item_count=items, user_count=users, seed=seed, test=0.3, validation=0.2
    )
    alone = strategies.cold_item_split(u, i, item_count=items, seed=seed, fraction=0.3, validation=0.2)
    assert split.cold_items.tolist() == alone.cold_items.tolist()
    assert split.validation_items.tolist() == alone.validation_items.tolist()
    parts = np.concatenate([split.train, split.validation, split.test])
    assert sorted(parts) == list(range(len(u)))
    cold, waiting = (np.isin(i, held) for held in (split.cold_items, split.validation_items))
    assert set(np.flatnonzero(cold)) <= set(split.test)
    for user in range(users):
        warm = int(((u == user) & ~cold).sum())
        assert ((u == user) & ~cold)[split.test].sum() == int(0.3 * warm)
    left = np.setdiff1d(np.flatnonzero(waiting), split.test)
    assert set(left) <= set(split.validation)
    assert split.candidates("test").tolist() == list(range(items))
    assert not np.isin(split.candidates("validation"), split.cold_items).any()
    assert set(split.validation_items) <= set(split.candidates("validation"))
    assert not np.isin(split.known_items("validation"), [*split.cold_items, *split.validation_items]).any()


def test_leaks_of_users_are_refused() -> None:
    pairs = {"users": [0, 0, 1, 1], "items": [0, 1, 0, 1], "user_count": 2, "item_count": 2}
    base = {"protocol": "own", "validation": [], **pairs}
    for fields, message in (
        ({"train": [0, 2], "test": [1], "cold_users": [0]}, "1 cold users have interactions in train"),
        (
            {"train": [0], "test": [2], "validation_users": [0]},
            "1 validation users have interactions in train",
        ),
        (
            {"train": [], "test": [2], "cold_users": [1], "validation_users": [1]},
            "both cold and for validation",
        ),
        ({"train": [0], "test": [2], "given_history": [3]}, "given of a user that is not held out"),
        (
            {"train": [0], "test": [2], "given_history": [2], "cold_users": [1]},
            "1 pairs are given and to be predicted",
        ),
    ):
        with pytest.raises(InputError, match=message):
            Split(**{**base, **fields})  # type: ignore[arg-type]


def test_histories_are_what_is_known_where_no_user_is_held_out() -> None:
    split = strategies.random_split(np.repeat(np.arange(5), 11), np.tile(np.arange(11), 5), seed=0)
    for part in ("validation", "test"):
        assert (split.histories(part) != split.known(part)).nnz == 0
