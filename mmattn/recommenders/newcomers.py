"""Fallback for users without a history, for whom many recommenders cannot rank: for example popularity."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from mmattn.array_types import Floats32

__all__ = ["SupportsScore", "WithColdUserFallback"]


class SupportsScore(Protocol):
    """Anything that scores items for users."""

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
        """
        ...


class WithColdUserFallback:
    """One recommender for users with a history, another for users without.

    A recommender that is linear in the history gives all items the same score when the history is empty.
    Systems in production then recommend popular items.

    Args:
        baseline: fitted recommender for users with a history.
        cold_user_baseline: fitted recommender for users without.
        interactions: [U, I] known interactions, which decide who has a history.

    Example:
        >>> from mmattn.recommenders import EASE, Popularity
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]]))
        >>> WithColdUserFallback(EASE(1.0).fit(seen), Popularity().fit(seen), seen).score([2], [0, 1, 2])
        array([[2., 1., 0.]], dtype=float32)
    """

    def __init__(
        self, baseline: SupportsScore, cold_user_baseline: SupportsScore, interactions: sparse.csr_array
    ):
        self.baseline = baseline
        self.cold_user_baseline = cold_user_baseline
        self._is_cold_U = np.diff(interactions.indptr) == 0

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better, comparable within a user.
        """
        users_B = np.asarray(users, np.int64)
        scores_BC = np.array(self.baseline.score(users_B, items), np.float32)
        new_B = self._is_cold_U[users_B]
        if new_B.any():
            scores_BC[new_B] = self.cold_user_baseline.score(users_B[new_B], items)
        return scores_BC
