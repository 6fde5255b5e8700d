"""Row-wise scores: padding, query-vector pairs and top-k selection."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pad_rows", "pair_scores", "select_best"]


def pad_rows(row_index: Tensor, values: Tensor, num_rows: int, fill: float = -torch.inf) -> Tensor:
    """Arrange values of rows of different lengths in a padded matrix.

    Args:
        row_index: [V] row of each value, ascending.
        values: [V] values.
        num_rows: number of rows R.
        fill: padding value.

    Returns:
        [R, W], where W is the length of the longest row.

    Example:
        >>> pad_rows(torch.tensor([0, 0, 1]), torch.tensor([3.0, 2.0, 1.0]), num_rows=2, fill=0.0).tolist()
        [[3.0, 2.0], [1.0, 0.0]]
    """
    counts = torch.bincount(row_index, minlength=num_rows)
    within = torch.arange(len(row_index), device=row_index.device) - (counts.cumsum(0) - counts)[row_index]
    filled = values.new_full((num_rows, int(counts.max()) if num_rows else 0), fill)
    return filled.index_put((row_index, within), values)


def pair_scores(queries_QD: Tensor, vectors_QPD: Tensor, metric: str) -> Tensor:
    """Score each query against its own set of vectors.

    Args:
        queries_QD: [Q, D].
        vectors_QPD: [Q, P, D], P vectors per query.
        metric: "l2" for minus the squared distance; any other for the inner product.

    Returns:
        [Q, P] scores.
    """
    if metric == "l2":
        return -(vectors_QPD - queries_QD[:, None]).square().sum(2)
    return torch.bmm(vectors_QPD, queries_QD[:, :, None])[:, :, 0]


def select_best(scores_QP: Tensor, places_QP: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k highest scores of each row; ties are ordered by position.

    Args:
        scores_QP: [Q, P] scores.
        places_QP: [Q, P] position (row in the index) of each score.
        k: number to select, at most P.

    Returns:
        Scores [Q, k], best first, and their positions [Q, k].

    Example:
        >>> scores, places = select_best(torch.tensor([[1.0, 3.0, 1.0]]), torch.tensor([[5, 7, 2]]), k=3)
        >>> scores.tolist(), places.tolist()
        ([[3.0, 1.0, 1.0]], [[7, 2, 5]])
    """
    best, order = scores_QP.topk(k)
    positions = places_QP.gather(1, order)
    by_place = positions.argsort(1)
    best, positions = best.gather(1, by_place), positions.gather(1, by_place)
    by_score = best.argsort(stable=True, dim=1, descending=True)
    return best.gather(1, by_score), positions.gather(1, by_score)
