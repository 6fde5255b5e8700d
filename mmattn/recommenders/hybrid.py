"""Hybrid recommender that ranks warm and cold items in one list."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.recommenders.base import check_positive, known_items
from mmattn.recommenders.linear import EASE
from mmattn.recommenders.user_kernel import UserKernel, binarize, check_item_count

__all__ = ["BalancedEASE", "Hybrid"]


class BalancedEASE(EASE):
    """EASE with users weighted inversely to their activity, so that very active users do not dominate.

    A user with n interactions has the weight n^-activity_power (scaled to mean 1) in the co-occurrence matrix
    that EASE inverts. On MovieLens-1M this improves accuracy more than any tuning of the regularization.

    Paper: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019; users are weighted here as
    items are in Steck, "Autoencoders that don't overfit towards the Identity", 2020.

    Args:
        regularization: ridge penalty on the weights.
        activity_power: 0 gives EASE; with 1, a user's co-occurrences are divided by the history length.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]]))
        >>> BalancedEASE(1.0, activity_power=0.0).fit(seen).score([0], [1, 2]).astype(float).round(2).tolist()
        [[0.42, 0.15]]
        >>> BalancedEASE(1.0, activity_power=2.0).fit(seen).score([0], [1, 2]).astype(float).round(2).tolist()
        [[0.54, 0.1]]
    """

    def __init__(self, regularization: float = 700.0, activity_power: float = 0.5):
        self.regularization = check_positive("BalancedEASE: regularization", regularization)
        if not activity_power >= 0:
            raise InputError(f"BalancedEASE: balance: got {activity_power}, expected a number from 0")
        self.activity_power = activity_power

    @property
    def weights(self) -> Floats32:
        """[W, I] weight of each known item for the score of every item."""
        return np.asarray(self._weights_WI)

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> Floats32:
        length_U = np.diff(history_UW.indptr)
        weight_U = np.maximum(length_U, 1.0) ** -self.activity_power * (length_U > 0)
        weight_U /= weight_U[length_U > 0].mean() if length_U.any() else 1.0
        balanced_UW = sparse.csr_array(sparse.diags_array(np.sqrt(weight_U)) @ history_UW)
        return super()._compute_weights(balanced_UW, known_W, num_items, features)


class Hybrid:
    """One score for warm and cold items, from interactions and content.

    Three estimates of the probability that user u chooses item j are combined: co-occurrence with the items
    of the history (`BalancedEASE`), the choices of similar users (`UserKernel`), and content (weights between
    items from an item tower or a kernel). With n_j interactions of item j:

        trust_j     = n_j / (n_j + shrinkage)
        score(u, j) = trust_j (w users(u, j) + (1 - w) choices(u, j)) / n_j^p
                    + (1 - trust_j) content_scale content(u, j)

    where w is `user_weight` and p is `popularity_penalty`. This is the credibility formula of actuarial
    science: an item without interactions is scored by content alone, an item with many by its interactions,
    with a smooth transition. All three parts are in expected choices, so they share one scale.
    `content_scale` corrects for what the estimates do not model: a new item still has all its interactions
    ahead, while users have already seen most of the old items that match their taste.

    `UserKernel` bounds its own cost; the rest takes time W^3 and memory 12 W I bytes for W known items of I.
    A new user needs only a history (`score_histories`); for an empty history every score is 0.

    Papers: Steck 2019 and 2020 (see `BalancedEASE`); Sachdeva et al. 2022 (see `UserKernel`); Bühlmann,
    "Experience rating and credibility", 1967.

    Args:
        item_model: unfitted co-occurrence model; None means `BalancedEASE()`.
        user_model: unfitted user model; None means to leave this part out.
        user_weight: weight of the user model, from 0 to 1.
        shrinkage: interactions at which an item's interactions and its content weigh the same; 0 trusts a
            single interaction fully.
        content_scale: factor on the content scores.
        popularity_penalty: exponent by which the scores of popular items are reduced, because their fans have
            mostly chosen them already; 0 means no reduction.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]))
        >>> content = np.zeros((3, 4))
        >>> content[2, 3] = 0.5  # the new item 3 is like item 2
        >>> hybrid = Hybrid(BalancedEASE(1.0), user_weight=0.0).fit(seen, content, known=[0, 1, 2])
        >>> hybrid.score([0, 2], [1, 3]).astype(float).round(2).tolist()
        [[0.42, 0.0], [0.0, 0.5]]
    """

    def __init__(
        self,
        item_model: BalancedEASE | None = None,
        user_model: UserKernel | None = None,
        user_weight: float = 0.65,
        shrinkage: float = 1.0,
        content_scale: float = 1.0,
        popularity_penalty: float = 0.0,
    ):
        self.item_model = item_model or BalancedEASE()
        self.user_model = user_model
        self._set_weights(user_weight, shrinkage, content_scale, popularity_penalty)

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
        profiles: NDArray[Any] | None = None,
    ) -> Self:
        """Fit both models and set the content weights.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: [W, I] content weight of each known item for every item, in expected choices, as the
                weights of `mmattn.training.tasks.recommendation.Recommender`; None for no content, so that
                new items score 0.
            known: W ids of the known items, ascending; None means those with an interaction.
            profiles: [U, F] other features of the users, for the user model; None for none.

        Raises:
            InputError: content of another shape or not finite, or known items out of range.
        """
        known_W = known_items("Hybrid", interactions, known)
        ones_UI = binarize(interactions)
        self._known_W = known_W
        self._histories_UW = sparse.csr_array(ones_UI[:, known_W])
        chosen_I = np.zeros(interactions.shape[1])
        chosen_I[known_W] = np.bincount(self._histories_UW.indices, minlength=len(known_W))
        self._counts_I = chosen_I
        self.item_model.fit(ones_UI, known=known_W)
        if self.user_model is not None:
            self.user_model.fit(ones_UI, profiles, known_W)
        return self._set_content(features)

    def with_content(self, features: NDArray[Any] | None) -> Self:
        """Copy with other content weights and the same fitted models, for new content or a content ablation.

        Args:
            features: [W, I] content weights, as in `fit`; None for no content.

        Raises:
            InputError: content of another shape or not finite.
        """
        return copy.copy(self)._set_content(features)

    def with_weights(
        self,
        user_weight: float | None = None,
        shrinkage: float | None = None,
        content_scale: float | None = None,
        popularity_penalty: float | None = None,
    ) -> Self:
        """Copy with other mixture weights and the same fitted models.

        Args:
            user_weight: weight of the user model, from 0 to 1; None keeps the current value.
            shrinkage: as in the class; None keeps the current value.
            content_scale: as in the class; None keeps the current value.
            popularity_penalty: as in the class; None keeps the current value.

        Raises:
            InputError: a weight out of range.
        """
        other = copy.copy(self)
        other._set_weights(
            self.user_weight if user_weight is None else user_weight,
            self.shrinkage if shrinkage is None else shrinkage,
            self.content_scale if content_scale is None else content_scale,
            self.popularity_penalty if popularity_penalty is None else popularity_penalty,
        )
        return other._combine()

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users of the training data.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
        """
        users_B, items_C = np.asarray(users, np.int64), np.asarray(items, np.int64)
        scores_BC = np.asarray(self._histories_UW[users_B] @ self._weights_WI[:, items_C])
        if self.user_model is not None and self.user_weight:
            scores_BC += self.user_model.score(users_B, items_C) * self._user_scale_I[items_C]
        return scores_BC

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
        check_item_count("Hybrid", histories, len(self._counts_I))
        items_C = np.asarray(items, np.int64)
        ones_BI = binarize(histories)
        scores_BC = np.asarray(ones_BI[:, self._known_W] @ self._weights_WI[:, items_C])
        if self.user_model is not None and self.user_weight:
            scores_BC += self.user_model.score_histories(ones_BI, items_C) * self._user_scale_I[items_C]
        return scores_BC

    def _set_weights(
        self, user_weight: float, shrinkage: float, content_scale: float, popularity_penalty: float
    ) -> None:
        if not 0 <= user_weight <= 1 or not (
            shrinkage >= 0 and content_scale >= 0 and popularity_penalty >= 0
        ):
            raise InputError(
                f"Hybrid: got user_weight {user_weight}, shrinkage {shrinkage}, content_scale "
                f"{content_scale} and "
                f"popularity_penalty {popularity_penalty}, "
                "expected 0 to 1, and numbers from 0"
            )
        self.user_weight = user_weight if self.user_model is not None else 0.0
        self.shrinkage, self.content_scale, self.popularity_penalty = (
            shrinkage,
            content_scale,
            popularity_penalty,
        )

    def _set_content(self, features: NDArray[Any] | None) -> Self:
        shape = (len(self._known_W), len(self._counts_I))
        if features is not None and (features.shape != shape or not np.isfinite(features).all()):
            raise InputError(
                f"Hybrid.fit: got content of shape {features.shape}, expected finite numbers [{shape[0]}, "
                f"{shape[1]}], one row per known item and one column per item"
            )
        self._content_WI = None if features is None else features.astype(np.float32)
        return self._combine()

    def _combine(self) -> Self:
        """Merge the item model and the content into one weight matrix; both are linear in the history."""
        total_I = self._counts_I + self.shrinkage
        trust_I = np.divide(self._counts_I, total_I, out=np.zeros_like(total_I), where=total_I > 0)
        scale_I = trust_I * np.maximum(self._counts_I, 1) ** -self.popularity_penalty
        self._user_scale_I = (self.user_weight * scale_I).astype(np.float32)
        self._weights_WI = self.item_model.weights * ((1 - self.user_weight) * scale_I).astype(np.float32)
        if self._content_WI is not None:
            self._weights_WI += self._content_WI * ((1 - trust_I) * self.content_scale).astype(np.float32)
        return self
