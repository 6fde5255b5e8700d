"""Weights of items on items as vectors of users and items, so that millions of items can be searched.

A recommender that is linear in the history scores by histories @ weights. Short vectors can be right about
some weights only: they are made to be right about the histories that people have.
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

_DIAGONAL_REFITS = 2  # of what items say of themselves, each followed by another decomposition
_OVERSAMPLING = 16  # directions that the decomposition looks at beside the wanted ones, to find those well
_RIDGE = 1e-3  # of the mean diagonal, for items that hardly a history has
_NUM_USERS = 500  # histories that vectors are compared with the weights on


@dataclass(frozen=True, eq=False)
class Factors:
    """Vectors whose inner products are scores, as nearly as their width allows.

    Args:
        item_to_user: [K, W] float32, what each known item of a history adds to the user's vector.
        vectors: [C, W] float32, of the candidates.
        weights_to_vector: [W, K] float32, makes the vector of a further item from its weights [K].
    """

    item_to_user: NDArray[np.float32]
    vectors: NDArray[np.float32]
    weights_to_vector: NDArray[np.float32]

    @property
    def width(self) -> int:
        """W."""
        return self.item_to_user.shape[1]

    def truncate(self, width: int) -> Factors:
        """Keep the first columns, which matter most.

        Args:
            width: number of columns.
        """
        return Factors(*(np.ascontiguousarray(one) for one in (
            self.item_to_user[:, :width], self.vectors[:, :width], self.weights_to_vector[:width],
        )))  # fmt: skip


def factorise(
    weights: Tensor, histories: sparse.csr_array, width: int, known_positions: NDArray[np.int64] | None = None
) -> Factors:
    """The vectors of a width that come nearest to the scores of these histories.

    A truncated singular value decomposition of the weights alone spends its width on what hardly anybody's
    history asks for. With H the histories, each divided by the root of its length so that long ones count no
    more than others, the vectors minimise the squared error of the scores H @ weights (the weights are
    multiplied by the Cholesky factor of H'H before they are decomposed). What an item says of itself is free,
    since nobody is recommended what she has: it is set to whatever the vectors say, and they are found anew.

    Args:
        weights: [K, C], what each known item says of each candidate.
        histories: [U, K] of the users there are.
        width: W, at most K and C.
        known_positions: [C] place of each candidate among the known items, -1 where it is none of them.

    Example:
        >>> weights = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])  # one direction says it all
        >>> found = factorise(weights, sparse.csr_array(np.eye(3, dtype=np.float32)), width=1)
        >>> np.abs(found.item_to_user @ found.vectors.T - weights.numpy()).max() < 1e-5
        np.True_

        >>> new_vectors = (found.weights_to_vector @ weights.numpy()).T  # how new items get theirs
        >>> np.abs(found.vectors - new_vectors).max() < 1e-5
        np.True_
    """
    root_KK = _gram_cholesky(histories)
    filled_KC = weights.detach().float().cpu().clone()
    places = np.full(filled_KC.shape[1], -1) if known_positions is None else np.asarray(known_positions)
    columns = torch.from_numpy(np.flatnonzero(places >= 0))
    rows = torch.from_numpy(places[places >= 0])
    width = min(width, *filled_KC.shape)
    left_KW, values_W, vectors_CW = _weighted_svd(root_KK, filled_KC, width)
    for _ in range(_DIAGONAL_REFITS if len(columns) else 0):
        said_KW = filled_KC @ vectors_CW
        filled_KC[rows, columns] = (said_KW[rows] * vectors_CW[columns]).sum(1)
        left_KW, values_W, vectors_CW = _weighted_svd(root_KK, filled_KC, width)
    maps_KW = filled_KC @ vectors_CW
    # The strength of a direction is shared by both sides, so that either can be searched.
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
    """Share of what the weights rank among the first k that the vectors rank there too, seen items left out.

    Args:
        factors: of these weights.
        weights: [K, C].
        histories: [U, K]; some of those that are not empty are drawn.
        known_positions: [C] as in `factorise`.
        k: the number of items compared.
    """
    there = np.flatnonzero(np.diff(histories.indptr))
    drawn = np.random.default_rng(0).choice(there, min(_NUM_USERS, len(there)), replace=False)
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
    """Left vectors, singular values and right vectors of what the histories make of the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the decomposition draws a first guess
        seen = min(width + _OVERSAMPLING, *weights_KC.shape)
        left, values, right = torch.svd_lowrank(root_KK.T @ weights_KC, q=seen, niter=2)
    return left[:, :width], values[:width], right[:, :width]


def _gram_cholesky(histories: sparse.csr_array) -> Tensor:
    """[K, K], the Cholesky factor of what histories hold together, each of weight 1."""
    lengths_U = np.maximum(np.diff(histories.indptr), 1)
    even_UK = sparse.diags_array((lengths_U**-0.5).astype(np.float32)) @ histories.astype(np.float32)
    gram_KK = torch.from_numpy((even_UK.T @ even_UK).toarray())
    mean = float(gram_KK.diagonal().mean())
    gram_KK.diagonal().add_(_RIDGE * mean if mean > 0 else 1.0)  # without any history, all items count alike
    return torch.linalg.cholesky(gram_KK)
