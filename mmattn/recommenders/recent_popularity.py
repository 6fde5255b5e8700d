"""Recency-weighted popularity: a baseline for splits in time."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from mmattn.array_types import Floats32
from mmattn.data.histories import Histories
from mmattn.errors import InputError
from mmattn.heads.recommendation.popularity_over_time import PopularityOverTime

__all__ = ["RecentPopularity"]


class RecentPopularity:
    """Popularity with exponential decay: the weight of an interaction halves every half-life.

    Args:
        half_life: in days; 0 means no decay, which is plain popularity.

    Example:
        >>> day = 86_400.0
        >>> met = Histories.from_events([0, 1, 2], [0, 0, 1], [0.0, 0.0, 365 * day], num_users=3)
        >>> scores = RecentPopularity(half_life=180.0).fit(met.to_sparse(2), met).score([0], [0, 1])
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
        """Compute the decayed popularity at the time of the last interaction.

        Args:
            interactions: [U, I]; only I is used.
            features: histories with the times of all interactions.
            known: not used.

        Raises:
            InputError: no histories.
        """
        if features is None:
            raise InputError("RecentPopularity.fit: got no histories, expected choices with their times")
        trends = PopularityOverTime(features.items, features.time, interactions.shape[1], [self.half_life])
        self._scores_I: Floats32 = trends.latest[0]
        return self

    def with_histories(self, histories: sparse.csr_array) -> Self:
        """Return itself: everybody gets the same.

        Args:
            histories: [U, I], unused.
        """
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Decayed popularity of each item, the same for every user.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32.
        """
        return np.tile(self._scores_I[np.asarray(items, np.int64)], (len(np.asarray(users)), 1))
