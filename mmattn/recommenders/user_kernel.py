"""Attention over users: who chose what I chose, weighed together, says what I would choose."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.recommenders.base import check_at_least_one, check_positive, known_items

__all__ = ["UserKernel", "binarize", "check_item_count"]

_BLOCK_SIZE = 1024  # rows of a kernel at a time: what passes through sparse products is ten times its size


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
    take 5 GB and some minutes. `max_users` bounds V; of more users, that many are drawn. A new user's scores
    take V^2, a known one's no more than a row of them.

    Papers: Sachdeva et al., "Infinite Recommendation Networks: A Data-Centric Approach", 2022 (regression
    from histories to choices with the kernel of an infinitely wide autoencoder,
    https://arxiv.org/abs/2206.02626); here the kernel is attention's.

    Args:
        regularization: s of the ridge penalty, in units of a user's likeness to herself.
        kernel_scale: g: the larger, the fewer users are asked.
        idf_power: an item that n users chose weighs n to the power of -rarity in z.
        activity_power: b: how much less is believed of the single choices of those who chose much.
        profile_scale: c: how much it matters what else is known of users; 0 goes without.
        max_users: users to learn from, at most.
        seed: of the draw among more.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]))
        >>> kernel = UserKernel(regularization=1.0).fit(seen)
        >>> kernel.score([0], [2, 3]).astype(float).round(2).tolist()
        [[0.27, 0.06]]
        >>> new = sparse.csr_array(np.array([[0, 0, 0, 1]]))
        >>> kernel.score_histories(new, [0, 3]).astype(float).round(2).tolist()
        [[0.04, 0.58]]
    """

    def __init__(
        self,
        regularization: float = 5.0,
        kernel_scale: float = 2.0,
        idf_power: float = 0.25,
        activity_power: float = 0.5,
        profile_scale: float = 0.3,
        max_users: int = 20_000,
        seed: int = 0,
    ):
        self.regularization = check_positive("UserKernel: regularization", regularization)
        self.kernel_scale = check_positive("UserKernel: sharpness", kernel_scale)
        for name, value in (("rarity", idf_power), ("balance", activity_power), ("profile", profile_scale)):
            if not 0 <= value:
                raise InputError(f"UserKernel: {name}: got {value}, expected a number from 0")
        self.idf_power, self.activity_power, self.profile_scale = idf_power, activity_power, profile_scale
        self.max_users = check_at_least_one("UserKernel: most", max_users)
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
        choices_UI = binarize(interactions, is_known_I)
        counts_I = np.bincount(choices_UI.indices, minlength=interactions.shape[1])
        self._weight_I = is_known_I * np.maximum(counts_I, 1).astype(np.float32) ** -self.idf_power
        teachers = np.flatnonzero(np.diff(choices_UI.indptr))
        if not len(teachers):
            raise InputError("UserKernel.fit: got no user with a known item, expected some to learn from")
        if len(teachers) > self.max_users:
            drawn = np.random.default_rng(self.seed).choice(teachers, self.max_users, replace=False)
            teachers = np.sort(drawn)
        if features is not None and (features.ndim != 2 or len(features) != interactions.shape[0]):
            raise InputError(
                f"UserKernel.fit: got features {features.shape}, expected [{interactions.shape[0]}, F], "
                "a row a user"
            )
        self._profile_UF = _normalize_rows(features) if features is not None and self.profile_scale else None
        self._train_users = teachers
        self._choices_UI = choices_UI
        self._train_choices_VI = choices_UI[teachers]
        self._train_row_U = np.full(interactions.shape[0], -1)
        self._train_row_U[teachers] = np.arange(len(teachers))
        self._unit_VI = self._normalize(self._train_choices_VI)
        kernel_VV = torch.from_numpy(self._kernel(self._unit_VI, self._profiles(teachers)))
        doubt_V = np.diff(self._train_choices_VI.indptr).astype(np.float32) ** self.activity_power
        kernel_VV.diagonal().add_(torch.from_numpy(self.regularization * doubt_V / doubt_V.mean()))
        self._inverse_VV = torch.cholesky_inverse(torch.linalg.cholesky(kernel_VV)).numpy()
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items as `Recommender.score`: the estimated probability of each choice, from all other users.

        Args:
            users: [N] users.
            items: [C] items.
        """
        users_B = np.asarray(users, np.int64)
        place_B = self._train_row_U[users_B]
        others = place_B < 0
        asked_BV = self._inverse_VV[place_B]
        itself = (np.flatnonzero(~others), place_B[~others])
        asked_BV[~others] /= -asked_BV[itself][:, None]
        asked_BV[itself] = 0
        asked_BV[others] = self._dual_coefficients(
            self._choices_UI[users_B[others]], self._profiles(users_B[others])
        )
        return self._predict(asked_BV, np.asarray(items, np.int64))

    def score_histories(self, histories: sparse.csr_array, items: ArrayLike) -> Floats32:
        """[B, len(items)] for users that nothing was learned from.

        Args:
            histories: [B, I], a stored entry where the user chose the item.
            items: ids.

        Raises:
            InputError: histories over another number of items.
        """
        check_item_count("UserKernel", histories, len(self._weight_I))
        return self._predict(
            self._dual_coefficients(binarize(histories, self._weight_I > 0)), np.asarray(items, np.int64)
        )

    def _profiles(self, users_B: Ints) -> Floats32 | None:
        return None if self._profile_UF is None else self._profile_UF[users_B]

    def _dual_coefficients(
        self, choices_BI: sparse.csr_array, profile_BF: Floats32 | None = None
    ) -> Floats32:
        """[B, V] how much of each teacher's choices a new user's answer holds."""
        likeness_BV = self._kernel(self._normalize(choices_BI), profile_BF)
        likeness_BV[np.diff(choices_BI.indptr) == 0] = 0
        return likeness_BV @ self._inverse_VV

    def _predict(self, coefficients_BV: Floats32, items_C: Ints) -> Floats32:
        return np.ascontiguousarray((self._train_choices_VI[:, items_C].T @ coefficients_BV.T).T)

    def _normalize(self, choices_BI: sparse.csr_array) -> sparse.csr_array:
        weighted_BI = sparse.csr_array(choices_BI @ sparse.diags_array(self._weight_I))
        length_B = np.sqrt(np.asarray(weighted_BI.multiply(weighted_BI).sum(1))).ravel()
        return sparse.csr_array(sparse.diags_array(1 / np.maximum(length_B, 1e-12)) @ weighted_BI)

    def _kernel(self, unit_BI: sparse.csr_array, profile_BF: Floats32 | None) -> Floats32:
        """[B, V] K of these users and the teachers; without profiles, as if alike in all that is known."""
        teachers_IV = self._unit_VI.T.tocsr()
        likeness_BV = np.empty((unit_BI.shape[0], teachers_IV.shape[1]), np.float32)
        for start in range(0, len(likeness_BV), _BLOCK_SIZE):
            likeness_BV[start : start + _BLOCK_SIZE] = (
                unit_BI[start : start + _BLOCK_SIZE] @ teachers_IV
            ).toarray()
        likeness_BV -= 1
        likeness_BV *= self.kernel_scale
        if self._profile_UF is not None and profile_BF is not None:
            likeness_BV += self.profile_scale * (profile_BF @ self._profile_UF[self._train_users].T - 1)
        return np.exp(likeness_BV, out=likeness_BV)


def _normalize_rows(features: NDArray[Any]) -> Floats32:
    rows = np.asarray(features, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def check_item_count(owner: str, histories: sparse.csr_array, num_items: int) -> None:
    """Check that histories are over as many items as were fitted.

    Args:
        owner: begins the message.
        histories: [U, I].
        num_items: number of items that were fitted.

    Raises:
        InputError: they are not.
        InputError: another number of items.
    """
    if histories.shape[1] != num_items:
        raise InputError(f"{owner}: got histories over {histories.shape[1]} items, expected {num_items}")


def binarize(interactions: sparse.csr_array, item_mask: NDArray[Any] | None = None) -> sparse.csr_array:
    """[U, I] float32 ones where the user chose the item, once or often.

    Args:
        interactions: [U, I], a stored entry where the user chose the item.
        item_mask: [I] True for the items that count; by default all.

    Example:
        >>> binarize(sparse.csr_array(np.array([[5, 2], [0, 1]])), np.array([True, False])).toarray().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    ones = interactions.astype(np.float32, copy=True).tocsr()
    ones.sum_duplicates()
    ones.data[:] = 1 if item_mask is None else item_mask[ones.indices]
    ones.eliminate_zeros()
    return ones
