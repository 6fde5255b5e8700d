"""Vectors in place of weights: as good as any of their width can be, for the histories that there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from mmattn.serving.factors import factorise, topk_agreement


def drawn(users: int = 61, known: int = 23, items: int = 31) -> tuple[torch.Tensor, sparse.csr_array]:
    """Weights of high rank, and histories in which a few items are met by most."""
    rng = np.random.default_rng(0)
    often = 1 / np.arange(1, known + 1)
    histories = sparse.csr_array((rng.random((users, known)) < 0.1 + 0.7 * often).astype(np.float32))
    return torch.from_numpy(rng.standard_normal((known, items)).astype(np.float32)), histories


def scaled(histories: sparse.csr_array) -> np.ndarray:
    """Each history of length 1."""
    dense = histories.toarray()
    return dense / np.sqrt(np.maximum(dense.sum(1, keepdims=True), 1))


def loss(histories: sparse.csr_array, weights: np.ndarray, products: np.ndarray) -> float:
    return float(np.square(scaled(histories) @ (weights - products)).sum())


@pytest.mark.parametrize("width", [3, 7, 11])
def test_no_vectors_of_the_width_are_nearer_to_the_scores(width: int) -> None:
    weights, histories = drawn()
    actual = factorise(weights, histories, width)
    # Eckart and Young: what the best approximation of the scores leaves, from numpy's own decomposition.
    least = np.square(np.linalg.svd(scaled(histories) @ weights.numpy(), compute_uv=False)[width:]).sum()
    ours = loss(histories, weights.numpy(), actual.item_to_user @ actual.vectors.T)
    assert least <= ours * (1 + 1e-5)
    assert ours < 1.03 * least  # the decomposition is a randomised one, with a little ridge
    left, values, right = np.linalg.svd(weights.numpy())
    plain = (left[:, :width] * values[:width]) @ right[:width]
    assert ours < 0.9 * loss(histories, weights.numpy(), plain)


def test_full_width_loses_nothing() -> None:
    weights, histories = drawn()
    actual = factorise(weights, histories, 512)
    assert actual.width == 23
    np.testing.assert_allclose(actual.item_to_user @ actual.vectors.T, weights.numpy(), atol=2e-4)
    assert topk_agreement(actual, weights, histories, np.full(31, -1), k=5) > 0.99


def test_what_an_item_says_of_itself_is_free() -> None:
    rng = np.random.default_rng(1)
    half = rng.standard_normal((29, 3)).astype(np.float32)
    low = half @ half.T  # of rank 3, but for the diagonal
    weights = torch.from_numpy(low - np.diag(np.diag(low)))
    histories = sparse.csr_array((rng.random((53, 29)) < 0.4).astype(np.float32))
    off = ~np.eye(29, dtype=bool)

    def wrong(own: np.ndarray | None) -> float:
        actual = factorise(weights, histories, 3, own)
        return float(np.abs((actual.item_to_user @ actual.vectors.T - low)[off]).mean())

    assert wrong(np.arange(29)) < 0.5 * wrong(None)


def test_a_further_item_gets_the_vector_of_its_weights() -> None:
    weights, histories = drawn()
    actual = factorise(weights, histories, 7)
    np.testing.assert_allclose(actual.weights_to_vector @ weights.numpy(), actual.vectors.T, atol=2e-4)
    cut = actual.truncate(5)
    np.testing.assert_array_equal(
        cut.weights_to_vector @ weights.numpy(), (actual.weights_to_vector @ weights.numpy())[:5]
    )
    assert (cut.item_to_user.shape, cut.vectors.shape) == ((23, 5), (31, 5))


def test_without_any_history_all_items_count_alike() -> None:
    weights, _ = drawn()
    actual = factorise(weights, sparse.csr_array((5, 23), dtype=np.float32), 7)
    values = np.linalg.svd(weights.numpy(), compute_uv=False)
    left = np.square(weights.numpy() - actual.item_to_user @ actual.vectors.T).sum()
    assert left == pytest.approx(np.square(values[7:]).sum(), rel=0.03)


def test_agreement_by_hand() -> None:
    histories = sparse.csr_array(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], np.float32))
    weights = torch.tensor([[0.0, 3.0, 2.0, 1.0], [4.0, 0.0, 3.0, 2.0]])
    exact = factorise(weights, histories, 2)
    group = np.array([0, 1, -1, -1])
    assert topk_agreement(exact, weights, histories, group, k=2) == 1.0
    # Turned round, the first user's two best are items 3 and 2 for 1 and 2, the second's 3 and 2 for 0 and 2.
    turned = type(exact)(exact.item_to_user, -exact.vectors, exact.weights_to_vector)
    assert topk_agreement(turned, weights, histories, group, k=2) == 0.5
