"""Closed-form ranking metrics over groups of equally scored documents.

A tie policy that orders all documents yields groups of one document. Under the policy "expected" a group is a
tie, and each formula is the mean over all orders within the ties (McSherry and Najork, "Computing Information
Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR 2008). The formulas read
judged documents only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError, did_you_mean

__all__ = ["METRICS", "JudgedRanking", "MetricFn", "divide_or_nan", "parse_metric", "parse_metrics"]

MetricFn = Callable[["JudgedRanking", "int | None"], Floats]

# No cutoff: more ranks than any ranking has.
_NO_CUTOFF = 2**62
# 2^gain overflows float64 above 1024.
_MAX_GRADE = 1000.0


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """Positions of the judged documents in the rankings of Q queries.

    Args:
        group_query: [G] query of each group, ascending.
        group_start: [G] number of ranks before the group, ascending within a query.
        group_size: [G] number of documents in the group, judged or not; 1 without an open tie.
        group_of: [H] group of each retrieved document with a gain, ascending.
        gains: [H] gain of each retrieved document, above 0.
        is_relevant: [H] whether it is relevant for the binary metrics.
        n_retrieved: [Q] number of ranked documents.
        ideal_query: [J] query of each judged document with a gain, retrieved or not, ascending.
        ideal_gains: [J] its gain, descending within a query.
        ideal_is_relevant: [J] whether it is relevant for the binary metrics.
    """

    group_query: Ints
    group_start: Ints
    group_size: Ints
    group_of: Ints
    gains: Floats
    is_relevant: NDArray[np.bool_]
    n_retrieved: Ints
    ideal_query: Ints
    ideal_gains: Floats
    ideal_is_relevant: NDArray[np.bool_]

    @property
    def n_queries(self) -> int:
        """Number of queries Q."""
        return len(self.n_retrieved)

    def n_relevant(self) -> Ints:
        """Count the relevant documents of each query, [Q]."""
        return np.bincount(self.ideal_query[self.ideal_is_relevant], minlength=self.n_queries)

    def hits(self) -> Ints:
        """Count the relevant documents of each group, [G]."""
        return np.bincount(self.group_of[self.is_relevant], minlength=len(self.group_query))

    def size_within(self, cutoff: int | Ints) -> Ints:
        """Count the ranks of each group among the first `cutoff`.

        Args:
            cutoff: number of ranks, one for all or [G].

        Returns:
            [G] counts.
        """
        return np.minimum(np.maximum(cutoff - self.group_start, 0), self.group_size)

    def sum_per_query(self, weights: Floats | Ints) -> Floats:
        """Sum values of groups per query.

        Args:
            weights: [G] values.

        Returns:
            [Q] sums.
        """
        # Without groups, bincount returns integers.
        return np.bincount(self.group_query, weights, minlength=self.n_queries).astype(np.float64)

    def first_relevant(self) -> tuple[Ints, Ints]:
        """Return the first group with a relevant document of each query, and its number of them."""
        hits_G = self.hits()
        with_hits = np.flatnonzero(hits_G)
        first = with_hits[np.unique(self.group_query[with_hits], return_index=True)[1]]
        return first, hits_G[first]


def recall(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute recall: relevant retrieved / relevant, also where more than `cutoff` are relevant.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    return divide_or_nan(_relevant_retrieved(ranking, cutoff), ranking.n_relevant())


def precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute precision: relevant retrieved / cutoff, also where fewer are ranked (as trec_eval).

    Without a cutoff, the denominator is the number of ranked documents.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    values = _relevant_retrieved(ranking, cutoff)
    if cutoff is None:
        retrieved_Q = ranking.n_retrieved
        values = np.divide(values, retrieved_Q, out=np.zeros_like(values), where=retrieved_Q > 0)
    else:
        values = values / cutoff
    return np.where(ranking.n_relevant() > 0, values, np.nan)


def r_precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute R-precision: precision at the number of relevant documents.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: ignored.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    positives = ranking.n_relevant()
    within = ranking.size_within(positives[ranking.group_query])
    return divide_or_nan(ranking.sum_per_query(within * ranking.hits() / ranking.group_size), positives)


def hit_rate(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute the hit rate: 1 if any relevant document is retrieved (trec_eval's success).

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    first, hits = ranking.first_relevant()
    size = ranking.group_size[first]
    within = ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)[first]
    # P(all relevant documents of the group rank below the cutoff) = C(size - hits, within) / C(size, within).
    n_below = size - hits - within
    missed = np.where(
        n_below >= 0,
        np.exp(_log_choose(size - hits, np.minimum(within, size - hits)) - _log_choose(size, within)),
        0.0,
    )
    values = np.zeros(ranking.n_queries)
    values[ranking.group_query[first]] = 1 - missed
    return np.where(ranking.n_relevant() > 0, values, np.nan)


def reciprocal_rank(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute the reciprocal rank of the first relevant document; 0 without one above the cutoff.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    first, hits = ranking.first_relevant()
    size = ranking.group_size[first]
    reach = np.minimum(ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)[first], size - hits + 1)
    owner = np.repeat(np.arange(len(first)), reach)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(reach) - reach, reach)
    # P(the first of `hits` relevant documents among `group_size` is at `offset`, counted from 0).
    probability = np.exp(
        _log_choose(size[owner] - offset - 1, hits[owner] - 1) - _log_choose(size[owner], hits[owner])
    )
    weights = probability / (ranking.group_start[first][owner] + offset + 1)
    values = np.bincount(ranking.group_query[first][owner], weights, minlength=ranking.n_queries)
    return np.where(ranking.n_relevant() > 0, values, np.nan)


def average_precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute average precision: the mean precision at each relevant document, 0 if not retrieved.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    hits_G = ranking.hits()
    within_G = ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)
    before_G = _relevant_before(ranking, hits_G)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, _max_depth(ranking) + 1))])
    reciprocals_G = harmonic[ranking.group_start + within_G] - harmonic[ranking.group_start]
    # Expected relevant documents of the same group above a given one, per rank within the group.
    others_G = (hits_G - 1) / np.maximum(ranking.group_size - 1, 1)
    offsets_G = within_G - (ranking.group_start + 1) * reciprocals_G
    share_G = hits_G / ranking.group_size
    sums = ranking.sum_per_query(share_G * ((before_G + 1) * reciprocals_G + others_G * offsets_G))
    return divide_or_nan(sums, ranking.n_relevant())


def ndcg(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute nDCG with linear gains and the discount log2(rank + 1).

    Paper: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    return _ndcg(ranking, cutoff, ranking.gains, ranking.ideal_gains)


def ndcg_exponential(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute nDCG with the gain 2^judgement - 1.

    Paper: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: number of ranks that count; None for all.

    Returns:
        [Q] values; NaN for queries without a relevant document.

    Raises:
        InputError: a judgement so large that its gain overflows.
    """
    if ranking.ideal_gains.max(initial=0) > _MAX_GRADE:
        raise InputError(
            f"metric 'ndcg_exp': got a judgement of {ranking.ideal_gains.max():g}, expected at most "
            f"{_MAX_GRADE:g}, since its gain is 2^judgement - 1"
        )
    return _ndcg(ranking, cutoff, np.exp2(ranking.gains) - 1, np.exp2(ranking.ideal_gains) - 1)


