"""Popularity: the non-personalized baseline."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32

__all__ = ["Popularity"]


class Popularity:
    """Rank items by their number of interactions, the same for every user.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 0, 0]]))
        >>> Popularity().fit(seen).score([1], [0, 1, 2])
        array([[2., 1., 0.]], dtype=float32)
    """

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """Count the interactions of each item.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: not used.
            known: not used.
        """
        self._counts_I = np.bincount(interactions.indices, minlength=interactions.shape[1]).astype(np.float32)
        return self

    def with_histories(self, histories: sparse.csr_array) -> Self:
        """Return itself: everybody gets the same.

        Args:
            histories: [U, I], unused.
        """
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Number of users who chose each item, the same for every user.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32.
        """
        counts = self._counts_I[np.asarray(items, np.int64)]
        return np.tile(counts, (len(np.asarray(users)), 1))
