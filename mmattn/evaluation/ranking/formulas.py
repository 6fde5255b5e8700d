"""Every ranking metric, once, in closed form over groups of equally scored documents.

A tie policy that orders every document makes each group one document large; under the policy "expected"
a group is a tie, and each formula is the mean over all orders within the ties (McSherry and Najork,
"Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores", ECIR
2008). One set of formulas serves both, and touches judged documents only.
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

__all__ = ["METRICS", "JudgedRanking", "MetricFn", "parse_metric"]

MetricFn = Callable[["JudgedRanking", "int | None"], Floats]

# What stands for "no cut-off": more places than any ranking has.
_NO_CUTOFF = 2**62
# 2^gain overflows a double soon after.
_MAX_GRADE = 1000.0


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """Where the documents that count ended up in the rankings of Q queries.

    Args:
        group_query: [G] query of each group, ascending.
        group_start: [G] places before the group, ascending within a query.
        group_size: [G] documents of the group, judged or not; 1 where no tie is left open.
        group_of: [H] group of each judged document with a gain, ascending.
        gains: [H] its gain, above 0.
        is_relevant: [H] whether it counts for the binary metrics.
        n_retrieved: [Q] documents ranked.
        ideal_query: [J] query of each judged document with a gain, ascending, retrieved or not.
        ideal_gains: [J] its gain, descending within a query.
        ideal_is_relevant: [J] whether it counts for the binary metrics.
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
        """Q."""
        return len(self.n_retrieved)

    def n_relevant(self) -> Ints:
        """[Q] relevant documents there are."""
        return np.bincount(self.ideal_query[self.ideal_is_relevant], minlength=self.n_queries)

    def hits(self) -> Ints:
        """[G] relevant documents of each group."""
        return np.bincount(self.group_of[self.is_relevant], minlength=len(self.group_query))

    def size_within(self, cutoff: int | Ints) -> Ints:
        """[G] places of each group among the first `cutoff`."""
        return np.minimum(np.maximum(cutoff - self.group_start, 0), self.group_size)

    def sum_per_query(self, weights: Floats | Ints) -> Floats:
        """[G] -> [Q] sums."""
        # Where no group is, bincount counts in integers.
        return np.bincount(self.group_query, weights, minlength=self.n_queries).astype(np.float64)

    def first_relevant(self) -> tuple[Ints, Ints]:
        """The first group of each query that holds a relevant document, and how many it holds."""
        hits_G = self.hits()
        holding = np.flatnonzero(hits_G)
        first = holding[np.unique(self.group_query[holding], return_index=True)[1]]
        return first, hits_G[first]


def recall(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Relevant documents found over relevant documents there are, also where those are more than k."""
    return _divide_or_nan(_relevant_retrieved(ranking, cutoff), ranking.n_relevant())


def precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Relevant documents found over k, also where fewer were ranked (as trec_eval has it); without a
    cut-off over the documents ranked."""
    found = _relevant_retrieved(ranking, cutoff)
    if cutoff is None:
        found = np.divide(found, ranking.n_retrieved, out=np.zeros_like(found), where=ranking.n_retrieved > 0)
    else:
        found = found / cutoff
    return np.where(ranking.n_relevant() > 0, found, np.nan)


def r_precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Precision at the number of relevant documents."""
    positives = ranking.n_relevant()
    within = ranking.size_within(positives[ranking.group_query])
    return _divide_or_nan(ranking.sum_per_query(within * ranking.hits() / ranking.group_size), positives)


def hit_rate(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """1 where anything relevant was found (trec_eval's success)."""
    first, hits = ranking.first_relevant()
    size = ranking.group_size[first]
    within = ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)[first]
    # All relevant documents of the group fall behind the cut-off: C(size - hits, within) / C(size, within).
    behind = size - hits - within
    missed = np.where(
        behind >= 0,
        np.exp(_log_choose(size - hits, np.minimum(within, size - hits)) - _log_choose(size, within)),
        0.0,
    )
    values = np.zeros(ranking.n_queries)
    values[ranking.group_query[first]] = 1 - missed
    return np.where(ranking.n_relevant() > 0, values, np.nan)


def reciprocal_rank(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """1 / place of the first relevant document, 0 without one among the first k."""
    first, hits = ranking.first_relevant()
    size = ranking.group_size[first]
    reach = np.minimum(ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)[first], size - hits + 1)
    owner = np.repeat(np.arange(len(first)), reach)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(reach) - reach, reach)
    # The first of `hits` relevant ones among `group_size` stands at `place` (from 0).
    chance = np.exp(
        _log_choose(size[owner] - place - 1, hits[owner] - 1) - _log_choose(size[owner], hits[owner])
    )
    weights = chance / (ranking.group_start[first][owner] + place + 1)
    values = np.bincount(ranking.group_query[first][owner], weights, minlength=ranking.n_queries)
    return np.where(ranking.n_relevant() > 0, values, np.nan)


