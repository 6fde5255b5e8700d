"""Low-rank factorization of item-item weights into user and item vectors, for search over millions of items.

A recommender that is linear in the history scores by histories @ weights. A low-rank approximation cannot be
accurate for all weights; this one is fitted to be accurate for the histories of the users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

__all__ = ["WIDTHS", "Factors", "factorise", "topk_agreement"]

WIDTHS = (64, 128, 256, 512)

_DIAGONAL_REFITS = 2  # refits of the diagonal weights, each followed by another decomposition
_OVERSAMPLING = 16  # extra directions in the randomized decomposition, for accuracy
_RIDGE = 1e-3  # ridge relative to the mean diagonal, for items in very few histories
_NUM_USERS = 500  # histories used to compare the vectors with the weights


@dataclass(frozen=True, eq=False)
class Factors:
    """Vectors whose inner products approximate the scores.

    Args:
        item_to_user: [K, W] float32, contribution of each known item of a history to the user vector.
        vectors: [C, W] float32, vectors of the candidates.
        weights_to_vector: [W, K] float32, maps the weights [K] of a further item to its vector.
    """

    item_to_user: NDArray[np.float32]
    vectors: NDArray[np.float32]
    weights_to_vector: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Width W of the vectors."""
        return self.item_to_user.shape[1]

    def truncate(self, width: int) -> Factors:
        """Keep the leading columns, which matter most.

        Args:
            width: number of columns to keep.
        """
        return Factors(*(np.ascontiguousarray(array) for array in (
            self.item_to_user[:, :width], self.vectors[:, :width], self.weights_to_vector[:width],
        )))  # fmt: skip


def factorise(
    weights: Tensor, histories: sparse.csr_array, width: int, known_positions: NDArray[np.int64] | None = None
) -> Factors:
    """Vectors of a given width that best approximate the scores of given histories.

    A truncated singular value decomposition of the weights alone spends its capacity on items that few
    histories contain. Let H be the histories, each divided by the square root of its length so that all users
    count the same. The vectors minimize the squared error of the scores H @ weights, by multiplying the
    weights with the Cholesky factor of H'H before the decomposition. The weight of an item on itself is
    irrelevant, because items of the history are not recommended: it is set to the value that the vectors
    give, and the decomposition is repeated.

    Args:
        weights: [K, C] weight of each known item for each candidate.
        histories: [U, K] histories of the users.
        width: W; reduced to K or C if these are smaller.
        known_positions: [C] position of each candidate among the known items, -1 if it is not known; None
            means that no candidate is known.

    Example:
        >>> weights = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])  # of rank 1
        >>> found = factorise(weights, sparse.csr_array(np.eye(3, dtype=np.float32)), width=1)
        >>> np.abs(found.item_to_user @ found.vectors.T - weights.numpy()).max() < 1e-5
        np.True_

        >>> new_vectors = (found.weights_to_vector @ weights.numpy()).T  # how new items get theirs
        >>> np.abs(found.vectors - new_vectors).max() < 1e-5
        np.True_
    """
    root_KK = _gram_cholesky(histories)
    filled_KC = weights.detach().float().cpu().clone()
    known_columns = (
        np.full(filled_KC.shape[1], -1) if known_positions is None else np.asarray(known_positions)
    )
    columns = torch.from_numpy(np.flatnonzero(known_columns >= 0))
    rows = torch.from_numpy(known_columns[known_columns >= 0])
    width = min(width, *filled_KC.shape)
    left_KW, values_W, vectors_CW = _weighted_svd(root_KK, filled_KC, width)
    for _ in range(_DIAGONAL_REFITS if len(columns) else 0):
        projected_KW = filled_KC @ vectors_CW
        filled_KC[rows, columns] = (projected_KW[rows] * vectors_CW[columns]).sum(1)
        left_KW, values_W, vectors_CW = _weighted_svd(root_KK, filled_KC, width)
    maps_KW = filled_KC @ vectors_CW
    # The singular values are divided evenly between both sides, so that either can be searched.
    scale_W = (values_W / values_W[0].clamp_min(1e-30)).clamp_min(1e-6).sqrt()
    lift_WK = (left_KW / values_W.clamp_min(values_W[0] * 1e-6).clamp_min(1e-30)).T @ root_KK.T
    return Factors(
        np.ascontiguousarray((maps_KW / scale_W).numpy()),
        np.ascontiguousarray((vectors_CW * scale_W).numpy()),
        np.ascontiguousarray((scale_W[:, None] * lift_WK).numpy()),
    )


def topk_agreement(
    factors: Factors,
    weights: Tensor,
    histories: sparse.csr_array,
    known_positions: NDArray[np.int64],
    k: int = 20,
) -> float:
    """Fraction of the weights' top k items that are in the top k of the vectors, seen items excluded.

    Args:
        factors: factorization of the weights.
        weights: [K, C].
        histories: [U, K]; up to 500 non-empty ones are sampled.
        known_positions: [C] as in `factorise`.
        k: number of items compared.
    """
    with_history = np.flatnonzero(np.diff(histories.indptr))
    drawn = np.random.default_rng(0).choice(with_history, min(_NUM_USERS, len(with_history)), replace=False)
    chosen_UK = histories[np.sort(drawn)].astype(np.float32)
    chosen = torch.from_numpy(chosen_UK.toarray())
    seen_UC = (chosen[:, torch.from_numpy(known_positions.clip(0))] > 0) & torch.from_numpy(
        known_positions >= 0
    )
    k = min(k, weights.shape[1])
    exact_UC = (chosen @ weights.float().cpu()).masked_fill_(seen_UC, -torch.inf)
    close_UC = torch.from_numpy(chosen_UK @ factors.item_to_user @ factors.vectors.T)
    ours_Uk, theirs_Uk = (
        scores.masked_fill(seen_UC, -torch.inf).topk(k).indices for scores in (close_UC, exact_UC)
    )
    return float((ours_Uk[:, :, None] == theirs_Uk[:, None]).any(2).float().mean())


def _weighted_svd(root_KK: Tensor, weights_KC: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors, singular values and right vectors of the weights multiplied by the Cholesky factor."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the decomposition starts from random vectors
        seen = min(width + _OVERSAMPLING, *weights_KC.shape)
        left, values, right = torch.svd_lowrank(root_KK.T @ weights_KC, q=seen, niter=2)
    return left[:, :width], values[:width], right[:, :width]


def _gram_cholesky(histories: sparse.csr_array) -> Tensor:
    """[K, K] Cholesky factor of the co-occurrence matrix of histories, each of total weight 1."""
    lengths_U = np.maximum(np.diff(histories.indptr), 1)
    even_UK = sparse.diags_array((lengths_U**-0.5).astype(np.float32)) @ histories.astype(np.float32)
    gram_KK = torch.from_numpy((even_UK.T @ even_UK).toarray())
    mean = float(gram_KK.diagonal().mean())
    gram_KK.diagonal().add_(_RIDGE * mean if mean > 0 else 1.0)  # no histories: all items weigh the same
    return torch.linalg.cholesky(gram_KK)
