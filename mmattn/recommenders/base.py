"""What every rival is, and what most share: a score that is linear in the user's history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError

__all__ = [
    "LinearRecommender",
    "Recommender",
    "check_at_least_one",
    "check_features",
    "check_positive",
    "known_items",
]


class Recommender(Protocol):
    """What the evaluation asks of a system: fit once, then score any users and items."""

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """Learn from the known interactions.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: content of all I items, as the class says; None where it uses none.
            known: ids of the items that were there to be chosen; by default those that anybody chose.
                Cold items must not be among them: that nobody chose them yet says nothing.
        """
        ...

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """[len(users), len(items)] float32, higher is better, comparable within a user.

        Args:
            users: [N] users.
            items: [C] items.
        """
        ...


class LinearRecommender(ABC):
    """score = history @ weights; a subclass says what the weights [W, I] are."""

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """As `Recommender.fit`.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: content of all I items, as the class says.
            known: items that were there to be chosen; None for those that anybody chose.

        Raises:
            InputError: features that do not fit the items, or known items out of range.
        """
        known_W = known_items(type(self).__name__, interactions, known)
        history_UW = sparse.csr_array(interactions[:, known_W].astype(np.float32))
        history_UW.data[:] = 1
        self._known_W, self._history_UW = known_W, history_UW
        self._weights_WI = self._compute_weights(history_UW, known_W, interactions.shape[1], features)
        return self

    def with_histories(self, histories: sparse.csr_array) -> Self:
        """Answer users with these histories; nothing is learned, so that they may be new users.

        Args:
            histories: [U, I], a stored entry where the user chose the item.
        """
        asked = copy(self)
        asked._history_UW = sparse.csr_array(histories[:, self._known_W].astype(np.float32))
        asked._history_UW.data[:] = 1
        return asked

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """As `Recommender.score`.

        Args:
            users: [N] users.
            items: [C] items.
        """
        weights = self._weights_WI[:, np.asarray(items, np.int64)]
        scores = self._history_UW[np.asarray(users, np.int64)] @ weights
        return scores if isinstance(scores, np.ndarray) else scores.toarray()

    @abstractmethod
    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> Floats32 | sparse.csr_array: ...


def known_items(owner: str, interactions: sparse.csr_array, known: ArrayLike | None) -> Ints:
    """Return the known items; by default those that anybody chose.

    Args:
        owner: begins the message.
        interactions: [U, I].
        known: as a user gave them; None for the default.

    Raises:
        InputError: there are none, or some are out of range.
    """
    if known is None:
        known_W = np.flatnonzero(np.bincount(interactions.indices, minlength=interactions.shape[1]))
    else:
        known_W = np.asarray(known, np.int64)
    if not len(known_W) or known_W.min() < 0 or known_W.max() >= interactions.shape[1]:
        raise InputError(
            f"{owner}.fit: got {len(known_W)} known items, expected some of 0 to {interactions.shape[1] - 1}"
        )
    return known_W


def check_features(
    owner: str, features: NDArray[Any] | None, num_items: int, is_kernel: bool = False
) -> NDArray[Any]:
    """Check the features, [items, F], or the kernel, [items, items] if `is_kernel`.

    Args:
        owner: begins the message.
        features: as a user gave them.
        num_items: number of items.
        is_kernel: whether they are a kernel.

    Raises:
        InputError: there are none, their shape is another one, or they are not finite.
    """
    expected = f"[{num_items}, {num_items}]" if is_kernel else f"[{num_items}, F]"
    if features is None:
        raise InputError(f"{owner}.fit: got no features, expected {expected}")
    if features.ndim != 2 or len(features) != num_items or (is_kernel and features.shape[1] != num_items):
        raise InputError(f"{owner}.fit: got features {features.shape}, expected {expected}")
    if not np.isfinite(features).all():
        raise InputError(
            f"{owner}.fit: got features that are not finite, expected zeros where content is absent"
        )
    return features


def check_positive(name: str, value: float) -> float:
    """Return the value if it is above 0.

    Args:
        name: of the value, for the message.
        value: the value.

    Raises:
        InputError: it is not above 0.
    """
    if not value > 0:
        raise InputError(f"{name}: got {value}, expected a number above 0")
    return value


def check_at_least_one(name: str, value: int) -> int:
    """Return the value if it is at least 1.

    Args:
        name: of the value, for the message.
        value: the value.

    Raises:
        InputError: it is below 1.
    """
    if value < 1:
        raise InputError(f"{name}: got {value}, expected at least 1")
    return value
