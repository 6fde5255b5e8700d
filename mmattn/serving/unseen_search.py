"""Search for the best items that a user has not chosen yet, for one user or many."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from mmattn.retrieval.index import Index

if TYPE_CHECKING:
    from mmattn.array_types import Floats32, Ints

__all__ = ["topk_unseen", "tune_for_users"]


_MAX_EXHAUSTIVE_ITEMS = 2**16  # catalogues up to this size are scored as a whole
_MAX_SCORES = 2**24  # scores in memory at once
_TARGET_RECALL = 0.95  # fraction of a user's true top 20 that an approximate index has to find
_USER_BATCH = 1024  # users per search


def topk_unseen(
    index: Index, queries: Floats32, seen: sparse.csr_array, k: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[Floats32, Ints]:
    """The k items with the highest inner product with each query, excluding seen items.

    A small catalogue is scored as a whole. A large one, or an approximate index, is searched for k plus the
    number of seen items, and the seen ones are removed. Memory does not grow with the number of queries.

    Args:
        index: of I items, metric "ip".
        queries: [Q, W] user vectors.
        seen: [Q, I], a stored entry where the user has chosen the item.
        k: items per query.
        allowed: [I] boolean mask of the items to find; None for all.

    Returns:
        Scores and rows [Q, k], best first; minus infinity and -1 where fewer items are left.

    Example:
        >>> index = Index.build(np.eye(3), ["a", "b", "c"])
        >>> seen = sparse.csr_array(np.array([[0.0, 1.0, 0.0]]))
        >>> topk_unseen(index, np.array([[0.1, 0.9, 0.5]], np.float32), seen, k=2)[1].tolist()
        [[2, 0]]
    """
    scores = np.full((len(queries), k), -np.inf, np.float32)
    rows = np.full((len(queries), k), -1, np.int64)
    find = _search_index if index.approximate or len(index) > _MAX_EXHAUSTIVE_ITEMS else _search_exhaustive
    for users, found_scores, found_rows in find(index, queries, seen, min(k, len(index)), allowed):
        width = found_rows.shape[1]
        scores[users, :width] = found_scores
        rows[users, :width] = np.where(np.isneginf(found_scores), -1, found_rows)
    return scores, rows


def _search_exhaustive(
    index: Index, queries: Floats32, seen: sparse.csr_array, k: int, allowed: NDArray[np.bool_] | None
) -> Iterator[tuple[Ints, Floats32, Ints]]:
    size = max(1, _MAX_SCORES // len(index))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        scores_QI = queries[part] @ index.matrix.T
        if allowed is not None:
            scores_QI[:, ~allowed] = -np.inf
        scores_QI[seen[part].nonzero()] = -np.inf
        best, best_rows = torch.from_numpy(scores_QI).topk(k)
        yield np.arange(start, start + len(best)), best.numpy(), best_rows.numpy()


def _search_index(
    index: Index, queries: Floats32, seen: sparse.csr_array, k: int, allowed: NDArray[np.bool_] | None
) -> Iterator[tuple[Ints, Floats32, Ints]]:
    """Batches of users with similar history lengths, searched as deep as the longest history needs."""
    rows = None if allowed is None else np.flatnonzero(allowed)
    counts_Q = np.diff(seen.indptr)
    order = np.argsort(counts_Q, kind="stable")
    for start in range(0, len(order), _USER_BATCH):
        users = order[start : start + _USER_BATCH]
        depth = min(k + int(counts_Q[users[-1]]), len(index))
        scores, hit_rows = index.engine.search(queries[users], depth, rows)
        scores = np.where(hit_rows < 0, -np.inf, scores)
        scores[_is_seen(seen[users], hit_rows)] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        yield users, np.take_along_axis(scores, best, 1), np.take_along_axis(hit_rows, best, 1)


def _is_seen(seen: sparse.csr_array, hit_rows: Ints) -> NDArray[np.bool_]:
    """[Q, P] boolean, whether the user has seen the item."""
    items = seen.shape[1]
    owners_Q1 = np.arange(len(hit_rows))[:, None]
    have = np.repeat(owners_Q1[:, 0], np.diff(seen.indptr)) * items + seen.indices
    return np.isin(owners_Q1 * items + hit_rows, have) & (hit_rows >= 0)


def tune_for_users(index: Index, queries: Floats32, k: int = 20) -> Index:
    """Increase the search effort of an approximate index until it is accurate for user vectors.

    The index was tuned with items as queries. User vectors are sums over many items and distributed
    differently, so their recall is lower. The effort is doubled until 95% of the results of exact search are
    found. If exact search is then faster, an exact index is returned.

    Args:
        index: metric "ip"; its search effort is changed in place.
        queries: [Q, W] user vectors.
        k: number of items compared.
    """
    ann = index.engine.ann
    if ann is None:
        return index
    truth, slow = _timed(index, queries, k, exact=True)
    while True:
        hit_rows, quick = _timed(index, queries, k, exact=False)
        share = float((truth[:, :, None] == hit_rows[:, None]).any(2).mean())
        if quick >= slow:
            return Index.build(
                index.matrix, index.ids, metadata=index.metadata, provenance=index.provenance, kind="exact"
            )
        if share >= _TARGET_RECALL:
            return index
        ann.settings = replace(ann.settings, effort=2 * ann.settings.effort)


def _timed(index: Index, queries: Floats32, k: int, *, exact: bool) -> tuple[Ints, float]:
    index.engine.search(queries[:8], k, exact=exact)  # warm-up: one-time setup is not part of the speed
    start = time.perf_counter()
    rows = index.engine.search(queries, k, exact=exact)[1]
    return rows, time.perf_counter() - start
