"""Rival recommenders, strong on purpose: a rival left weak proves nothing.

All but popularity are linear in the user's history: score = history [U, W] @ weights [W, I], where W
are the items whose interactions are known. They differ in where the weights come from: other users'
choices (EASE), or the items' content (ridge, nearest neighbours, kernel ridge), which reaches cold items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, sparse

from mmattn.errors import InputError

__all__ = ["EASE", "ContentKNN", "ContentRidge", "KernelRidge", "Popularity", "Recommender"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


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

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """[len(users), len(items)] float32, higher is better, comparable within a user."""
        ...


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
        """As `Recommender.fit`; features are not used."""
        self._counts_I = np.bincount(interactions.indices, minlength=interactions.shape[1]).astype(np.float32)
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """As `Recommender.score`: the number of users who chose the item, the same for everybody."""
        counts = self._counts_I[np.asarray(items, np.int64)]
        return np.tile(counts, (len(np.asarray(users)), 1))


class _HistoryLinear(ABC):
    """score = history @ weights; a subclass says what the weights [W, I] are."""

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """As `Recommender.fit`.

        Raises:
            InputError: features that do not fit the items, or known items out of range.
        """
        if known is None:
            known_W = np.flatnonzero(np.bincount(interactions.indices, minlength=interactions.shape[1]))
        else:
            known_W = np.asarray(known, np.int64)
        if not len(known_W) or known_W.min() < 0 or known_W.max() >= interactions.shape[1]:
            raise InputError(
                f"{type(self).__name__}.fit: got {len(known_W)} known items, expected some of 0 to "
                f"{interactions.shape[1] - 1}"
            )
        history_UW = sparse.csr_array(interactions[:, known_W].astype(np.float32))
        history_UW.data[:] = 1
        self._history_UW = history_UW
        self._weights_WI = self._weights(history_UW, known_W, interactions.shape[1], features)
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats:
        """As `Recommender.score`."""
        weights = self._weights_WI[:, np.asarray(items, np.int64)]
        scores = self._history_UW[np.asarray(users, np.int64)] @ weights
        return scores if isinstance(scores, np.ndarray) else scores.toarray()

    @abstractmethod
    def _weights(
        self, history_UW: sparse.csr_array, known_W: Ints, items: int, features: NDArray[Any] | None
    ) -> Floats | sparse.csr_array: ...

    def _need(self, features: NDArray[Any] | None, items: int, square: bool = False) -> NDArray[Any]:
        expected = f"[{items}, {items}]" if square else f"[{items}, F]"
        if features is None:
            raise InputError(f"{type(self).__name__}.fit: got no features, expected {expected}")
        if features.ndim != 2 or len(features) != items or (square and features.shape[1] != items):
            raise InputError(f"{type(self).__name__}.fit: got features {features.shape}, expected {expected}")
        if not np.isfinite(features).all():
            raise InputError(
                f"{type(self).__name__}.fit: got features that are not finite, expected zeros where content "
                "is absent"
            )
        return features


class EASE(_HistoryLinear):
    """Item weights from co-choice in closed form; an item nobody chose scores zero.

    H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, https://arxiv.org/abs/1905.03375

    Args:
        strength: of the ridge penalty on the weights; 500 suits MovieLens-1M.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]))
        >>> EASE(1.0).fit(seen).score([3], [1, 2]).round(3).tolist()
        [[0.5, 0.0]]
    """

    def __init__(self, strength: float = 500.0):
        self.strength = _positive("EASE: strength", strength)

    def _weights(
        self, history_UW: sparse.csr_array, known_W: Ints, items: int, features: NDArray[Any] | None
    ) -> Floats:
        gram_WW = (history_UW.T @ history_UW).toarray().astype(np.float64)
        gram_WW[np.diag_indices(len(known_W))] += self.strength
        inverse_WW = linalg.cho_solve(linalg.cho_factor(gram_WW, overwrite_a=True), np.eye(len(known_W)))
        weights_WW = -inverse_WW / np.diag(inverse_WW)
        np.fill_diagonal(weights_WW, 0.0)
        weights_WI = np.zeros((len(known_W), items), np.float32)
        weights_WI[:, known_W] = weights_WW
        return weights_WI


class KernelRidge(_HistoryLinear):
    """Ridge over items with users as targets: weights (K_known + strength)^-1 K_known,all.

    `fit` takes the kernel [I, I] of the items' content as its features; `mmattn.heads.kernels` makes one.
    An item whose row is zero scores zero for everybody.

    Args:
        strength: of the ridge penalty.

    Example:
        >>> kernel = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> KernelRidge(1.0).fit(seen, kernel).score([0, 1], [2]).round(2)
        array([[ 0.27],
               [-0.07]], dtype=float32)
    """

    def __init__(self, strength: float = 3.0):
        self.strength = _positive(f"{type(self).__name__}: strength", strength)

    def _weights(
        self, history_UW: sparse.csr_array, known_W: Ints, items: int, features: NDArray[Any] | None
    ) -> Floats:
        return self._solve(self._need(features, items, square=True)[known_W], known_W)

    def _solve(self, kernel_WI: NDArray[Any], known_W: Ints) -> Floats:
        regular_WW = kernel_WI[:, known_W].astype(np.float64)
        regular_WW[np.diag_indices(len(known_W))] += self.strength
        try:
            factor = linalg.cho_factor(regular_WW, overwrite_a=True)
        except linalg.LinAlgError as error:
            raise InputError(
                f"{type(self).__name__}.fit: the kernel plus {self.strength:g} is not positive definite, "
                "expected a kernel (a sum or an exponential of similarities)"
            ) from error
        return linalg.cho_solve(factor, kernel_WI.astype(np.float64), overwrite_b=True).astype(np.float32)


class ContentRidge(KernelRidge):
    """Linear ridge from an item's features [I, F] to the users who chose it, no intercept.

    Solved in the dual (the linear kernel), so that wide features cost nothing more.

    Args:
        strength: of the ridge penalty.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> ContentRidge(1.0).fit(seen, features).score([0, 1], [2]).tolist()
        [[0.5], [0.5]]
    """

    def __init__(self, strength: float = 10.0):
        super().__init__(strength)

    def _weights(
        self, history_UW: sparse.csr_array, known_W: Ints, items: int, features: NDArray[Any] | None
    ) -> Floats:
        features_IF = self._need(features, items).astype(np.float64)
        return self._solve(features_IF[known_W] @ features_IF.T, known_W)


class ContentKNN(_HistoryLinear):
    """An item scores the summed cosine of its nearest known items in the user's history.

    Args:
        neighbours: how many known items each item listens to, itself left out.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> ContentKNN(1).fit(seen, features).score([0, 1], [2]).round(4)
        array([[0. ],
               [0.8]], dtype=float32)
    """

    def __init__(self, neighbours: int = 50):
        if neighbours < 1:
            raise InputError(f"ContentKNN: neighbours: got {neighbours}, expected at least 1")
        self.neighbours = neighbours

    def _weights(
        self, history_UW: sparse.csr_array, known_W: Ints, items: int, features: NDArray[Any] | None
    ) -> sparse.csr_array:
        features_IF = self._need(features, items).astype(np.float32)
        unit_IF = features_IF / np.maximum(np.linalg.norm(features_IF, axis=1, keepdims=True), 1e-12)
        similar_IW = unit_IF @ unit_IF[known_W].T
        similar_IW[known_W, np.arange(len(known_W))] = -np.inf
        kept = min(self.neighbours, len(known_W))
        nearest_IK = np.argpartition(-similar_IW, kept - 1, axis=1)[:, :kept]
        weights_IK = np.take_along_axis(similar_IW, nearest_IK, 1).clip(min=0)
        rows_IK = np.repeat(np.arange(items), kept)
        weights_WI = sparse.csr_array(
            (weights_IK.ravel(), (nearest_IK.ravel(), rows_IK)), shape=(len(known_W), items)
        )
        weights_WI.eliminate_zeros()
        return weights_WI


def _positive(what: str, value: float) -> float:
    if not value > 0:
        raise InputError(f"{what}: got {value}, expected a number above 0")
    return value