def auc(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Compute AUC: the fraction of (relevant, ranked irrelevant) pairs in the correct order.

    A relevant document that is not ranked loses all its pairs. NaN also without a ranked irrelevant document.

    Args:
        ranking: judged documents in the rankings of Q queries.
        cutoff: ignored.

    Returns:
        [Q] values; NaN for queries without a relevant document.
    """
    hits_G = ranking.hits()
    irrelevant_Q = ranking.n_retrieved - ranking.sum_per_query(hits_G)
    level_G = ranking.group_size - hits_G
    below_G = (
        irrelevant_Q[ranking.group_query]
        - (ranking.group_start - _relevant_before(ranking, hits_G))
        - level_G
    )
    return divide_or_nan(
        ranking.sum_per_query(hits_G * (below_G + level_G / 2)), ranking.n_relevant() * irrelevant_Q
    )


METRICS: Mapping[str, MetricFn] = MappingProxyType(
    {
        "recall": recall,
        "ndcg": ndcg,
        "ndcg_exp": ndcg_exponential,
        "mrr": reciprocal_rank,
        "map": average_precision,
        "precision": precision,
        "hit": hit_rate,
        "rprec": r_precision,
        "auc": auc,
    }
)
_WITHOUT_CUTOFF = ("rprec", "auc")


def parse_metric(name: str) -> tuple[MetricFn, int | None]:
    """Parse the name of a metric into its function and cutoff.

    Args:
        name: for example "ndcg@10", "map" or "rprec".

    Raises:
        InputError: an unknown metric (the message names the nearest), or an invalid cutoff.

    Example:
        >>> parse_metric("ndcg@10")[1]
        10
    """
    metric, at, cutoff = name.partition("@")
    if metric not in METRICS:
        raise InputError(f"metric {name!r}: {metric!r} is not one.{did_you_mean(metric, METRICS)}")
    if not at:
        return METRICS[metric], None
    if metric in _WITHOUT_CUTOFF:
        raise InputError(f"metric {name!r}: expected {metric!r}, which has no cutoff")
    if not (cutoff.isascii() and cutoff.isdigit()) or int(cutoff) < 1:
        raise InputError(f"metric {name!r}: got the cutoff {cutoff!r}, expected a whole number from 1")
    return METRICS[metric], int(cutoff)


def parse_metrics(names: Sequence[str]) -> dict[str, tuple[MetricFn, int | None]]:
    """Parse several metric names.

    Args:
        names: metric names, without duplicates.

    Returns:
        Name -> function and cutoff.

    Raises:
        InputError: no name, a duplicate, an unknown metric or an invalid cutoff.
    """
    if not names or len(set(names)) < len(names):
        raise InputError(f"metrics: got {list(names)}, expected at least one, and each once")
    return {name: parse_metric(name) for name in names}


def _relevant_retrieved(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    if cutoff is None:
        return ranking.sum_per_query(ranking.hits())
    return ranking.sum_per_query(ranking.size_within(cutoff) * ranking.hits() / ranking.group_size)


def _relevant_before(ranking: JudgedRanking, hits_G: Ints) -> Ints:
    """Count the relevant documents of the same query in earlier groups, [G]."""
    before_G = np.cumsum(hits_G) - hits_G
    is_first_G = np.diff(ranking.group_query, prepend=-1) > 0
    return before_G - np.maximum.accumulate(np.where(is_first_G, before_G, 0))


def _ndcg(ranking: JudgedRanking, cutoff: int | None, gains_H: Floats, ideal_J: Floats) -> Floats:
    limit = _NO_CUTOFF if cutoff is None else cutoff
    is_first_J = np.diff(ranking.ideal_query, prepend=-1) > 0
    ranks_J = np.arange(len(ideal_J))
    ranks_J -= np.maximum.accumulate(np.where(is_first_J, ranks_J, 0))
    depth = max(_max_depth(ranking), int(ranks_J.max(initial=0)) + 1)
    discounts = 1 / np.log2(np.arange(2.0, depth + 2))
    cumulative = np.concatenate([[0.0], np.cumsum(discounts)])
    discount_G = (
        cumulative[ranking.group_start + ranking.size_within(limit)] - cumulative[ranking.group_start]
    )
    totals_G = np.bincount(ranking.group_of, gains_H, minlength=len(ranking.group_query))
    discounted_J = np.where(ranks_J < limit, ideal_J * discounts[ranks_J], 0.0)
    ideal_Q = np.bincount(ranking.ideal_query, discounted_J, minlength=ranking.n_queries)
    return divide_or_nan(ranking.sum_per_query(totals_G / ranking.group_size * discount_G), ideal_Q)


def _max_depth(ranking: JudgedRanking) -> int:
    return int((ranking.group_start + ranking.group_size).max(initial=0))


def _log_choose(n: Ints, k: Ints) -> Floats:
    values: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return values


def divide_or_nan(values: Floats | Ints, denominators: NDArray[np.floating] | Ints) -> Floats:
    """Divide elementwise; NaN where the denominator is not positive.

    Args:
        values: [Q] numerators.
        denominators: [Q] denominators.
    """
    quotients = np.full(len(values), np.nan)
    np.divide(values, denominators, out=quotients, where=denominators > 0)
    return quotients
