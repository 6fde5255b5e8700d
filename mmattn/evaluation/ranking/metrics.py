"""Rankings of users by score, and their metrics, in vectorised numpy: no loop over users.

The formulas are in `measures`. Conventions, declared: relevance is binary; recall is hits over the number
of positives, also where that is above k; nDCG has a log2 discount, and its ideal over min(k, positives);
users without a positive are left out of every mean, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.ranking.formulas import METRICS, JudgedRanking, parse_metrics

__all__ = ["METRICS", "MetricResult", "Ranking", "TiePolicy", "evaluate", "rank", "rank_users"]

TiePolicy = Literal["stable", "trec", "shuffled"]

# Bounds the temporaries of `rank` to a few times this many scores, whatever the number of users.
_SCORES_AT_ONCE = 4_000_000


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best k items of each user, best first.

    Args:
        items: [U, k] item ids; -1 where a user has fewer than k candidates left.
        scores: [U, k] float32; -inf where there is no item.
        ties: the policy that ordered equal scores.
    """

    items: Ints
    scores: NDArray[np.float32]
    ties: TiePolicy


def rank(
    scores: ArrayLike,
    k: int,
    *,
    candidates: ArrayLike | None = None,
    exclude: sparse.csr_array | NDArray[np.bool_] | None = None,
    ties: TiePolicy = "stable",
    names: Sequence[str] | None = None,
    rows: Ints | None = None,
) -> Ranking:
    """Rank the candidates of each user by score.

    Args:
        scores: [U, C], compared as float32; -inf means never to be recommended.
        k: how many to keep.
        candidates: [C] the item id of each column; by default the columns are the items.
        exclude: [U, I] by item id, a sparse matrix (stored entries) or booleans: seen items, which are
            not recommended again.
        ties: what comes first among equal scores. "stable": the candidate that stands earlier.
            "trec": as trec_eval has it, the higher name as a string ("9" before "10").
            "shuffled": an order drawn for each row, always the same. Items are often numbered by how popular
            they are; this is the policy under which a system that scores all alike gains nothing by that.
        names: [I] document ids for "trec"; by default the item ids written in decimal.
        rows: [U] ids of the rows for "shuffled"; by default 0, 1, ...

    Raises:
        InputError: shapes that do not fit, NaN among the scores, k below 1, an unknown policy.

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
    kept = min(k, columns)
    block = max(1, _SCORES_AT_ONCE // max(columns, 1))
    for start in range(0, users if kept else 0, block):
        here = slice(start, start + block)
        block_BC = scores_UC[here][:, order_C]
        if np.isnan(block_BC).any():
            raise InputError(
                f"rank: got NaN among the scores of users {start} to {min(start + block, users) - 1}"
            )
        if exclude is not None:
            block_BC[_exclusion_mask(exclude[here], items_C[order_C])] = -np.inf
        if ties == "shuffled":
            shuffle_BC = _shuffle(row_ids_U[here], items_C)
            picked_BK = _top_k(np.take_along_axis(block_BC, shuffle_BC, 1), kept)
            picked_BK = np.take_along_axis(shuffle_BC, picked_BK, 1)
        else:
            picked_BK = _top_k(block_BC, kept)
        best_UK[here, :kept] = np.take_along_axis(block_BC, picked_BK, 1)
        top_UK[here, :kept] = items_C[order_C][picked_BK]
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
    """Score and rank a block of users at a time, so that [U, C] scores are never held as a whole.

    Args:
        score: `score(users, items)` gives [B, C] scores, as the recommenders' methods do.
        users: [U] user ids, also the rows of `exclude`.
        k: how many to keep.
        candidates: [C] item ids to rank.
        exclude: [all users, I] seen items.
        ties: as in `rank`.
        names: as in `rank`.
        block_size: users at a time.

    Example:
        >>> def nearby(users, items): return -abs(users[:, None] - items)
        >>> rank_users(nearby, [0, 3], k=2, candidates=[1, 2, 3]).items.tolist()
        [[1, 2], [3, 2]]
    """
    users_U = np.asarray(users, np.int64)
    items_C = np.asarray(candidates, np.int64)
    parts = [
        rank(
            score(chosen, items_C),
            k,
            candidates=items_C,
            exclude=None if exclude is None else exclude[chosen],
            ties=ties,
            names=names,
            rows=chosen,
        )
        for chosen in np.array_split(users_U, max(1, -(-len(users_U) // block_size)))
    ]
    return Ranking(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]), ties)


def _tie_order(items_C: Ints, ties: TiePolicy, names: Sequence[str] | None) -> Ints:
    """Columns in the order in which equal scores are to come."""
    if ties not in get_args(TiePolicy):
        raise InputError(f"rank: got ties {ties!r}.{did_you_mean(str(ties), get_args(TiePolicy))}")
    if ties != "trec":
        return np.arange(len(items_C))
    written = items_C.astype(str) if names is None else np.asarray([names[item] for item in items_C])
    return np.argsort(written, kind="stable")[::-1]


def _shuffle(rows_B: Ints, items_C: Ints) -> Ints:
    """[B, C] an order of the columns for each row, from a hash of the two ids (the finaliser of splitmix64):
    it depends neither on the block nor on which other rows and candidates are ranked."""
    keys_BC = (rows_B[:, None].astype(np.uint64) << np.uint64(32)) + items_C.astype(np.uint64)
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        keys_BC = (keys_BC ^ (keys_BC >> np.uint64(30))) * np.uint64(multiplier)
    return np.argsort(keys_BC ^ (keys_BC >> np.uint64(31)), axis=1)


def _exclusion_mask(exclude: sparse.csr_array | NDArray[np.bool_], items_C: Ints) -> NDArray[np.bool_]:
    if isinstance(exclude, np.ndarray):
        return exclude[:, items_C].astype(bool)
    # Through stored entries, not values: a stored zero is still an interaction.
    mask_BI = np.zeros(exclude.shape, bool)
    mask_BI[np.repeat(np.arange(exclude.shape[0]), np.diff(exclude.indptr)), exclude.indices] = True
    return mask_BI[:, items_C]


def _top_k(scores_BC: NDArray[np.float32], k: int) -> Ints:
    """[B, k] columns of the k largest, largest first, equal ones by column."""
    columns = scores_BC.shape[1]
    kth_B1 = np.partition(scores_BC, columns - k, axis=1)[:, columns - k, None]
    above_BC = scores_BC > kth_B1
    level_BC = scores_BC == kth_B1
    # Of those level with the k-th, only the first few fit; a partition alone would choose at random.
    room_B1 = k - above_BC.sum(1, keepdims=True)
    crowded_B = level_BC.sum(1) > room_B1[:, 0]
    level_BC[crowded_B] &= level_BC[crowded_B].cumsum(1) <= room_B1[crowded_B]
    picked_BK = np.nonzero(above_BC | level_BC)[1].reshape(-1, k)
    order_BK = np.argsort(-np.take_along_axis(scores_BC, picked_BK, 1), axis=1, kind="stable")
    return np.take_along_axis(picked_BK, order_BK, 1)


@dataclass(frozen=True, eq=False)
class MetricResult:
    """Metric values of each user.

    Args:
        values: name such as "recall@20" -> [U] float64, NaN for users without a positive.
        n_skipped: how many users had no positive.
        ties: the policy of the ranking.
    """

    values: Mapping[str, Floats]
    n_skipped: int
    ties: TiePolicy

    def mean(self, metric: str) -> float:
        """The mean over the users that have a positive; NaN where no user has one."""
        values = self.values[metric]
        counted = values[~np.isnan(values)]
        return float(counted.mean()) if len(counted) else float("nan")


def evaluate(
    ranking: Ranking,
    positives: sparse.csr_array,
    metrics: Sequence[str] = ("recall@20", "ndcg@20"),
) -> MetricResult:
    """Measure a ranking against what was right.

    Args:
        ranking: of U users.
        positives: [U, I], a stored entry where the item is right for the user.
        metrics: names with cut-offs ("recall@20"): recall, precision, hit, ndcg, map, mrr. Without: rprec,
            for which the ranking must be as deep as a user's positives are many, and auc, which needs the
            whole ranking (k above the number of candidates).

    Raises:
        InputError: an unknown metric, a cut-off above the ranking's depth, another number of users.

    Example:
        >>> right = sparse.csr_array(np.array([[1, 1, 0], [0, 0, 0]]))
        >>> measured = evaluate(rank([[3, 1, 2], [3, 1, 2]], k=2), right, ["recall@2", "mrr@2"])
        >>> measured.mean("recall@2"), measured.mean("mrr@2"), measured.n_skipped
        (0.5, 1.0, 1)
    """
    users, depth = ranking.items.shape
    if positives.shape[0] != users:
        raise InputError(f"evaluate: got positives of {positives.shape[0]} users, expected {users}")
    counts_U = np.diff(positives.indptr).astype(np.int64)
    placed = _judged_ranking(ranking.items, positives, counts_U)
    values: dict[str, Floats] = {}
    for name, (function, cut) in parse_metrics(metrics).items():
        _check_depth(name, cut, depth, ranking, counts_U)
        values[name] = function(placed, cut)
    return MetricResult(values, int((counts_U == 0).sum()), ranking.ties)


def _check_depth(name: str, cutoff: int | None, depth: int, ranking: Ranking, counts_U: Ints) -> None:
    """Refuse what a ranking of this depth cannot tell."""
    whole = bool((ranking.items[:, -1] < 0).all())
    if cutoff is not None and cutoff > depth:
        raise InputError(f"metric {name!r}: expected a cut-off from 1 to the ranking's depth, {depth}")
    if name == "rprec" and not whole and counts_U.max(initial=0) > depth:
        raise InputError(f"metric {name!r}: expected a ranking of depth {counts_U.max()}, got {depth}")
    if name == "auc" and not whole:
        raise InputError(f"metric {name!r}: expected the whole ranking, got one cut at depth {depth}")
    if cutoff is None and name not in ("rprec", "auc"):
        raise InputError(f"metric {name!r}: expected a cut-off from 1 to the ranking's depth, {depth}")


def _judged_ranking(items_UK: Ints, positives: sparse.csr_array, counts_U: Ints) -> JudgedRanking:
    hits_UK = _hit_mask(items_UK, positives)
    row_H, place_H = np.nonzero(hits_UK)
    users = np.repeat(np.arange(len(counts_U)), counts_U)
    return JudgedRanking(
        group_query=row_H,
        group_start=place_H,
        group_size=np.ones_like(row_H),
        group_of=np.arange(len(row_H)),
        gains=np.ones(len(row_H)),
        is_relevant=np.ones(len(row_H), bool),
        n_retrieved=(items_UK >= 0).sum(1),
        ideal_query=users,
        ideal_gains=np.ones(len(users)),
        ideal_is_relevant=np.ones(len(users), bool),
    )


def _hit_mask(items_UK: Ints, positives: sparse.csr_array) -> NDArray[np.bool_]:
    """[U, k] True where the item is a positive of the user: one search in sorted (user, item) keys."""
    users, item_count = positives.shape
    rows = np.repeat(np.arange(users), np.diff(positives.indptr))
    keys = np.sort(rows * item_count + positives.indices)
    if not len(keys):
        return np.zeros(items_UK.shape, bool)
    wanted_UK = np.arange(users)[:, None] * item_count + items_UK
    found_UK = keys[np.searchsorted(keys, wanted_UK).clip(max=len(keys) - 1)] == wanted_UK
    return found_UK & (items_UK >= 0)
