"""Scores as inner products of user and item vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats32

__all__ = ["Factors"]


@dataclass(frozen=True, eq=False)
class Factors:
    """User and item vectors with score = users @ items.T + bias.

    Args:
        users: [U, K] user vectors.
        items: [I, K] item vectors.
        bias: [I] item biases.

    Example:
        >>> factors = Factors(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 0.5]))
        >>> factors.score([1], [0, 1]).tolist()
        [[2.0, 4.5]]
    """

    users: Floats32
    items: Floats32
    bias: Floats32

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
        """
        chosen = np.asarray(items, np.int64)
        scores = self.users[np.asarray(users, np.int64)] @ self.items[chosen].T + self.bias[chosen]
        return scores.astype(np.float32, copy=False)
