"""What to recommend to users without a history: popularity in place of a scorer that has nothing to go on."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from mmattn.array_types import Floats32

__all__ = ["SupportsScore", "WithColdUserFallback"]


class SupportsScore(Protocol):
    """What scores users and items."""

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """[len(users), len(items)] float32.

        Args:
            users: [N] users.
            items: [C] items.
        """
        ...


class WithColdUserFallback:
    """A rival for those who have a history, another one for those who have none.

    What is linear in the history scores all items alike where there is none, and so says nothing: anybody who
    runs such a system answers newcomers with what is popular.

    Args:
        baseline: for users with a history.
        cold_user_baseline: for users without.
        interactions: [U, I] the known ones.

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
        """As `Recommender.score`.

        Args:
            users: [N] users.
            items: [C] items.
        """
        users_B = np.asarray(users, np.int64)
        scores_BC = np.array(self.baseline.score(users_B, items), np.float32)
        new_B = self._is_cold_U[users_B]
        if new_B.any():
            scores_BC[new_B] = self.cold_user_baseline.score(users_B[new_B], items)
        return scores_BC
