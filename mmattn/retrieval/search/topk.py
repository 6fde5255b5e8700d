"""Scores line by line, a query a line: filled up, computed for pairs, the best of each."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pad_rows", "pair_scores", "select_best"]


def pad_rows(row_index: Tensor, values: Tensor, num_rows: int, fill: float = -torch.inf) -> Tensor:
    """Arrange values in rows of equal length, [num_rows, W].

    Args:
        row_index: [N] row of each value, ascending.
        values: [N].
        num_rows: number of rows.
        fill: value of the padding.
    """
    counts = torch.bincount(row_index, minlength=num_rows)
    within = torch.arange(len(row_index), device=row_index.device) - (counts.cumsum(0) - counts)[row_index]
    filled = values.new_full((num_rows, int(counts.max()) if num_rows else 0), fill)
    return filled.index_put((row_index, within), values)


def pair_scores(queries_QD: Tensor, vectors_QPD: Tensor, metric: str) -> Tensor:
    """[Q, P] scores of each query with vectors of its own, in float32.

    Args:
        queries_QD: [Q, D] queries.
        vectors_QPD: [Q, P, D] vectors of each query.
        metric: "ip", "cosine" or "l2".
    """
    if metric == "l2":
        return -(vectors_QPD - queries_QD[:, None]).square().sum(2)
    return torch.bmm(vectors_QPD, queries_QD[:, :, None])[:, :, 0]


def select_best(scores_QP: Tensor, places_QP: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Select the k highest scores of each row and their places; equal scores by place.

    Args:
        scores_QP: [Q, P] scores.
        places_QP: [Q, P] places.
        k: number of hits.
    """
    best, order = scores_QP.topk(k)
    places = places_QP.gather(1, order)
    by_place = places.argsort(1)
    best, places = best.gather(1, by_place), places.gather(1, by_place)
    by_score = best.argsort(stable=True, dim=1, descending=True)
    return best.gather(1, by_score), places.gather(1, by_score)