def average_precision(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Mean over the relevant documents of the precision where each is found, 0 for those that are not."""
    hits_G = ranking.hits()
    within_G = ranking.size_within(_NO_CUTOFF if cutoff is None else cutoff)
    before_G = _relevant_before(ranking, hits_G)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, _max_depth(ranking) + 1))])
    reciprocals_G = harmonic[ranking.group_start + within_G] - harmonic[ranking.group_start]
    # Other relevant ones of the group that stand before a given one, for each place it lies further down.
    others_G = (hits_G - 1) / np.maximum(ranking.group_size - 1, 1)
    further_G = within_G - (ranking.group_start + 1) * reciprocals_G
    share_G = hits_G / ranking.group_size
    sums = ranking.sum_per_query(share_G * ((before_G + 1) * reciprocals_G + others_G * further_G))
    return _divide_or_nan(sums, ranking.n_relevant())


def ndcg(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Gain discounted by log2(place + 1) over the best there could be; the gain is the judgement itself."""
    return _ndcg(ranking, cutoff, ranking.gains, ranking.ideal_gains)


def ndcg_exponential(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """nDCG with the gain 2^judgement - 1 (Burges et al., "Learning to Rank using Gradient Descent", 2005)."""
    if ranking.ideal_gains.max(initial=0) > _MAX_GRADE:
        raise InputError(
            f"metric 'ndcg_exp': got a judgement of {ranking.ideal_gains.max():g}, expected at most "
            f"{_MAX_GRADE:g}, since its gain is 2^judgement - 1"
        )
    return _ndcg(ranking, cutoff, np.exp2(ranking.gains) - 1, np.exp2(ranking.ideal_gains) - 1)


def auc(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    """Share of pairs of a relevant and a ranked irrelevant document that stand the right way round.

    A relevant document that was not ranked loses all its pairs. NaN where nothing irrelevant was ranked.
    """
    hits_G = ranking.hits()
    irrelevant_Q = ranking.n_retrieved - ranking.sum_per_query(hits_G)
    level_G = ranking.group_size - hits_G
    below_G = (
        irrelevant_Q[ranking.group_query]
        - (ranking.group_start - _relevant_before(ranking, hits_G))
        - level_G
    )
    return _divide_or_nan(
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
    """A metric's name, such as "ndcg@10", "map" or "rprec", as its function and cut-off.

    Raises:
        InputError: no such metric (the nearest is named), or a cut-off it cannot have.

    Example:
        >>> parse_metric("ndcg@10")[1]
        10
    """
    metric, at, cut = name.partition("@")
    if metric not in METRICS:
        raise InputError(f"metric {name!r}: {metric!r} is not one.{did_you_mean(metric, METRICS)}")
    if not at:
        return METRICS[metric], None
    if metric in _WITHOUT_CUTOFF:
        raise InputError(f"metric {name!r}: expected {metric!r}, which has no cut-off")
    if not (cut.isascii() and cut.isdigit()) or int(cut) < 1:
        raise InputError(f"metric {name!r}: got the cut-off {cut!r}, expected a whole number from 1")
    return METRICS[metric], int(cut)


def parse_metrics(names: Sequence[str]) -> dict[str, tuple[MetricFn, int | None]]:
    """The named metrics, each once.

    Raises:
        InputError: none, one twice, or one that `parse_metric` refuses.
    """
    if not names or len(set(names)) < len(names):
        raise InputError(f"metrics: got {list(names)}, expected at least one, and each once")
    return {name: parse_metric(name) for name in names}


def _relevant_retrieved(ranking: JudgedRanking, cutoff: int | None) -> Floats:
    if cutoff is None:
        return ranking.sum_per_query(ranking.hits())
    return ranking.sum_per_query(ranking.size_within(cutoff) * ranking.hits() / ranking.group_size)


def _relevant_before(ranking: JudgedRanking, hits_G: Ints) -> Ints:
    """[G] relevant documents of the same query in the groups before."""
    before_G = np.cumsum(hits_G) - hits_G
    opens_G = np.diff(ranking.group_query, prepend=-1) > 0
    return before_G - np.maximum.accumulate(np.where(opens_G, before_G, 0))


def _ndcg(ranking: JudgedRanking, cutoff: int | None, gains_H: Floats, ideal_J: Floats) -> Floats:
    limit = _NO_CUTOFF if cutoff is None else cutoff
    opens_J = np.diff(ranking.ideal_query, prepend=-1) > 0
    places_J = np.arange(len(ideal_J))
    places_J -= np.maximum.accumulate(np.where(opens_J, places_J, 0))
    deepest = max(_max_depth(ranking), int(places_J.max(initial=0)) + 1)
    discounts = 1 / np.log2(np.arange(2.0, deepest + 2))
    summed = np.concatenate([[0.0], np.cumsum(discounts)])
    reached_G = summed[ranking.group_start + ranking.size_within(limit)] - summed[ranking.group_start]
    totals_G = np.bincount(ranking.group_of, gains_H, minlength=len(ranking.group_query))
    counted_J = np.where(places_J < limit, ideal_J * discounts[places_J], 0.0)
    best_Q = np.bincount(ranking.ideal_query, counted_J, minlength=ranking.n_queries)
    return _divide_or_nan(ranking.sum_per_query(totals_G / ranking.group_size * reached_G), best_Q)


def _max_depth(ranking: JudgedRanking) -> int:
    return int((ranking.group_start + ranking.group_size).max(initial=0))


def _log_choose(n: Ints, k: Ints) -> Floats:
    values: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return values


def _divide_or_nan(values: Floats, denominators: NDArray[np.floating] | Ints) -> Floats:
    """[Q] quotients, NaN where there is nothing to divide by."""
    return np.divide(values, denominators, out=np.full(len(values), np.nan), where=denominators > 0)
