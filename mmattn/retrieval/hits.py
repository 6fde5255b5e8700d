"""Search results, and merging the results of several searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Hits", "drop_self_hits", "merge_hits"]


@dataclass(frozen=True, eq=False)
class Hits:
    """Search results of Q queries, best first.

    Args:
        ids: [Q, k] ids of the items.
        scores: [Q, k] float32, higher is better (minus the squared distance for "l2").

    Example:
        >>> Hits(np.array([["a", "b"]], object), np.array([[0.75, 0.5]], np.float32)).to_lists()
        [[('a', 0.75), ('b', 0.5)]]
    """

    ids: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def to_lists(self) -> list[list[tuple[Any, float]]]:
        """(id, score) pairs of each query."""
        return [
            list(zip(ids, scores, strict=True))
            for ids, scores in zip(self.ids.tolist(), self.scores.tolist(), strict=True)
        ]


def merge_hits(hits: Sequence[Hits], k: int) -> Hits:
    """Merge the results of several searches for the same queries into the k best.

    Exact if the searches cover disjoint sets of items: the k best of all are among the k best of each. The
    searches may have run on different machines. Ties keep the order of `hits`.

    Args:
        hits: one result per search, each for the same Q queries.
        k: items per query.

    Returns:
        Hits of shape [Q, k], or fewer columns if the searches returned fewer items.

    Example:
        >>> here = Hits(np.array([["a", "b"]], object), np.array([[0.75, 0.25]], np.float32))
        >>> there = Hits(np.array([["c"]], object), np.array([[0.5]], np.float32))
        >>> merge_hits([here, there], k=2).ids.tolist()
        [['a', 'c']]
    """
    ids = np.concatenate([each.ids for each in hits], axis=1)
    scores = np.concatenate([each.scores for each in hits], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Hits(np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1))


def drop_self_hits(hits: Hits, query_ids: np.ndarray, k: int) -> Hits:
    """Remove each query's own item from its results.

    Each row loses one item: the query's own if it was found, otherwise the last one. If no row contains its
    own item and there are at most k columns, nothing is removed.

    Args:
        hits: [Q, k + 1] results, or fewer columns.
        query_ids: [Q] id of each query's own item.
        k: items per query to keep, at most.

    Returns:
        Hits of shape [Q, k], or fewer columns.

    Example:
        >>> found = Hits(np.array([["a", "b"], ["c", "a"]], object), np.zeros((2, 2), np.float32))
        >>> drop_self_hits(found, np.array(["a", "b"], object), k=1).ids.tolist()
        [['b'], ['c']]
    """
    keep = hits.ids != query_ids[:, None]
    absent = keep.all(1)
    if hits.ids.shape[1] > k or not absent.all():
        keep[absent, -1:] = False
    width = int(keep.sum(1).min()) if len(keep) else 0
    return Hits(hits.ids[keep].reshape(-1, width), hits.scores[keep].reshape(-1, width))
