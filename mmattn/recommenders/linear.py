"""Item weights in closed form: from co-occurrence (EASE), or by ridge regression on item content."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg, sparse

from mmattn.array_types import Floats32, Ints
from mmattn.errors import InputError
from mmattn.heads.recommendation.history_completion import complete_history_weights, cooccurrence_counts
from mmattn.recommenders.base import LinearRecommender, check_features, check_positive

__all__ = ["EASE", "ContentRidge", "KernelRidge"]


class EASE(LinearRecommender):
    """Item weights from co-occurrence in closed form; an item without interactions scores zero.

    H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, https://arxiv.org/abs/1905.03375

    Args:
        regularization: ridge penalty on the weights; 500 suits MovieLens-1M.

    Raises:
        InputError: a regularization of 0 or less.

    Example:
        >>> seen = sparse.csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1], [1, 0, 0]]))
        >>> EASE(1.0).fit(seen).score([3], [1, 2]).round(3).tolist()
        [[0.5, 0.0]]
    """

    def __init__(self, regularization: float = 500.0):
        self.regularization = check_positive("EASE: regularization", regularization)

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> Floats32:
        gram_WW = (history_UW.T @ history_UW).toarray().astype(np.float64)
        gram_WW[np.diag_indices(len(known_W))] += self.regularization
        inverse_WW = linalg.cho_solve(linalg.cho_factor(gram_WW, overwrite_a=True), np.eye(len(known_W)))
        weights_WW = -inverse_WW / np.diag(inverse_WW)
        np.fill_diagonal(weights_WW, 0.0)
        weights_WI = np.zeros((len(known_W), num_items), np.float32)
        weights_WI[:, known_W] = weights_WW
        return weights_WI


class KernelRidge(LinearRecommender):
    """Kernel ridge regression over items, with users as targets.

    The weights are (K_known + regularization I)^-1 K_known,all. `fit` takes the kernel [I, I] of the items'
    content as its features; `mmattn.recommenders.kernels` builds one. An item whose row is zero scores zero
    for every user.

    Args:
        regularization: ridge penalty.
        completion_dropout: if above 0, histories are first completed from the co-occurrence of known items;
            the dropout of `mmattn.heads.recommendation.history_completion.complete_history_weights`.
        completion_ridge: ridge penalty of that completion.

    Raises:
        InputError: a regularization of 0 or less.

    Example:
        >>> kernel = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> KernelRidge(1.0).fit(seen, kernel).score([0, 1], [2]).round(2)
        array([[ 0.27],
               [-0.07]], dtype=float32)
    """

    def __init__(
        self, regularization: float = 3.0, completion_dropout: float = 0.0, completion_ridge: float = 10.0
    ):
        self.regularization = check_positive(f"{type(self).__name__}: regularization", regularization)
        self.completion_dropout, self.completion_ridge = completion_dropout, completion_ridge

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> Floats32:
        kernel_II = check_features(type(self).__name__, features, num_items, is_kernel=True)
        weights_WI = self._solve(kernel_II[known_W], known_W)
        if not self.completion_dropout:
            return weights_WI
        together_WW = cooccurrence_counts(history_UW)
        return complete_history_weights(
            torch.from_numpy(weights_WI), together_WW, self.completion_dropout, self.completion_ridge
        ).numpy()

    def _solve(self, kernel_WI: NDArray[Any], known_W: Ints) -> Floats32:
        regular_WW = kernel_WI[:, known_W].astype(np.float64)
        regular_WW[np.diag_indices(len(known_W))] += self.regularization
        try:
            factor = linalg.cho_factor(regular_WW, overwrite_a=True)
        except linalg.LinAlgError as error:
            raise InputError(
                f"{type(self).__name__}.fit: the kernel plus {self.regularization:g} is not positive "
                f"definite, "
                "expected a kernel (a sum or an exponential of similarities)"
            ) from error
        return linalg.cho_solve(factor, kernel_WI.astype(np.float64), overwrite_b=True).astype(np.float32)


class ContentRidge(KernelRidge):
    """Linear ridge regression from item features [I, F] to the users who chose the item, without intercept.

    Solved in the dual (with the linear kernel), so that the cost hardly depends on F.

    Args:
        regularization: ridge penalty.

    Raises:
        InputError: a regularization of 0 or less.

    Example:
        >>> features = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> seen = sparse.csr_array(np.array([[1, 0, 0], [0, 1, 0]]))
        >>> ContentRidge(1.0).fit(seen, features).score([0, 1], [2]).tolist()
        [[0.5], [0.5]]
    """

    def __init__(self, regularization: float = 10.0):
        super().__init__(regularization)

    def _compute_weights(
        self, history_UW: sparse.csr_array, known_W: Ints, num_items: int, features: NDArray[Any] | None
    ) -> Floats32:
        features_IF = check_features(type(self).__name__, features, num_items).astype(np.float64)
        return self._solve(features_IF[known_W] @ features_IF.T, known_W)
