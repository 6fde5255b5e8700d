"""Rank items by score and compute ranking metrics, vectorised over users.

Conventions: relevance is binary. The denominator of recall is the number of positives, also above k. nDCG has
a log2 discount and an ideal of min(k, positives) hits. Users without positives are skipped and counted.
The formulas are in `mmattn.evaluation.ranking.formulas`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from mmattn.array_types import Bools, Floats, Floats32, Ints
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.ranking.formulas import METRICS, JudgedRanking, parse_metrics

__all__ = ["METRICS", "MetricResult", "Ranking", "TiePolicy", "evaluate", "rank", "rank_users"]

TiePolicy = Literal["stable", "trec", "shuffled"]

# Bounds the temporaries of `rank` to a few times this many scores.
_MAX_SCORES = 4_000_000


@dataclass(frozen=True, eq=False)
class Ranking:
    """The top k items of each user, best first.

    Args:
        items: [U, k] item ids; -1 where a user has fewer than k candidates.
        scores: [U, k] float32; -inf where there is no item.
        ties: policy that ordered equal scores.
    """

    items: Ints
    scores: Floats32
    ties: TiePolicy


def rank(
    scores: ArrayLike,
    k: int,
    *,
    candidates: ArrayLike | None = None,
    exclude: sparse.csr_array | Bools | None = None,
    ties: TiePolicy = "stable",
    names: Sequence[str] | None = None,
    rows: Ints | None = None,
) -> Ranking:
    """Rank the candidates of each user by score.

    Args:
        scores: [U, C] scores, compared as float32; -inf is never ranked.
        k: number of items to keep.
        candidates: [C] item id of each column; by default 0, 1, ...
        exclude: [U, I] seen items by item id, sparse (stored entries) or boolean; never ranked.
        ties: order of equal scores. "stable": by column. "trec": descending by name as a string ("9" before
            "10"), as trec_eval. "shuffled": a fixed pseudo-random order per row, so that constant scores gain
            nothing where item ids correlate with popularity.
        names: [I] document names for "trec"; by default the item ids in decimal.
        rows: [U] row ids for "shuffled"; by default 0, 1, ...

    Raises:
        InputError: inconsistent shapes, NaN scores, k below 1, or an unknown tie policy.

    Example:
        >>> rank([[0.1, 0.9, 0.9, 0.5]], k=3).items.tolist()
        [[1, 2, 3]]
        >>> rank([[0.1, 0.9, 0.9, 0.5]], k=3, ties="trec").items.tolist()
        [[2, 1, 3]]
    """
    scores_UC = np.asarray(scores, np.float32)
    if scores_UC.ndim != 2 or k < 1:
        raise InputError(f"rank: got scores of shape {scores_UC.shape} and k {k}, expected [U, C] and k >= 1")
    users, columns = scores_UC.shape
    items_C = np.arange(columns) if candidates is None else np.asarray(candidates, np.int64)
    if items_C.shape != (columns,):
        raise InputError(
            f"rank: got candidates of shape {items_C.shape}, expected {columns}, one a column of scores"
        )
    if exclude is not None and (exclude.shape[0] != users or (columns and exclude.shape[1] <= items_C.max())):
        raise InputError(
            f"rank: got exclude of shape {exclude.shape}, expected {users} users by at least "
            f"{items_C.max(initial=-1) + 1} items"
        )
    row_ids_U = np.arange(users) if rows is None else rows
    order_C = _tie_order(items_C, ties, names)
    top_UK = np.full((users, k), -1, np.int64)
    best_UK = np.full((users, k), -np.inf, np.float32)
    depth = min(k, columns)
    block = max(1, _MAX_SCORES // max(columns, 1))
    for start in range(0, users if depth else 0, block):
        block_rows = slice(start, start + block)
        block_BC = scores_UC[block_rows][:, order_C]
        if np.isnan(block_BC).any():
            raise InputError(
                f"rank: got NaN among the scores of users {start} to {min(start + block, users) - 1}"
            )
        if exclude is not None:
            block_BC[_exclusion_mask(exclude[block_rows], items_C[order_C])] = -np.inf
        if ties == "shuffled":
            shuffle_BC = _shuffle(row_ids_U[block_rows], items_C)
            top_BK = _top_k(np.take_along_axis(block_BC, shuffle_BC, 1), depth)
            top_BK = np.take_along_axis(shuffle_BC, top_BK, 1)
        else:
            top_BK = _top_k(block_BC, depth)
        best_UK[block_rows, :depth] = np.take_along_axis(block_BC, top_BK, 1)
        top_UK[block_rows, :depth] = items_C[order_C][top_BK]
    top_UK[np.isneginf(best_UK)] = -1
    return Ranking(top_UK, best_UK, ties)


def rank_users(
    score: Callable[[Ints, Ints], ArrayLike],
    users: ArrayLike,
    k: int,
    *,
    candidates: ArrayLike,
    exclude: sparse.csr_array | None = None,
    ties: TiePolicy = "stable",
    names: Sequence[str] | None = None,
    block_size: int = 1024,
) -> Ranking:
    """Score and rank users in blocks, without holding all [U, C] scores in memory.

    Args:
        score: `score(users, items)` returns [B, C] scores, like the recommenders' methods.
        users: [U] user ids, which are also rows of `exclude`.
        k: number of items to keep.
        candidates: [C] item ids to rank.
        exclude: [all users, I] seen items, never ranked.
        ties: order of equal scores, see `rank`.
        names: [I] document names for "trec", see `rank`.
        block_size: users per block.

    Returns:
        The ranking of all users.

    Example:
        >>> def nearby(users, items): return -abs(users[:, None] - items)
        >>> rank_users(nearby, [0, 3], k=2, candidates=[1, 2, 3]).items.tolist()
        [[1, 2], [3, 2]]
    """
    users_U = np.asarray(users, np.int64)
    items_C = np.asarray(candidates, np.int64)
    parts = [
        rank(
            score(block_B, items_C),
            k,
            candidates=items_C,
            exclude=None if exclude is None else exclude[block_B],
            ties=ties,
            names=names,
            rows=block_B,
        )
        for block_B in np.array_split(users_U, max(1, -(-len(users_U) // block_size)))
    ]
    return Ranking(
        np.concatenate([part.items for part in parts]), np.concatenate([part.scores for part in parts]), ties
    )


def _tie_order(items_C: Ints, ties: TiePolicy, names: Sequence[str] | None) -> Ints:
    """Return the columns in the order of equal scores."""
    if ties not in get_args(TiePolicy):
        raise InputError(f"rank: got ties {ties!r}.{did_you_mean(str(ties), get_args(TiePolicy))}")
    if ties != "trec":
        return np.arange(len(items_C))
    strings = items_C.astype(str) if names is None else np.asarray([names[item] for item in items_C])
    return np.argsort(strings, kind="stable")[::-1]


def _shuffle(rows_B: Ints, items_C: Ints) -> Ints:
    """Return a pseudo-random column order for each row, [B, C].

    It sorts a hash of row and item id (the finaliser of splitmix64), so it depends neither on the block nor
    on the other rows and candidates.
    """
    keys_BC = (rows_B[:, None].astype(np.uint64) << np.uint64(32)) + items_C.astype(np.uint64)
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        keys_BC = (keys_BC ^ (keys_BC >> np.uint64(30))) * np.uint64(multiplier)
    return np.argsort(keys_BC ^ (keys_BC >> np.uint64(31)), axis=1)


def _exclusion_mask(exclude: sparse.csr_array | Bools, items_C: Ints) -> Bools:
    if isinstance(exclude, np.ndarray):
        return exclude[:, items_C].astype(bool)
    # Read stored entries, not values: a stored zero is still an interaction.
    mask_BI = np.zeros(exclude.shape, bool)
    mask_BI[np.repeat(np.arange(exclude.shape[0]), np.diff(exclude.indptr)), exclude.indices] = True
    return mask_BI[:, items_C]


def _top_k(scores_BC: Floats32, k: int) -> Ints:
    """Return the columns of the k largest scores, [B, k], descending, ties by column."""
    columns = scores_BC.shape[1]
    kth_B1 = np.partition(scores_BC, columns - k, axis=1)[:, columns - k, None]
    above_BC = scores_BC > kth_B1
    tied_BC = scores_BC == kth_B1
    # Keep only the first of those tied with the k-th; a partition alone would choose arbitrarily.
    free_B1 = k - above_BC.sum(1, keepdims=True)
    overfull_B = tied_BC.sum(1) > free_B1[:, 0]
    tied_BC[overfull_B] &= tied_BC[overfull_B].cumsum(1) <= free_B1[overfull_B]
    top_BK = np.nonzero(above_BC | tied_BC)[1].reshape(-1, k)
    order_BK = np.argsort(-np.take_along_axis(scores_BC, top_BK, 1), axis=1, kind="stable")
    return np.take_along_axis(top_BK, order_BK, 1)


@dataclass(frozen=True, eq=False)
class MetricResult:
    """Metric values of each user.

    Args:
        values: metric name, for example "recall@20" -> [U] values, NaN for users without positives.
        n_skipped: number of users without positives.
        ties: tie policy of the ranking.
    """

    values: Mapping[str, Floats]
    n_skipped: int
    ties: TiePolicy

    def mean(self, metric: str) -> float:
        """Average a metric over the users with positives; NaN without such a user.

        Args:
            metric: metric name.
        """
        values = self.values[metric]
        valid = values[~np.isnan(values)]
        return float(valid.mean()) if len(valid) else float("nan")


def evaluate(
    ranking: Ranking,
    positives: sparse.csr_array,
    metrics: Sequence[str] = ("recall@20", "ndcg@20"),
) -> MetricResult:
    """Evaluate a ranking against relevant items.

    Args:
        ranking: ranking of U users.
        positives: [U, I], with a stored entry for each relevant item.
        metrics: metric names. With a cutoff ("recall@20"): recall, precision, hit, ndcg, map, mrr. Without:
            rprec, which needs a ranking as deep as the number of positives, and auc, which needs the complete
            ranking (k at least the number of candidates).

    Raises:
        InputError: an unknown metric, a cutoff above the depth of the ranking, or a wrong number of users.

    Example:
        >>> positives = sparse.csr_array(np.array([[1, 1, 0], [0, 0, 0]]))
        >>> result = evaluate(rank([[3, 1, 2], [3, 1, 2]], k=2), positives, ["recall@2", "mrr@2"])
        >>> result.mean("recall@2"), result.mean("mrr@2"), result.n_skipped
        (0.5, 1.0, 1)
    """
    users, depth = ranking.items.shape
    if positives.shape[0] != users:
        raise InputError(f"evaluate: got positives of {positives.shape[0]} users, expected {users}")
    counts_U = np.diff(positives.indptr).astype(np.int64)
    judged = _judged_ranking(ranking.items, positives, counts_U)
    values: dict[str, Floats] = {}
    for name, (metric_fn, cutoff) in parse_metrics(metrics).items():
        _check_depth(name, cutoff, depth, ranking, counts_U)
        values[name] = metric_fn(judged, cutoff)
    return MetricResult(values, int((counts_U == 0).sum()), ranking.ties)


def _check_depth(name: str, cutoff: int | None, depth: int, ranking: Ranking, counts_U: Ints) -> None:
    """Refuse metrics that need a deeper ranking."""
    is_complete = bool((ranking.items[:, -1] < 0).all())
    if cutoff is not None and cutoff > depth:
        raise InputError(f"metric {name!r}: expected a cutoff from 1 to the ranking's depth, {depth}")
    if name == "rprec" and not is_complete and counts_U.max(initial=0) > depth:
        raise InputError(f"metric {name!r}: expected a ranking of depth {counts_U.max()}, got {depth}")
    if name == "auc" and not is_complete:
        raise InputError(f"metric {name!r}: expected the complete ranking, got one cut at depth {depth}")
    if cutoff is None and name not in ("rprec", "auc"):
        raise InputError(f"metric {name!r}: expected a cutoff from 1 to the ranking's depth, {depth}")


def _judged_ranking(items_UK: Ints, positives: sparse.csr_array, counts_U: Ints) -> JudgedRanking:
    hits_UK = _hit_mask(items_UK, positives)
    row_H, rank_H = np.nonzero(hits_UK)
    users = np.repeat(np.arange(len(counts_U)), counts_U)
    return JudgedRanking(
        group_query=row_H,
        group_start=rank_H,
        group_size=np.ones_like(row_H),
        group_of=np.arange(len(row_H)),
        gains=np.ones(len(row_H)),
        is_relevant=np.ones(len(row_H), bool),
        n_retrieved=(items_UK >= 0).sum(1),
        ideal_query=users,
        ideal_gains=np.ones(len(users)),
        ideal_is_relevant=np.ones(len(users), bool),
    )


def _hit_mask(items_UK: Ints, positives: sparse.csr_array) -> Bools:
    """Return where the ranked item is a positive of the user, [U, k], by one search in sorted keys."""
    users, item_count = positives.shape
    rows = np.repeat(np.arange(users), np.diff(positives.indptr))
    keys = np.sort(rows * item_count + positives.indices)
    if not len(keys):
        return np.zeros(items_UK.shape, bool)
    ranked_UK = np.arange(users)[:, None] * item_count + items_UK
    found_UK = keys[np.searchsorted(keys, ranked_UK).clip(max=len(keys) - 1)] == ranked_UK
    hits_UK: Bools = found_UK & (items_UK >= 0)
    return hits_UK
