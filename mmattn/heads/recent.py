"""Popularity of late, and what to tell newcomers: rivals for protocols in which time passes."""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.data.histories import Histories
from mmattn.errors import InputError
from mmattn.heads.trends import Trends

__all__ = ["RecentPopularity", "Scorer", "WithNewcomers"]

Floats = NDArray[np.float32]


class RecentPopularity:
    """Every user gets what most users chose of late: a choice loses half of its weight in a half-life.

    Args:
        half_life: in days; 0 never fades, which is popularity.

    Example:
        >>> day = 86_400.0
        >>> met = Histories.of([0, 1, 2], [0, 0, 1], [0.0, 0.0, 365 * day], user_count=3)
        >>> scores = RecentPopularity(half_life=180.0).fit(met.matrix(2), met).score([0], [0, 1])
        >>> bool(scores[0, 1] > scores[0, 0])
        True
    """

    def __init__(self, half_life: float = 180.0):
        self.half_life = half_life

    def fit(
        self,
        interactions: sparse.csr_array,
        features: Histories | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """As `Recommender.fit`, with the histories as features.

        Raises:
            InputError: no histories.
        """
        if features is None:
            raise InputError("RecentPopularity.fit: got no histories, expected choices with their times")
        trends = Trends(features.items, features.time, interactions.shape[1], [self.half_life])
        self._scores_I: Floats = trends.now[0]
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """As `Recommender.score`: the same for everybody."""
        return np.tile(self._scores_I[np.asarray(items, np.int64)], (len(np.asarray(users)), 1))


class Scorer(Protocol):
    """What scores users and items."""

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """[len(users), len(items)] float32."""
        ...


class WithNewcomers:
    """A rival for those who have a history, another one for those who have none.

    What is linear in the history scores all items alike where there is none, and so says nothing: anybody who
    runs such a system answers newcomers with what is popular.

    Args:
        rival: for users with a history.
        newcomers: for users without.
        interactions: [U, I] the known ones.

    Example:
        >>> from mmattn.heads.baselines import EASE, Popularity
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]]))
        >>> WithNewcomers(EASE(1.0).fit(seen), Popularity().fit(seen), seen).score([2], [0, 1, 2])
        array([[2., 1., 0.]], dtype=float32)
    """

    def __init__(self, rival: Scorer, newcomers: Scorer, interactions: sparse.csr_array):
        self.rival = rival
        self.newcomers = newcomers
        self._new_U = np.diff(interactions.indptr) == 0

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """As `Recommender.score`."""
        users_B = np.asarray(users, np.int64)
        scores_BC = np.array(self.rival.score(users_B, items), np.float32)
        new_B = self._new_U[users_B]
        if new_B.any():
            scores_BC[new_B] = self.newcomers.score(users_B[new_B], items)
        return scores_BC
