"""Item nearest neighbours by co-occurrence or by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.recommenders.base import LinearRecommender, check_at_least_one, check_features

__all__ = ["ContentKNN", "ItemKNN"]

_BLOCK_SIZE = 1024  # items whose similarities to all others are in memory at once


class ContentKNN(LinearRecommender):
    """Sum of the cosine similarities of an item's nearest known items in the user's history.

    `fit` takes item features [I, F].

    Args:
        num_neighbors: neighbours per item among the known items, the item itself excluded.

    Raises:
        InputError: fewer than 1 neighbour.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> ContentKNN(1).fit(seen, features).score([0, 1], [2]).round(4)
        array([[0. ],
               [0.8]], dtype=float32)
    """

    def __init__(self, num_neighbors: int = 50):
        self.num_neighbors = check_at_least_one("ContentKNN: num_neighbors", num_neighbors)

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> sparse.csr_array:
        features_IF = check_features(type(self).__name__, features, num_items).astype(np.float32)
        unit_IF = features_IF / np.maximum(np.linalg.norm(features_IF, axis=1, keepdims=True), 1e-12)

        def similarities() -> Iterator[tuple[Ints, Floats32]]:
            for rows in _blocks(np.arange(num_items)):
                yield rows, unit_IF[rows] @ unit_IF[known_W].T

        return _top_neighbors(similarities(), known_W, num_items, self.num_neighbors)


class ItemKNN(LinearRecommender):
    """Item nearest neighbours by shrunk co-occurrence cosine: users in common / (sqrt(n_i n_j) + shrinkage).

    Shrinkage lowers the similarity of pairs with few users. An item without interactions scores zero.

    B. Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001, summed for a
    ranking as in M. Deshpande and G. Karypis, Item-based top-N recommendation algorithms, TOIS 2004.

    Args:
        num_neighbors: neighbours per item, the item itself excluded.
        shrinkage: added to the denominator, in users; 0 for the plain cosine.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0]]))
        >>> ItemKNN(1, shrinkage=1.0).fit(seen).score([3], [1, 2])  # 2 / (sqrt(3 * 3) + 1)
        array([[0.5, 0. ]], dtype=float32)
    """

    def __init__(self, num_neighbors: int = 100, shrinkage: float = 10.0):
        self.num_neighbors = check_at_least_one("ItemKNN: num_neighbors", num_neighbors)
        if not shrinkage >= 0:
            raise InputError(f"ItemKNN: shrinkage: got {shrinkage}, expected 0 or more")
        self.shrinkage = shrinkage

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> sparse.csr_array:
        chosen_WU = sparse.csr_array(history_UW.T)
        norm_W = np.sqrt(np.diff(chosen_WU.indptr)).astype(np.float32)

        def similarities() -> Iterator[tuple[Ints, Floats32]]:
            for rows in _blocks(np.arange(len(known_W))):
                common_BW = (chosen_WU[rows] @ history_UW).toarray()
                # Items without interactions: 0 / 0 becomes 0.
                below_BW = np.maximum(norm_W[rows, None] * norm_W + self.shrinkage, 1e-12)
                yield known_W[rows], common_BW / below_BW

        return _top_neighbors(similarities(), known_W, num_items, self.num_neighbors)


def _blocks(values: Ints) -> Iterator[Ints]:
    for start in range(0, len(values), _BLOCK_SIZE):
        yield values[start : start + _BLOCK_SIZE]


def _top_neighbors(
    similarities: Iterator[tuple[Ints, Floats32]], known_W: Ints, num_items: int, num_neighbors: int
) -> sparse.csr_array:
    """Sparse weights [W, I]: each item's largest similarities to known items, the item itself excluded.

    Args:
        similarities: items and their similarities [items, W], block by block.
    """
    place_I = np.full(num_items, -1)
    place_I[known_W] = np.arange(len(known_W))
    kept = min(num_neighbors, len(known_W))
    blocks: list[tuple[Floats32, Ints, Ints]] = []
    for rows_B, similar_BW in similarities:
        known_B = np.flatnonzero(place_I[rows_B] >= 0)
        similar_BW[known_B, place_I[rows_B[known_B]]] = -np.inf
        nearest_BK = np.argpartition(-similar_BW, kept - 1, axis=1)[:, :kept]
        weights_BK = np.take_along_axis(similar_BW, nearest_BK, 1).clip(min=0)
        blocks.append((weights_BK.ravel(), nearest_BK.ravel(), np.repeat(rows_B, kept)))
    weights = np.concatenate([values for values, _, _ in blocks])
    nearest = np.concatenate([indices for _, indices, _ in blocks])
    rows = np.concatenate([ids for _, _, ids in blocks])
    weights_WI = sparse.csr_array((weights, (nearest, rows)), shape=(len(known_W), num_items))
    weights_WI.eliminate_zeros()
    return weights_WI
