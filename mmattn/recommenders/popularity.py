"""The rival that knows nobody: what most users chose."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32

__all__ = ["Popularity"]


class Popularity:
    """Every user gets what most users chose.

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
        """As `Recommender.fit`; features are not used.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: unused.
            known: unused.
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
        """As `Recommender.score`: the number of users who chose the item, the same for everybody.

        Args:
            users: [N] users.
            items: [C] items.
        """
        counts = self._counts_I[np.asarray(items, np.int64)]
        return np.tile(counts, (len(np.asarray(users)), 1))
