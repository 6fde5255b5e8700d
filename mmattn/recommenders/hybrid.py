"""Warm and cold items in one list: co-choice, attention over users, and content where both are thin."""

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
    """EASE in which those who chose a thousand items do not speak for everybody.

    A user with n choices weighs n to the power of -balance (in the mean, 1): each pair of items is counted so
    in the co-choice that EASE inverts. On MovieLens-1M that is worth more than any tuning of the strength.

    Paper: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019; users are weighed as items are
    in Steck, "Autoencoders that don't overfit towards the Identity", 2020.

    Args:
        regularization: of the ridge penalty on the weights.
        activity_power: 0 is EASE; 1 gives every user the same weight, however much they chose.

    Raises:
        InputError: a negative `activity_power`.

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
        """[W, I] what each known item says of every item."""
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
    """One score for every item, from whatever is known of it.

    Three estimates of the chance that user u chooses item j: from the items that were chosen together with
    those of the history (`BalancedEASE`), from the users who chose alike (`UserKernel`), and from content,
    where an item tower or a kernel says what each known item tells of j. How far choices are believed rests
    on how many there are: with n_j of them,

        trust_j     = n_j / (n_j + evidence)
        score(u, j) = trust_j (w users(u, j) + (1 - w) choices(u, j)) / n_j^penalty
                    + (1 - trust_j) lift content(u, j)

    the credibility formula of insurers: an item that nobody chose is judged by its content alone, one that
    thousands chose by their choices, and nowhere between is a switch. All three parts are in expected
    choices, so that they share a list; `content_scale` is for what they cannot know, that a new item has its
    whole life before it while a user has seen most of what is old and fits.

    The users' part bounds its own size (see `UserKernel`); the rest takes time W^3 and memory 12 W I bytes,
    for W known ones of I items. A new user needs a history only (`score_histories`); without any, everything
    scores 0.

    Papers: Steck 2019 and 2020 (see `BalancedEASE`); Sachdeva et al. 2022 (see `UserKernel`); Bühlmann,
    "Experience rating and credibility", 1967.

    Args:
        item_model: the items' part, to be fitted.
        user_model: the users' part, to be fitted; None goes without.
        user_weight: of the users' part, from 0 to 1.
        shrinkage: choices that an item needs before they count half; 0 believes the first.
        content_scale: factor on what content says.
        popularity_penalty: how much is taken from items that many chose. Whoever likes what all like has
            mostly met it.

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
        """As `Recommender.fit`.

        Args:
            interactions: [U, I].
            features: [W, I] what each known item says of every item, in choices, as the weights of
                `mmattn.training.tasks.recommendation.Recommender` are; None for no content: then new items
                score 0.
            known: W ids, ascending; by default those that anybody chose.
            profiles: [U, F] what else is known of users, for the users' part.

        Raises:
            InputError: content for other items than these, or that is not finite.
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
        """The same with another content, nothing being fitted again: for a catalogue of the same items whose
        content changed, or was taken away to see what it is worth. As `features` of `fit`.

        Args:
            features: [known, I] weights between items from their content; None for no content.
        """
        return copy.copy(self)._set_content(features)

    def with_weights(
        self,
        user_weight: float | None = None,
        shrinkage: float | None = None,
        content_scale: float | None = None,
        popularity_penalty: float | None = None,
    ) -> Self:
        """Return the same fitted parts with other weights; what is left out stays.

        Args:
            user_weight: of the users' part.
            shrinkage: interactions before an item counts as much as its content.
            content_scale: factor on the content.
            popularity_penalty: discount of popular items.
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
        """As `Recommender.score`.

        Args:
            users: [N] users.
            items: [C] items.
        """
        users_B, items_C = np.asarray(users, np.int64), np.asarray(items, np.int64)
        scores_BC = np.asarray(self._histories_UW[users_B] @ self._weights_WI[:, items_C])
        if self.user_model is not None and self.user_weight:
            scores_BC += self.user_model.score(users_B, items_C) * self._user_scale_I[items_C]
        return scores_BC

    def score_histories(self, histories: sparse.csr_array, items: ArrayLike) -> Floats32:
        """[B, len(items)] for users that nothing was learned from.

        Args:
            histories: [B, I], a stored entry where the user chose the item.
            items: ids.

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
                f"{shape[1]}], a row a known item and a column an item"
            )
        self._content_WI = None if features is None else features.astype(np.float32)
        return self._combine()

    def _combine(self) -> Self:
        """Two of the three parts are linear in the history, and so are one matrix."""
        heard_I = self._counts_I + self.shrinkage
        trust_I = np.divide(self._counts_I, heard_I, out=np.zeros_like(heard_I), where=heard_I > 0)
        heeded_I = trust_I * np.maximum(self._counts_I, 1) ** -self.popularity_penalty
        self._user_scale_I = (self.user_weight * heeded_I).astype(np.float32)
        self._weights_WI = self.item_model.weights * ((1 - self.user_weight) * heeded_I).astype(np.float32)
        if self._content_WI is not None:
            self._weights_WI += self._content_WI * ((1 - trust_I) * self.content_scale).astype(np.float32)
        return self
