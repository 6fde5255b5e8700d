"""Kernel regression over users: items are predicted from the choices of similar users."""

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

_BLOCK_SIZE = 1024  # rows of the kernel per block: sparse products take ten times the memory of their result


class UserKernel:
    """Kernel ridge regression from histories to choices, with each user left out of their own prediction.

    Let z be a history weighted by rarity and a the other features of a user (age group, occupation), both
    scaled to length 1. The kernel between users has the form of attention weights,

        K_uv = exp(g (<z_u, z_v> - 1) + c (<a_u, a_v> - 1))
        P = (K + s diag(n^b / mean n^b))^-1        score(u) = -sum_{v != u} P_uv / P_uu x_v

    for users with n choices, where x_v are the choices of v. This is the leave-one-out prediction of the
    regression on all other users. Known and new users with the same history thus get the same scores, in the
    unit of an estimated probability that the item is chosen. It is the decorrelated attention of
    `RecommendationHead` with users in place of items. Users without a history are not trained on and score 0
    everywhere; a new user without other features is scored by the history alone.

    Fitting takes time V^3 and memory 12 V^2 bytes for V training users, whatever the number of items: 20,000
    users take 5 GB and a few minutes. `max_users` bounds V; if there are more users, a random subset is used.
    The scores of a new user take time V^2, those of a training user time V.

    Paper: Sachdeva et al., "Infinite Recommendation Networks: A Data-Centric Approach", 2022 (regression
    from histories to choices with the kernel of an infinitely wide autoencoder,
    https://arxiv.org/abs/2206.02626); here the kernel has the form of attention.

    Args:
        regularization: s, ridge penalty relative to K_uu = 1.
        kernel_scale: g; larger values concentrate on fewer, more similar users.
        idf_power: an item that n users chose has the weight n^-idf_power in z.
        activity_power: b; larger values regularize users with many choices more strongly.
        profile_scale: c, weight of the other features of users; 0 ignores them.
        max_users: maximum number of training users V.
        seed: seed of the random subset.

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
        """Fit the regression; items that are not known score 0.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: [U, F] other features of each user, for example one-hot age group and occupation, zeros
                where unknown; None for histories alone.
            known: ids of the known items; None means those with an interaction.

        Raises:
            InputError: known items out of range, no user with a known item, or features of another shape.
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
                "one row per user"
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
        """Estimated probability of each choice, from all users but the user itself.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
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
        """Score items for users given by their histories, which need not be in the training data.

        Args:
            histories: [B, I], a stored entry where the user chose the item.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.

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
        """[B, V] coefficient of each training user in the prediction of a new user."""
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
        """[B, V] kernel K between these and the training users; without profiles, these count as equal."""
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
    """Check that histories cover the number of items of the fit.

    Args:
        owner: class name for the error message.
        histories: [B, I].
        num_items: expected I.

    Raises:
        InputError: the numbers differ.
    """
    if histories.shape[1] != num_items:
        raise InputError(f"{owner}: got histories over {histories.shape[1]} items, expected {num_items}")


def binarize(interactions: sparse.csr_array, item_mask: NDArray[Any] | None = None) -> sparse.csr_array:
    """Copy of the interactions with float32 ones, duplicates merged.

    Args:
        interactions: [U, I], a stored entry where the user chose the item.
        item_mask: [I] True for the items to keep; None means all.

    Returns:
        [U, I] float32.

    Example:
        >>> binarize(sparse.csr_array(np.array([[5, 2], [0, 1]])), np.array([True, False])).toarray().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    ones = interactions.astype(np.float32, copy=True).tocsr()
    ones.sum_duplicates()
    ones.data[:] = 1 if item_mask is None else item_mask[ones.indices]
    ones.eliminate_zeros()
    return ones
