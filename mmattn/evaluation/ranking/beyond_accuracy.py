"""What accuracy does not see: how much of the catalogue is shown, how evenly, how unexpected, how varied.

All take [U, k] items, best first, -1 where there is none, as in `Ranking.items` cut at k.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError

__all__ = ["coverage", "diversity", "gini", "novelty"]


# Numbers held at once while distances within lists are taken.
_VALUES_AT_ONCE = 4_000_000


def coverage(items: ArrayLike, item_count: int) -> float:
    """Share of the catalogue that anybody is shown.

    Example:
        >>> coverage([[0, 1], [1, -1]], item_count=4)
        0.5
    """
    return float((_recommendation_counts(items, item_count) > 0).mean())


def gini(items: ArrayLike, item_count: int) -> float:
    """Gini index of how often each item of the catalogue is shown: 0 all alike, towards 1 few only.

    NaN where nothing is shown.

    Example:
        >>> gini([[0, 1], [2, 3]], item_count=4), gini([[0], [0]], item_count=4)
        (0.0, 0.75)
    """
    counts_I = np.sort(_recommendation_counts(items, item_count))
    total = counts_I.sum()
    if not total:
        return float("nan")
    places_I = np.arange(1, item_count + 1)
    return float(((2 * places_I - item_count - 1) * counts_I).sum() / (item_count * total))


def novelty(items: ArrayLike, popularity: ArrayLike, user_count: int) -> Floats:
    """[U] mean of -log2(share of the users who have chosen the item) over what each user is shown.

    From Vargas and Castells, "Rank and Relevance in Novelty and Diversity Metrics for Recommender
    Systems", RecSys 2011. An item that nobody has chosen counts as if half a user had.

    Args:
        items: [U, k].
        popularity: [I] how many users have chosen each item, in training.
        user_count: of all users in training.

    Example:
        >>> novelty([[0, 1], [1, -1]], popularity=[8, 2], user_count=8).tolist()
        [1.0, 2.0]
    """
    chosen_I = np.asarray(popularity, np.float64)
    if chosen_I.ndim != 1 or (chosen_I < 0).any() or (chosen_I > user_count).any():
        raise InputError(
            f"novelty: got counts of shape {chosen_I.shape}, expected [I] from 0 to {user_count}, the users"
        )
    items_UK = _check_items(items, len(chosen_I))
    there_UK = items_UK >= 0
    surprise_I = -np.log2(np.maximum(chosen_I, 0.5) / user_count)
    sums_U = np.where(there_UK, surprise_I[items_UK], 0.0).sum(1)
    return _divide_or_nan(sums_U, there_UK.sum(1))


def diversity(items: ArrayLike, vectors: ArrayLike) -> Floats:
    """[U] mean cosine distance between two different items that a user is shown (intra-list diversity).

    From Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005. NaN for a
    user who is shown fewer than two items.

    Args:
        items: [U, k].
        vectors: [I, D] finite, not zero for an item that is shown.

    Example:
        >>> diversity([[0, 1, 2], [0, 2, -1]], [[1, 0], [0, 1], [2, 0]]).round(4).tolist()
        [0.6667, 0.0]
    """
    vectors_ID = np.asarray(vectors, np.float64)
    if vectors_ID.ndim != 2 or not np.isfinite(vectors_ID).all():
        raise InputError(f"diversity: got vectors of shape {vectors_ID.shape}, expected finite [I, D]")
    items_UK = _check_items(items, len(vectors_ID))
    norms_I = np.linalg.norm(vectors_ID, axis=1)
    shown = np.unique(items_UK[items_UK >= 0])
    if (norms_I[shown] == 0).any():
        raise InputError(f"diversity: item {shown[norms_I[shown] == 0][0]} is shown and its vector is zero")
    units_ID = vectors_ID / np.where(norms_I > 0, norms_I, 1)[:, None]
    # Among n unit vectors, the inner products of all ordered pairs sum to |sum of them|^2 - n.
    sums_U = np.empty(len(items_UK))
    block = max(1, _VALUES_AT_ONCE // max(items_UK.shape[1] * vectors_ID.shape[1], 1))
    for start in range(0, len(items_UK), block):
        rows_BK = items_UK[start : start + block]
        sum_BD = np.einsum("bkd,bk->bd", units_ID[rows_BK], (rows_BK >= 0).astype(np.float64))
        sums_U[start : start + block] = (sum_BD**2).sum(1)
    counts_U = (items_UK >= 0).sum(1)
    pairs_U = counts_U * (counts_U - 1)
    return _divide_or_nan(pairs_U - (sums_U - counts_U), pairs_U)


def _recommendation_counts(items: ArrayLike, item_count: int) -> Ints:
    items_UK = _check_items(items, item_count)
    return np.bincount(items_UK[items_UK >= 0], minlength=item_count)


def _check_items(items: ArrayLike, item_count: int) -> Ints:
    items_UK = np.asarray(items, np.int64)
    if items_UK.ndim != 2 or item_count < 1 or items_UK.max(initial=-1) >= item_count:
        raise InputError(
            f"lists: got items of shape {items_UK.shape} up to {items_UK.max(initial=-1)}, expected [U, k] "
            f"below {item_count}"
        )
    return items_UK


def _divide_or_nan(values_U: Floats, counts_U: Ints) -> Floats:
    return np.divide(values_U, counts_U, out=np.full(len(values_U), np.nan), where=counts_U > 0)
