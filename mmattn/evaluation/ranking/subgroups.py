"""The same ranking, looked at apart: popular and rare items, users with much and with no history."""

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
    """Items by how much of the training they hold.

    Args:
        counts: [I] how often each item was chosen, in training.
        shares: the most popular items that hold the first share of all choices are the "head", the next
            up to the second the "middle", the others the "tail". Items that nobody chose are "cold".

    Returns:
        name -> [I]; every item in one of them.

    Example:
        >>> {name: mask.tolist() for name, mask in popularity_groups([5, 0, 3, 2]).items()}["head"]
        [True, False, False, False]
    """
    chosen_I = np.asarray(counts, np.float64)
    if chosen_I.ndim != 1 or not np.isfinite(chosen_I).all() or (chosen_I < 0).any():
        raise InputError(f"popularity: got counts of shape {chosen_I.shape}, expected [I] from 0")
    if not 0 < shares[0] < shares[1] < 1:
        raise InputError(f"popularity: got shares {shares}, expected two that rise between 0 and 1")
    order = np.argsort(-chosen_I, kind="stable")
    held = np.empty(len(chosen_I))
    # What more popular items hold: the first item is in the head however much it holds by itself.
    held[order] = (np.cumsum(chosen_I[order]) - chosen_I[order]) / max(chosen_I.sum(), 1)
    warm = chosen_I > 0
    return {
        "head": warm & (held < shares[0]),
        "middle": warm & (held >= shares[0]) & (held < shares[1]),
        "tail": warm & (held >= shares[1]),
        "cold": ~warm,
    }


def activity_groups(histories: sparse.csr_array, edges: Sequence[int] = (1, 10, 50)) -> dict[str, Bools]:
    """Users by the length of their history.

    Args:
        histories: [U, I], as `Split.histories` gives them.
        edges: rising lengths at which a stratum begins.

    Returns:
        "0", "1 to 9", "10 to 49", "50 and more" -> [U].

    Example:
        >>> list(activity_groups(sparse.csr_array(np.eye(2)), edges=[1, 5]))
        ['0', '1 to 4', '5 and more']
    """
    if not edges or list(edges) != sorted(set(edges)) or edges[0] < 1:
        raise InputError(f"activity: got edges {list(edges)}, expected rising numbers from 1")
    lengths_U = np.diff(histories.indptr)
    starts, ends = [0, *edges], [*edges, None]
    found = {}
    for start, end in zip(starts, ends, strict=True):
        if end is None:
            found[f"{start} and more"] = lengths_U >= start
        else:
            name = str(start) if end == start + 1 else f"{start} to {end - 1}"
            found[name] = (lengths_U >= start) & (lengths_U < end)
    return found


def metrics_by_item_group(
    ranking: Ranking, positives: sparse.csr_array, subgroups: Mapping[str, Bools], metrics: Sequence[str]
) -> dict[str, MetricResult]:
    """Measure how well the items of each stratum are found, in the one ranking of all.

    Args:
        ranking: of U users over all candidates.
        positives: [U, I] what is right.
        subgroups: name -> [I].
        metrics: names with cut-offs.
    """
    return {
        name: evaluate(ranking, _restrict_to_items(positives, mask, name), metrics)
        for name, mask in subgroups.items()
    }


def metrics_by_user_group(measured: MetricResult, subgroups: Mapping[str, Bools]) -> dict[str, MetricResult]:
    """The values of the users in each stratum, NaN for the others.

    Args:
        measured: of U users.
        subgroups: name -> [U].
    """
    found = {}
    for name, mask in subgroups.items():
        values = {metric: np.where(mask, one, np.nan) for metric, one in measured.values.items()}
        missing = np.isnan(next(iter(values.values()))) if values else np.zeros(0, bool)
        found[name] = MetricResult(values, int((missing & mask).sum()), measured.ties)
    return found


def _restrict_to_items(positives: sparse.csr_array, mask: Bools, name: str) -> sparse.csr_array:
    if mask.shape != (positives.shape[1],):
        raise InputError(
            f"stratum {name!r}: got a mask of shape {mask.shape}, expected [{positives.shape[1]}]"
        )
    kept = mask[positives.indices]
    rows = np.repeat(np.arange(positives.shape[0]), np.diff(positives.indptr))[kept]
    return sparse.csr_array((positives.data[kept], (rows, positives.indices[kept])), shape=positives.shape)
