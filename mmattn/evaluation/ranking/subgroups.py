"""Metrics of subgroups of items (by popularity) and of users (by history length) within one ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from mmattn.array_types import Bools
from mmattn.errors import InputError
from mmattn.evaluation.ranking.metrics import MetricResult, Ranking, evaluate

__all__ = ["activity_groups", "metrics_by_item_group", "metrics_by_user_group", "popularity_groups"]


def popularity_groups(counts: ArrayLike, shares: tuple[float, float] = (0.5, 0.8)) -> dict[str, Bools]:
    """Group items by popularity.

    Args:
        counts: [I] number of training interactions of each item.
        shares: cumulative shares of all interactions. The most popular items up to the first share are the
            "head", the next up to the second the "middle", the rest the "tail"; items without interactions
            are "cold".

    Returns:
        Group name -> [I] mask; each item is in exactly one group.

    Raises:
        InputError: counts of the wrong shape, or shares that do not increase between 0 and 1.

    Example:
        >>> {name: mask.tolist() for name, mask in popularity_groups([5, 0, 3, 2]).items()}["head"]
        [True, False, False, False]
    """
    counts_I = np.asarray(counts, np.float64)
    if counts_I.ndim != 1 or not np.isfinite(counts_I).all() or (counts_I < 0).any():
        raise InputError(f"popularity: got counts of shape {counts_I.shape}, expected [I] from 0")
    if not 0 < shares[0] < shares[1] < 1:
        raise InputError(f"popularity: got shares {shares}, expected two increasing numbers between 0 and 1")
    order = np.argsort(-counts_I, kind="stable")
    share_before_I = np.empty(len(counts_I))
    # Share of more popular items: the first item is always in the head.
    share_before_I[order] = (np.cumsum(counts_I[order]) - counts_I[order]) / max(counts_I.sum(), 1)
    warm = counts_I > 0
    return {
        "head": warm & (share_before_I < shares[0]),
        "middle": warm & (share_before_I >= shares[0]) & (share_before_I < shares[1]),
        "tail": warm & (share_before_I >= shares[1]),
        "cold": ~warm,
    }


def activity_groups(histories: sparse.csr_array, edges: Sequence[int] = (1, 10, 50)) -> dict[str, Bools]:
    """Group users by the length of their history.

    Args:
        histories: [U, I], as `Split.histories` returns them.
        edges: increasing lengths at which a group starts.

    Returns:
        Group name ("0", "1 to 9", "10 to 49", "50 and more") -> [U] mask.

    Raises:
        InputError: edges that do not increase from 1.

    Example:
        >>> list(activity_groups(sparse.csr_array(np.eye(2)), edges=[1, 5]))
        ['0', '1 to 4', '5 and more']
    """
    if not edges or list(edges) != sorted(set(edges)) or edges[0] < 1:
        raise InputError(f"activity: got edges {list(edges)}, expected increasing numbers from 1")
    lengths_U = np.diff(histories.indptr)
    starts, ends = [0, *edges], [*edges, None]
    groups = {}
    for start, end in zip(starts, ends, strict=True):
        if end is None:
            groups[f"{start} and more"] = lengths_U >= start
        else:
            name = str(start) if end == start + 1 else f"{start} to {end - 1}"
            groups[name] = (lengths_U >= start) & (lengths_U < end)
    return groups


def metrics_by_item_group(
    ranking: Ranking, positives: sparse.csr_array, subgroups: Mapping[str, Bools], metrics: Sequence[str]
) -> dict[str, MetricResult]:
    """Evaluate the ranking of all items against the relevant items of each group.

    Args:
        ranking: ranking of U users over all candidates.
        positives: [U, I] relevant items.
        subgroups: group name -> [I] mask.
        metrics: metric names with cutoffs.

    Returns:
        Group name -> metrics.

    Raises:
        InputError: a mask of the wrong shape, or metrics that the ranking cannot provide.
    """
    return {
        name: evaluate(ranking, _restrict_to_items(positives, mask, name), metrics)
        for name, mask in subgroups.items()
    }


def metrics_by_user_group(result: MetricResult, subgroups: Mapping[str, Bools]) -> dict[str, MetricResult]:
    """Restrict metrics to the users of each group.

    Args:
        result: metrics of U users.
        subgroups: group name -> [U] mask.

    Returns:
        Group name -> metrics, NaN for users outside the group.
    """
    results = {}
    for name, mask in subgroups.items():
        values = {metric: np.where(mask, values_U, np.nan) for metric, values_U in result.values.items()}
        missing = np.isnan(next(iter(values.values()))) if values else np.zeros(0, bool)
        results[name] = MetricResult(values, int((missing & mask).sum()), result.ties)
    return results


def _restrict_to_items(positives: sparse.csr_array, mask: Bools, name: str) -> sparse.csr_array:
    if mask.shape != (positives.shape[1],):
        raise InputError(
            f"subgroup {name!r}: got a mask of shape {mask.shape}, expected [{positives.shape[1]}]"
        )
    kept = mask[positives.indices]
    rows = np.repeat(np.arange(positives.shape[0]), np.diff(positives.indptr))[kept]
    return sparse.csr_array((positives.data[kept], (rows, positives.indices[kept])), shape=positives.shape)
