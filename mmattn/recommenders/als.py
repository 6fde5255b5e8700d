"""Weighted matrix factorization by alternating least squares, from the library `implicit`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats32
from mmattn.errors import InputError, MissingDependency
from mmattn.recommenders.base import check_at_least_one, check_positive, known_items
from mmattn.recommenders.factors import Factors

__all__ = ["ImplicitALS"]


class ImplicitALS:
    """Matrix factorization over all user-item pairs, of which chosen ones weigh 1 + `alpha` times as much.

    Y. Hu, Y. Koren, C. Volinsky, Collaborative Filtering for Implicit Feedback Datasets, ICDM 2008. Items
    that are not known score zero.

    Args:
        dim: width of the factors.
        regularization: weight of the L2 penalty on the factors.
        alpha: alpha of the paper: extra weight of a chosen pair.
        iterations: number of iterations, each of which updates users and items.
        seed: seed of the initial factors.
        num_threads: threads of the library; 0 means all cores. The result does not depend on it.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        dim: int = 64,
        regularization: float = 1.0,
        alpha: float = 10.0,
        iterations: int = 15,
        seed: int = 0,
        num_threads: int = 0,
    ):
        self.dim = check_at_least_one("ImplicitALS: dim", dim)
        self.regularization = check_positive("ImplicitALS: regularization", regularization)
        if not alpha >= 0:
            raise InputError(f"ImplicitALS: confidence: got {alpha}, expected 0 or more")
        self.alpha = alpha
        self.iterations = check_at_least_one("ImplicitALS: iterations", iterations)
        self.seed = seed
        self.num_threads = num_threads

    def fit(
        self,
        interactions: sparse.csr_array,
        features: NDArray[Any] | None = None,
        known: ArrayLike | None = None,
    ) -> Self:
        """Factorize the interactions.

        Args:
            interactions: [U, I], a stored entry where the user chose the item.
            features: not used.
            known: ids of the known items; None means those with an interaction.

        Raises:
            InputError: no known items, or ids out of range.
            MissingDependency: `implicit` is not installed (the extra `baselines`).
        """
        try:
            from implicit.cpu.als import AlternatingLeastSquares
        except ImportError as error:
            raise MissingDependency("ImplicitALS needs implicit: pip install 'mmattn[baselines]'") from error
        from threadpoolctl import threadpool_limits

        known_W = known_items("ImplicitALS", interactions, known)
        confidence_UW = sparse.csr_matrix(interactions[:, known_W].astype(np.float32))
        confidence_UW.data[:] = 1 + self.alpha
        # The library runs its own threads; nested BLAS threads would make it many times slower.
        with threadpool_limits(1, "blas"):
            library = AlternatingLeastSquares(
                factors=self.dim, regularization=self.regularization, iterations=self.iterations,
                random_state=self.seed, num_threads=self.num_threads,
            )  # fmt: skip
            library.fit(confidence_UW, show_progress=False)
        items_IK = np.zeros((interactions.shape[1], self.dim), np.float32)
        items_IK[known_W] = library.item_factors
        self.factors = Factors(library.user_factors, items_IK, np.zeros(len(items_IK), np.float32))
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: B user ids.
            items: C item ids.

        Returns:
            [B, C] float32, higher is better.
        """
        return self.factors.score(users, items)
