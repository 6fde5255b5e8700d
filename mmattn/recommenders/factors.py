"""Rivals whose score is a product of two vectors: one of the user, one of the item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats32

__all__ = ["Factors"]


@dataclass(frozen=True, eq=False)
class Factors:
    """score = users @ items.T + bias.

    Args:
        users: [U, K].
        items: [I, K].
        bias: [I].

    Example:
        >>> factors = Factors(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 0.5]))
        >>> factors.score([1], [0, 1]).tolist()
        [[2.0, 4.5]]
    """

    users: Floats32
    items: Floats32
    bias: Floats32

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """[len(users), len(items)] float32.

        Args:
            users: [N] users.
            items: [C] items.
        """
        chosen = np.asarray(items, np.int64)
        scores = self.users[np.asarray(users, np.int64)] @ self.items[chosen].T + self.bias[chosen]
        return scores.astype(np.float32, copy=False)
