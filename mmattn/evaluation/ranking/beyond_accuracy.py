"""Beyond-accuracy metrics of recommendation lists: coverage, Gini index, novelty and diversity.

All take [U, k] items, best first and padded with -1, as in `Ranking.items`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError
from mmattn.evaluation.ranking.formulas import divide_or_nan

__all__ = ["coverage", "diversity", "gini", "novelty"]


# Values in memory at once when pairwise distances are computed.
_MAX_VALUES = 4_000_000


def coverage(items: ArrayLike, item_count: int) -> float:
    """Compute catalogue coverage: the fraction of items recommended to any user.

    Args:
        items: [U, k] recommended items, best first; -1 where there is none.
        item_count: number of items I.

    Raises:
        InputError: items of the wrong shape or out of range.

    Example:
        >>> coverage([[0, 1], [1, -1]], item_count=4)
        0.5
    """
    return float((_recommendation_counts(items, item_count) > 0).mean())


def gini(items: ArrayLike, item_count: int) -> float:
    """Compute the Gini index of recommendation counts: 0 for equal counts, near 1 for few items.

    Args:
        items: [U, k] recommended items, best first; -1 where there is none.
        item_count: number of items I.

    Returns:
        The index; NaN without recommendations.

    Raises:
        InputError: items of the wrong shape or out of range.

    Example:
        >>> gini([[0, 1], [2, 3]], item_count=4), gini([[0], [0]], item_count=4)
        (0.0, 0.75)
    """
    counts_I = np.sort(_recommendation_counts(items, item_count))
    total = counts_I.sum()
    if not total:
        return float("nan")
    ranks_I = np.arange(1, item_count + 1)
    return float(((2 * ranks_I - item_count - 1) * counts_I).sum() / (item_count * total))


def novelty(items: ArrayLike, popularity: ArrayLike, user_count: int) -> Floats:
    """Compute novelty: the mean self-information -log2(popularity / users) of the recommended items.

    Paper: Vargas and Castells, "Rank and Relevance in Novelty and Diversity Metrics for Recommender
    Systems", RecSys 2011. An item without interactions counts as half an interaction.

    Args:
        items: [U, k] recommended items, best first; -1 where there is none.
        popularity: [I] number of users with each item in training.
        user_count: number of users in training.

    Returns:
        [U] novelty; NaN for users without recommendations.

    Raises:
        InputError: counts or items of the wrong shape or out of range.

    Example:
        >>> novelty([[0, 1], [1, -1]], popularity=[8, 2], user_count=8).tolist()
        [1.0, 2.0]
    """
    popularity_I = np.asarray(popularity, np.float64)
    if popularity_I.ndim != 1 or (popularity_I < 0).any() or (popularity_I > user_count).any():
        raise InputError(
            f"novelty: got counts of shape {popularity_I.shape}, expected [I] from 0 to {user_count}, the "
            "number of users"
        )
    items_UK = _check_items(items, len(popularity_I))
    present_UK = items_UK >= 0
    information_I = -np.log2(np.maximum(popularity_I, 0.5) / user_count)
    sums_U = np.where(present_UK, information_I[items_UK], 0.0).sum(1)
    return divide_or_nan(sums_U, present_UK.sum(1))


def diversity(items: ArrayLike, vectors: ArrayLike) -> Floats:
    """Compute intra-list diversity: the mean cosine distance between two items of a list.

    Paper: Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005.

    Args:
        items: [U, k] recommended items, best first; -1 where there is none.
        vectors: [I, D] finite vectors, nonzero for recommended items.

    Returns:
        [U] diversity; NaN for lists with fewer than two items.

    Raises:
        InputError: vectors or items of the wrong shape, not finite, zero or out of range.

    Example:
        >>> diversity([[0, 1, 2], [0, 2, -1]], [[1, 0], [0, 1], [2, 0]]).round(4).tolist()
        [0.6667, 0.0]
    """
    vectors_ID = np.asarray(vectors, np.float64)
    if vectors_ID.ndim != 2 or not np.isfinite(vectors_ID).all():
        raise InputError(f"diversity: got vectors of shape {vectors_ID.shape}, expected finite [I, D]")
    items_UK = _check_items(items, len(vectors_ID))
    norms_I = np.linalg.norm(vectors_ID, axis=1)
    recommended = np.unique(items_UK[items_UK >= 0])
    if (norms_I[recommended] == 0).any():
        item = recommended[norms_I[recommended] == 0][0]
        raise InputError(f"diversity: item {item} is recommended, but its vector is zero")
    units_ID = vectors_ID / np.where(norms_I > 0, norms_I, 1)[:, None]
    # The inner products of all ordered pairs of n unit vectors sum to |sum of the vectors|^2 - n.
    sums_U = np.empty(len(items_UK))
    block = max(1, _MAX_VALUES // max(items_UK.shape[1] * vectors_ID.shape[1], 1))
    for start in range(0, len(items_UK), block):
        rows_BK = items_UK[start : start + block]
        sum_BD = np.einsum("bkd,bk->bd", units_ID[rows_BK], (rows_BK >= 0).astype(np.float64))
        sums_U[start : start + block] = (sum_BD**2).sum(1)
    counts_U = (items_UK >= 0).sum(1)
    pairs_U = counts_U * (counts_U - 1)
    return divide_or_nan(pairs_U - (sums_U - counts_U), pairs_U)


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
