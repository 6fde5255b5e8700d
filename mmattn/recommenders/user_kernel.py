"""Attention over users: who chose what I chose, weighed together, says what I would choose."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.recommenders.base import at_least_one, known_items, positive

__all__ = ["UserKernel", "as_ones", "check_width"]

_BLOCK = 1024  # rows of a kernel at a time: what passes through sparse products is ten times its size


class UserKernel:
    """Kernel ridge regression from histories to choices, each user left out of her own answer.

    With z a history weighted by rarity and brought to length 1, and a what else is known of a user (age
    group, occupation) likewise, two users are as alike as attention says,

        K_uv = exp(g (<z_u, z_v> - 1) + c (<a_u, a_v> - 1))
        P = (K + s diag(n^b / mean n^b))^-1        score(u) = -sum_{v != u} P_uv / P_uu x_v

    for users with n choices, x_v being those of v. That is what the regression on all other users predicts
    for u: known and new users get the same answer to the same history, in the same unit, the estimated
    chance that the item is among the choices. It is the decorrelated attention of `RecommendationHead`, with
    users in place of items. A user without a history is like nobody, teaches nothing, and scores 0
    everywhere; a new one of whom nothing else is known is judged by the history alone.

    Time V^3 and memory 12 V^2 bytes for V users to learn from, whatever the number of items: 20,000 users
    take 5 GB and some minutes. `most` bounds V; of more users, that many are drawn. A new user's scores take
    V^2, a known one's no more than a row of them.

    Papers: Sachdeva et al., "Infinite Recommendation Networks: A Data-Centric Approach", 2022 (regression
    from histories to choices with the kernel of an infinitely wide autoencoder,
    https://arxiv.org/abs/2206.02626); here the kernel is attention's.

    Args:
        strength: s of the ridge penalty, in units of a user's likeness to herself.
        sharpness: g: the larger, the fewer users are asked.
        rarity: an item that n users chose weighs n to the power of -rarity in z.
        balance: b: how much less is believed of the single choices of those who chose much.
        profile: c: how much it matters what else is known of users; 0 goes without.
        most: users to learn from, at most.
        seed: of the draw among more.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]))
        >>> kernel = UserKernel(strength=1.0).fit(seen)
        >>> kernel.score([0], [2, 3]).astype(float).round(2).tolist()
        [[0.27, 0.06]]
        >>> new = sparse.csr_array(np.array([[0, 0, 0, 1]]))
        >>> kernel.score_histories(new, [0, 3]).astype(float).round(2).tolist()
        [[0.04, 0.58]]
    """

    def __init__(
        self,
        strength: float = 5.0,
        sharpness: float = 2.0,
        rarity: float = 0.25,
        balance: float = 0.5,
        profile: float = 0.3,
        most: int = 20_000,
        seed: int = 0,
    ):
        self.strength = positive("UserKernel: strength", strength)
        self.sharpness = positive("UserKernel: sharpness", sharpness)
        for name, value in (("rarity", rarity), ("balance", balance), ("profile", profile)):
            if not 0 <= value:
                raise InputError(f"UserKernel: {name}: got {value}, expected a number from 0")
        self.rarity, self.balance, self.profile = rarity, balance, profile
        self.most = at_least_one("UserKernel: most", most)
        self.seed = seed

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """As `Recommender.fit`; items that are not known score 0.

        Args:
            interactions: [U, I].
            features: [U, F] what else is known of each user, such as ones for age group and occupation, zeros
                where nothing is; None for histories alone.
            known: ids of items.

        Raises:
            InputError: known items out of range, nobody with a history of them, features for others.
        """
        known_W = known_items("UserKernel", interactions, known)
        is_known_I = np.zeros(interactions.shape[1], bool)
        is_known_I[known_W] = True
        choices_UI = as_ones(interactions, is_known_I)
        counts_I = np.bincount(choices_UI.indices, minlength=interactions.shape[1])
        self._weight_I = is_known_I * np.maximum(counts_I, 1).astype(np.float32) ** -self.rarity
        teachers = np.flatnonzero(np.diff(choices_UI.indptr))
        if not len(teachers):
            raise InputError("UserKernel.fit: got no user with a known item, expected some to learn from")
        if len(teachers) > self.most:
            drawn = np.random.default_rng(self.seed).choice(teachers, self.most, replace=False)
            teachers = np.sort(drawn)
        if features is not None and (features.ndim != 2 or len(features) != interactions.shape[0]):
            raise InputError(
                f"UserKernel.fit: got features {features.shape}, expected [{interactions.shape[0]}, F], "
                "a row a user"
            )
        self._profile_UF = _unit_rows(features) if features is not None and self.profile else None
        self._teachers = teachers
        self._choices_UI = choices_UI
        self._taught_VI = choices_UI[teachers]
        self._place_U = np.full(interactions.shape[0], -1)
        self._place_U[teachers] = np.arange(len(teachers))
        self._unit_VI = self._unit(self._taught_VI)
        kernel_VV = torch.from_numpy(self._likeness(self._unit_VI, self._profiles(teachers)))
        doubt_V = np.diff(self._taught_VI.indptr).astype(np.float32) ** self.balance
        kernel_VV.diagonal().add_(torch.from_numpy(self.strength * doubt_V / doubt_V.mean()))
        self._inverse_VV = torch.cholesky_inverse(torch.linalg.cholesky(kernel_VV)).numpy()
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """As `Recommender.score`: the estimated chance of each choice, all users but oneself being asked."""
        users_B = np.asarray(users, np.int64)
        place_B = self._place_U[users_B]
        others = place_B < 0
        asked_BV = self._inverse_VV[place_B]
        itself = (np.flatnonzero(~others), place_B[~others])
        asked_BV[~others] /= -asked_BV[itself][:, None]
        asked_BV[itself] = 0
        asked_BV[others] = self._asked(self._choices_UI[users_B[others]], self._profiles(users_B[others]))
        return self._answer(asked_BV, np.asarray(items, np.int64))

    def score_histories(self, histories: sparse.csr_array, items: ArrayLike) -> Floats32:
        """[B, len(items)] for users that nothing was learned from.

        Args:
            histories: [B, I], a stored entry where the user chose the item.
            items: ids.

        Raises:
            InputError: histories over another number of items.
        """
        check_width("UserKernel", histories, len(self._weight_I))
        return self._answer(self._asked(as_ones(histories, self._weight_I > 0)), np.asarray(items, np.int64))

    def _profiles(self, users_B: Ints) -> Floats32 | None:
        return None if self._profile_UF is None else self._profile_UF[users_B]

    def _asked(self, choices_BI: sparse.csr_array, profile_BF: Floats32 | None = None) -> Floats32:
        """[B, V] how much of each teacher's choices a new user's answer holds."""
        likeness_BV = self._likeness(self._unit(choices_BI), profile_BF)
        likeness_BV[np.diff(choices_BI.indptr) == 0] = 0
        return likeness_BV @ self._inverse_VV

    def _answer(self, asked_BV: Floats32, items_C: Ints) -> Floats32:
        return np.ascontiguousarray((self._taught_VI[:, items_C].T @ asked_BV.T).T)

    def _unit(self, choices_BI: sparse.csr_array) -> sparse.csr_array:
        weighted_BI = sparse.csr_array(choices_BI @ sparse.diags_array(self._weight_I))
        length_B = np.sqrt(np.asarray(weighted_BI.multiply(weighted_BI).sum(1))).ravel()
        return sparse.csr_array(sparse.diags_array(1 / np.maximum(length_B, 1e-12)) @ weighted_BI)

    def _likeness(self, unit_BI: sparse.csr_array, profile_BF: Floats32 | None) -> Floats32:
        """[B, V] K of these users and the teachers; without profiles, as if alike in all that is known."""
        teachers_IV = self._unit_VI.T.tocsr()
        likeness_BV = np.empty((unit_BI.shape[0], teachers_IV.shape[1]), np.float32)
        for start in range(0, len(likeness_BV), _BLOCK):
            likeness_BV[start : start + _BLOCK] = (unit_BI[start : start + _BLOCK] @ teachers_IV).toarray()
        likeness_BV -= 1
        likeness_BV *= self.sharpness
        if self._profile_UF is not None and profile_BF is not None:
            likeness_BV += self.profile * (profile_BF @ self._profile_UF[self._teachers].T - 1)
        return np.exp(likeness_BV, out=likeness_BV)


def _unit_rows(features: NDArray[Any]) -> Floats32:
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def check_width(name: str, histories: sparse.csr_array, items: int) -> None:
    """Are these histories over as many items as were fitted?

    Raises:
        InputError: they are not.
    """
    if histories.shape[1] != items:
        raise InputError(f"{name}: got histories over {histories.shape[1]} items, expected {items}")


def as_ones(interactions: sparse.csr_array, kept: NDArray[Any] | None = None) -> sparse.csr_array:
    """[U, I] float32 ones where the user chose the item, once or often.

    Args:
        interactions: [U, I], a stored entry where the user chose the item.
        kept: [I] True for the items that count; by default all.

    Example:
        >>> as_ones(sparse.csr_array(np.array([[5, 2], [0, 1]])), np.array([True, False])).toarray().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    ones = interactions.astype(np.float32, copy=True).tocsr()
    ones.sum_duplicates()
    ones.data[:] = 1 if kept is None else kept[ones.indices]
    ones.eliminate_zeros()
    return ones
