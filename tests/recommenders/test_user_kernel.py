"""Attention over users against plain numpy, and against what it promises: nobody hears herself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from mmattn.errors import InputError
from mmattn.recommenders.user_kernel import UserKernel

USERS, ITEMS = 23, 17


def choices(seed: int = 0, density: float = 0.3) -> np.ndarray:
    actual = (np.random.default_rng(seed).random((USERS, ITEMS)) < density).astype(float)
    actual[:, 0] = np.maximum(actual[:, 0], ~actual.any(1))  # nobody without a history
    return actual


def regression(
    x: np.ndarray,
    history: np.ndarray,
    strength: float,
    g: float,
    rarity: float = 0.0,
    balance: float = 0.0,
    profiles: tuple[np.ndarray, np.ndarray, float] | None = None,
) -> np.ndarray:
    """Kernel ridge regression from histories to choices, as a textbook writes it."""
    weight = np.maximum(x.sum(0), 1) ** -rarity
    z, new = ((m * weight) / np.linalg.norm(m * weight, axis=1, keepdims=True) for m in (x, history))
    inside, across = g * (z @ z.T - 1), g * (new @ z.T - 1)
    if profiles:
        group, theirs = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in profiles[:2])
        inside, across = (
            inside + profiles[2] * (group @ group.T - 1),
            across + profiles[2] * (theirs @ group.T - 1),
        )
    doubt = x.sum(1) ** balance
    inner = np.linalg.solve(np.exp(inside) + np.diag(strength * doubt / doubt.mean()), x)
    return np.exp(across) @ inner


def test_a_new_user_gets_the_regression_s_answer() -> None:
    x, history = choices(0), choices(1)[:5]
    kernel = UserKernel(2.0, kernel_scale=1.5, idf_power=0.5, activity_power=0.7).fit(sparse.csr_array(x))
    actual = kernel.score_histories(sparse.csr_array(history), [3, 0, 11])
    np.testing.assert_allclose(actual, regression(x, history, 2.0, 1.5, 0.5, 0.7)[:, [3, 0, 11]], atol=1e-5)


def test_what_else_is_known_of_users_makes_them_alike() -> None:
    """A user left out is answered as the regression on the others answers somebody of her kind."""
    x, who = choices(0), np.random.default_rng(2).integers(0, 2, (USERS, 3)) + np.eye(3)[np.arange(USERS) % 3]
    kernel = UserKernel(2.0, idf_power=0.0, activity_power=0.0, profile_scale=0.8).fit(
        sparse.csr_array(x), who
    )
    others = np.arange(USERS) != 6
    expected = regression(x[others], x[[6]], 2.0, 2.0, profiles=(who[others], who[[6]], 0.8))
    np.testing.assert_allclose(kernel.score([6], np.arange(ITEMS)), expected, atol=1e-5)
    unknown = kernel.score_histories(sparse.csr_array(x[[6]]), np.arange(ITEMS))
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    a = who / np.linalg.norm(who, axis=1, keepdims=True)
    both = np.exp(2 * (z @ z.T - 1) + 0.8 * (a @ a.T - 1)) + 2 * np.eye(USERS)
    alone = np.exp(2 * (z[[6]] @ z.T - 1)) @ np.linalg.solve(both, x)
    np.testing.assert_allclose(unknown, alone, atol=1e-5)


@given(seed=st.integers(0, 99), strength=st.floats(0.1, 20), sharpness=st.floats(0.1, 4))
def test_a_known_user_is_answered_as_if_she_were_new(seed: int, strength: float, sharpness: float) -> None:
    """Leaving one out in closed form is leaving one out."""
    x = choices(seed)
    mine = UserKernel(strength, sharpness, idf_power=0.0, activity_power=0.0)
    known = mine.fit(sparse.csr_array(x)).score([7, 2], np.arange(ITEMS))
    for row, user in enumerate((7, 2)):
        others = np.delete(x, user, axis=0)
        new = regression(others, x[[user]], strength, sharpness)
        np.testing.assert_allclose(known[row], new[0], atol=2e-4)


def test_what_one_chose_oneself_does_not_count_twice() -> None:
    x = np.eye(3, 5)
    assert UserKernel(1.0).fit(sparse.csr_array(x)).score([0], [0, 3]).tolist() == [[0.0, 0.0]]


def test_a_user_without_a_history_teaches_nothing_and_gets_nothing() -> None:
    x = choices(3)
    silent = np.vstack([x, np.zeros((2, ITEMS))])
    plain, more = (UserKernel(1.0).fit(sparse.csr_array(m)) for m in (x, silent))
    everybody, items = np.arange(USERS), np.arange(ITEMS)
    np.testing.assert_allclose(plain.score(everybody, items), more.score(everybody, items), atol=1e-6)
    assert not more.score([USERS, USERS + 1], items).any()
    assert not more.score_histories(sparse.csr_array((1, ITEMS)), items).any()


def test_items_that_are_not_known_cannot_matter() -> None:
    x, known = choices(4), np.arange(1, 13)
    leaky = x.copy()
    leaky[:, 13:] = 1
    entry, other = (UserKernel(1.0).fit(sparse.csr_array(m), known=known) for m in (x, leaky))
    everybody, items = np.arange(USERS), np.arange(ITEMS)
    np.testing.assert_array_equal(entry.score(everybody, items), other.score(everybody, items))
    assert not entry.score(everybody, [0, 13, 16]).any()


def test_of_many_users_some_are_drawn_and_the_others_are_answered_as_new() -> None:
    x = choices(5)
    kernel = UserKernel(2.0, idf_power=0.0, activity_power=0.0, max_users=11, seed=3).fit(sparse.csr_array(x))
    teachers = np.sort(np.random.default_rng(3).choice(USERS, 11, replace=False))
    other = np.setdiff1d(np.arange(USERS), teachers)
    expected = regression(x[teachers], x[other], 2.0, 2.0)
    np.testing.assert_allclose(kernel.score(other, np.arange(ITEMS)), expected, atol=1e-5)
    together = kernel.score(np.arange(USERS), np.arange(ITEMS))
    np.testing.assert_allclose(together[other], expected, atol=1e-5)
    alone = kernel.score(teachers[[4]], np.arange(ITEMS))
    np.testing.assert_allclose(together[teachers[[4]]], alone, atol=1e-6)


def test_the_kernel_is_made_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = UserKernel(1.0).fit(sparse.csr_array(choices(6))).score([1, 2], [3, 4])
    monkeypatch.setattr("mmattn.recommenders.user_kernel._BLOCK_SIZE", 5)
    blocks = UserKernel(1.0).fit(sparse.csr_array(choices(6))).score([1, 2], [3, 4])
    np.testing.assert_allclose(whole, blocks, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: UserKernel(0), "regularization: got 0, expected a number above 0"),
        (lambda: UserKernel(kernel_scale=-1), "sharpness: got -1, expected a number above 0"),
        (lambda: UserKernel(idf_power=float("nan")), "rarity: got nan, expected a number from 0"),
        (lambda: UserKernel(activity_power=-1), "balance: got -1, expected a number from 0"),
        (lambda: UserKernel(profile_scale=-1), "profile: got -1, expected a number from 0"),
        (
            lambda: UserKernel().fit(sparse.csr_array(np.eye(2)), np.ones((3, 1))),
            r"features \(3, 1\), expected \[2, F\]",
        ),
        (lambda: UserKernel(max_users=0), "most: got 0, expected at least 1"),
        (lambda: UserKernel().fit(sparse.csr_array((2, 3)), known=[1]), "no user with a known item"),
        (lambda: UserKernel().fit(sparse.csr_array(np.eye(2)), known=[2]), "expected some of 0 to 1"),
        (
            lambda: (
                UserKernel().fit(sparse.csr_array(np.eye(2))).score_histories(sparse.csr_array((1, 3)), [0])
            ),
            "histories over 3 items, expected 2",
        ),
    ],
)
def test_mistakes_are_named(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
