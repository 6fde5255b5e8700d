"""History completion against plain numpy in double precision, and what it means for a user."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from mmattn.errors import InputError
from mmattn.heads.recommendation.history_completion import complete_history_weights, cooccurrence_counts

USERS, ITEMS, CANDIDATES = 29, 13, 5


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Choices [U, I] and what each item says of each candidate [I, C]."""
    rng = np.random.default_rng(seed)
    return (rng.random((USERS, ITEMS)) < 0.3).astype(np.float64), rng.normal(size=(ITEMS, CANDIDATES))


def by_numpy(chosen: np.ndarray, dropout: float, ridge: float) -> np.ndarray:
    """P [I, I], the formula as the paper has it: an explicit inverse."""
    gram = chosen.T @ chosen
    penalty = np.diag(dropout / (1 - dropout) * chosen.sum(0) + ridge)
    return np.linalg.inv(gram + penalty) @ gram


@pytest.mark.parametrize(("dropout", "ridge"), [(0.7, 10.0), (0.0, 0.5), (0.95, 3.0)])
def test_scores_are_those_of_histories_that_were_filled_in(dropout: float, ridge: float) -> None:
    chosen, says = world()
    actual = complete_history_weights(
        torch.from_numpy(says), cooccurrence_counts(sparse.csr_array(chosen)), dropout, ridge
    )
    filled_in = chosen @ by_numpy(chosen, dropout, ridge)
    np.testing.assert_allclose(chosen @ actual.numpy(), filled_in @ says, rtol=1e-9, atol=1e-12)


def test_it_is_the_best_reconstruction_from_histories_with_choices_dropped() -> None:
    """Least squares over many drawn dropouts comes to the closed form, which never draws any."""
    chosen, _ = world(3)
    rng, p = np.random.default_rng(4), 0.4
    kept = np.concatenate([chosen * (rng.random(chosen.shape) >= p) for _ in range(1000)]) / (1 - p)
    drawn = np.linalg.lstsq(kept, np.tile(chosen, (1000, 1)), rcond=None)[0]
    whole = torch.eye(ITEMS, dtype=torch.float64)
    closed = complete_history_weights(
        whole, cooccurrence_counts(sparse.csr_array(chosen)), dropout=p, ridge=1e-9
    )
    np.testing.assert_allclose(closed.numpy(), drawn, atol=0.03)


def test_items_that_nobody_chose_together_do_not_speak_for_each_other() -> None:
    chosen = np.zeros((4, 3))
    chosen[:3, 0], chosen[3, 1] = 1, 1  # three users of the first item, one of the second, none of the third
    actual = complete_history_weights(
        torch.eye(3), cooccurrence_counts(sparse.csr_array(chosen)), dropout=0.5, ridge=1.0
    )
    # n / (n + n + 1), and an item without a choice is not believed at all.
    torch.testing.assert_close(actual, torch.tensor([3 / 7, 1 / 3, 0.0]).diag())


@given(seed=st.integers(0, 1000), user=st.integers(0, USERS - 1))
def test_the_order_of_items_does_not_matter(seed: int, user: int) -> None:
    chosen, says = world(seed)
    order = np.random.default_rng(seed).permutation(ITEMS)
    entry, other = (
        x[user]
        @ complete_history_weights(torch.from_numpy(w), cooccurrence_counts(sparse.csr_array(x))).numpy()
        for x, w in ((chosen, says), (chosen[:, order], says[order]))
    )
    np.testing.assert_allclose(entry, other, rtol=1e-9, atol=1e-12)


def test_gradients_reach_the_content() -> None:
    chosen, says = world()
    together = cooccurrence_counts(sparse.csr_array(chosen))
    weights = torch.from_numpy(says).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: complete_history_weights(w, together), weights)


def test_single_precision_weights_come_back_as_such_and_exact() -> None:
    """One item met by a million users beside one met by two: the small one is not lost."""
    together = torch.tensor([[1e6, 1.0], [1.0, 2.0]])
    says = torch.tensor([[0.0], [1.0]])
    actual = complete_history_weights(says, together, dropout=0.5, ridge=1e-3)
    gram = together.double().numpy()
    expected = np.linalg.inv(gram + np.diag([1e6 + 1e-3, 2 + 1e-3])) @ gram @ says.double().numpy()
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-6)


def test_counts_are_of_users_whatever_the_stored_values() -> None:
    rows, columns = [0, 0, 0, 1], [0, 1, 1, 0]  # the pair (0, 1) is stored twice
    pairs = sparse.csr_array((np.array([5.0, 2.0, 2.0, 0.5]), (rows, columns)), shape=(3, 2))
    before = pairs.data.copy()
    assert cooccurrence_counts(pairs).tolist() == [[2.0, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(pairs.data, before)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"counts \(2, 2\), expected \[3, 3\], a row and a column"):
        complete_history_weights(torch.ones(3, 1), torch.ones(2, 2))
    for wrong in ({"dropout": 1.0}, {"dropout": -0.1}, {"ridge": 0.0}):
        with pytest.raises(InputError, match="expected 0 to below 1 and above 0"):
            complete_history_weights(torch.ones(2, 1), torch.ones(2, 2), **wrong)
