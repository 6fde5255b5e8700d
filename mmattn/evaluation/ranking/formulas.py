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
from mmattn.errors import InputError, nearest

__all__ = ["METRICS", "Metric", "Placed", "parse_metric"]

Metric = Callable[["Placed", "int | None"], Floats]

# What stands for "no cut-off": more places than any ranking has.
_EVERYWHERE = 2**62
# 2^gain overflows a double soon after.
_HIGHEST_GRADE = 1000.0


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the documents that count ended up in the rankings of Q queries.

    Args:
        row: [G] query of each group, ascending.
        start: [G] places before the group, ascending within a query.
        size: [G] documents of the group, judged or not; 1 where no tie is left open.
        member: [H] group of each judged document with a gain, ascending.
        gains: [H] its gain, above 0.
        relevant: [H] whether it counts for the binary metrics.
        retrieved: [Q] documents ranked.
        ideal_row: [J] query of each judged document with a gain, ascending, retrieved or not.
        ideal_gains: [J] its gain, descending within a query.
        ideal_relevant: [J] whether it counts for the binary metrics.
    """

    row: Ints
    start: Ints
    size: Ints
    member: Ints
    gains: Floats
    relevant: NDArray[np.bool_]
    retrieved: Ints
    ideal_row: Ints
    ideal_gains: Floats
    ideal_relevant: NDArray[np.bool_]

    @property
    def queries(self) -> int:
        """Q."""
        return len(self.retrieved)

    def positives(self) -> Ints:
        """[Q] relevant documents there are."""
        return np.bincount(self.ideal_row[self.ideal_relevant], minlength=self.queries)

    def hits(self) -> Ints:
        """[G] relevant documents of each group."""
        return np.bincount(self.member[self.relevant], minlength=len(self.row))

    def within(self, cut: int | Ints) -> Ints:
        """[G] places of each group among the first `cut`."""
        return np.minimum(np.maximum(cut - self.start, 0), self.size)

    def per_query(self, weights: Floats | Ints) -> Floats:
        """[G] -> [Q] sums."""
        # Where no group is, bincount counts in integers.
        return np.bincount(self.row, weights, minlength=self.queries).astype(np.float64)

    def first(self) -> tuple[Ints, Ints]:
        """The first group of each query that holds a relevant document, and how many it holds."""
        hits_G = self.hits()
        holding = np.flatnonzero(hits_G)
        first = holding[np.unique(self.row[holding], return_index=True)[1]]
        return first, hits_G[first]


def recall(placed: Placed, cut: int | None) -> Floats:
    """Relevant documents found over relevant documents there are, also where those are more than k."""
    return _over(_found(placed, cut), placed.positives())


def precision(placed: Placed, cut: int | None) -> Floats:
    """Relevant documents found over k, also where fewer were ranked (as trec_eval has it); without a
    cut-off over the documents ranked."""
    found = _found(placed, cut)
    if cut is None:
        found = np.divide(found, placed.retrieved, out=np.zeros_like(found), where=placed.retrieved > 0)
    else:
        found = found / cut
    return np.where(placed.positives() > 0, found, np.nan)


def r_precision(placed: Placed, cut: int | None) -> Floats:
    """Precision at the number of relevant documents."""
    positives = placed.positives()
    within = placed.within(positives[placed.row])
    return _over(placed.per_query(within * placed.hits() / placed.size), positives)


def hit_rate(placed: Placed, cut: int | None) -> Floats:
    """1 where anything relevant was found (trec_eval's success)."""
    first, hits = placed.first()
    size = placed.size[first]
    within = placed.within(_EVERYWHERE if cut is None else cut)[first]
    # All relevant documents of the group fall behind the cut-off: C(size - hits, within) / C(size, within).
    behind = size - hits - within
    missed = np.where(
        behind >= 0,
        np.exp(_log_choose(size - hits, np.minimum(within, size - hits)) - _log_choose(size, within)),
        0.0,
    )
    values = np.zeros(placed.queries)
    values[placed.row[first]] = 1 - missed
    return np.where(placed.positives() > 0, values, np.nan)


def reciprocal_rank(placed: Placed, cut: int | None) -> Floats:
    """1 / place of the first relevant document, 0 without one among the first k."""
    first, hits = placed.first()
    size = placed.size[first]
    reach = np.minimum(placed.within(_EVERYWHERE if cut is None else cut)[first], size - hits + 1)
    owner = np.repeat(np.arange(len(first)), reach)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(reach) - reach, reach)
    # The first of `hits` relevant ones among `size` stands at `place` (from 0).
    chance = np.exp(
        _log_choose(size[owner] - place - 1, hits[owner] - 1) - _log_choose(size[owner], hits[owner])
    )
    weights = chance / (placed.start[first][owner] + place + 1)
    values = np.bincount(placed.row[first][owner], weights, minlength=placed.queries)
    return np.where(placed.positives() > 0, values, np.nan)


def average_precision(placed: Placed, cut: int | None) -> Floats:
    """Mean over the relevant documents of the precision where each is found, 0 for those that are not."""
    hits_G = placed.hits()
    within_G = placed.within(_EVERYWHERE if cut is None else cut)
    before_G = _before(placed, hits_G)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1.0, _deepest(placed) + 1))])
    reciprocals_G = harmonic[placed.start + within_G] - harmonic[placed.start]
    # Other relevant ones of the group that stand before a given one, for each place it lies further down.
    others_G = (hits_G - 1) / np.maximum(placed.size - 1, 1)
    further_G = within_G - (placed.start + 1) * reciprocals_G
    share_G = hits_G / placed.size
    sums = placed.per_query(share_G * ((before_G + 1) * reciprocals_G + others_G * further_G))
    return _over(sums, placed.positives())


def ndcg(placed: Placed, cut: int | None) -> Floats:
    """Gain discounted by log2(place + 1) over the best there could be; the gain is the judgement itself."""
    return _ndcg(placed, cut, placed.gains, placed.ideal_gains)


def ndcg_exponential(placed: Placed, cut: int | None) -> Floats:
    """nDCG with the gain 2^judgement - 1 (Burges et al., "Learning to Rank using Gradient Descent", 2005)."""
    if placed.ideal_gains.max(initial=0) > _HIGHEST_GRADE:
        raise InputError(
            f"metric 'ndcg_exp': got a judgement of {placed.ideal_gains.max():g}, expected at most "
            f"{_HIGHEST_GRADE:g}, since its gain is 2^judgement - 1"
        )
    return _ndcg(placed, cut, np.exp2(placed.gains) - 1, np.exp2(placed.ideal_gains) - 1)


def auc(placed: Placed, cut: int | None) -> Floats:
    """Share of pairs of a relevant and a ranked irrelevant document that stand the right way round.

    A relevant document that was not ranked loses all its pairs. NaN where nothing irrelevant was ranked.
    """
    hits_G = placed.hits()
    irrelevant_Q = placed.retrieved - placed.per_query(hits_G)
    level_G = placed.size - hits_G
    below_G = irrelevant_Q[placed.row] - (placed.start - _before(placed, hits_G)) - level_G
    return _over(placed.per_query(hits_G * (below_G + level_G / 2)), placed.positives() * irrelevant_Q)


METRICS: Mapping[str, Metric] = MappingProxyType(
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
_WITHOUT_CUT = ("rprec", "auc")


def parse_metric(name: str) -> tuple[Metric, int | None]:
    """A metric's name, such as "ndcg@10", "map" or "rprec", as its function and cut-off.

    Raises:
        InputError: no such metric (the nearest is named), or a cut-off it cannot have.

    Example:
        >>> parse_metric("ndcg@10")[1]
        10
    """
    metric, at, cut = name.partition("@")
    if metric not in METRICS:
        raise InputError(f"metric {name!r}: {metric!r} is not one.{nearest(metric, METRICS)}")
    if not at:
        return METRICS[metric], None
    if metric in _WITHOUT_CUT:
        raise InputError(f"metric {name!r}: expected {metric!r}, which has no cut-off")
    if not (cut.isascii() and cut.isdigit()) or int(cut) < 1:
        raise InputError(f"metric {name!r}: got the cut-off {cut!r}, expected a whole number from 1")
    return METRICS[metric], int(cut)


def checked(names: Sequence[str]) -> dict[str, tuple[Metric, int | None]]:
    """The named metrics, each once.

    Raises:
        InputError: none, one twice, or one that `parse_metric` refuses.
    """
    if not names or len(set(names)) < len(names):
        raise InputError(f"metrics: got {list(names)}, expected at least one, and each once")
    return {name: parse_metric(name) for name in names}


def _found(placed: Placed, cut: int | None) -> Floats:
    if cut is None:
        return placed.per_query(placed.hits())
    return placed.per_query(placed.within(cut) * placed.hits() / placed.size)


def _before(placed: Placed, hits_G: Ints) -> Ints:
    """[G] relevant documents of the same query in the groups before."""
    before_G = np.cumsum(hits_G) - hits_G
    opens_G = np.diff(placed.row, prepend=-1) > 0
    return before_G - np.maximum.accumulate(np.where(opens_G, before_G, 0))


def _ndcg(placed: Placed, cut: int | None, gains_H: Floats, ideal_J: Floats) -> Floats:
    limit = _EVERYWHERE if cut is None else cut
    opens_J = np.diff(placed.ideal_row, prepend=-1) > 0
    places_J = np.arange(len(ideal_J))
    places_J -= np.maximum.accumulate(np.where(opens_J, places_J, 0))
    deepest = max(_deepest(placed), int(places_J.max(initial=0)) + 1)
    discounts = 1 / np.log2(np.arange(2.0, deepest + 2))
    summed = np.concatenate([[0.0], np.cumsum(discounts)])
    reached_G = summed[placed.start + placed.within(limit)] - summed[placed.start]
    totals_G = np.bincount(placed.member, gains_H, minlength=len(placed.row))
    counted_J = np.where(places_J < limit, ideal_J * discounts[places_J], 0.0)
    best_Q = np.bincount(placed.ideal_row, counted_J, minlength=placed.queries)
    return _over(placed.per_query(totals_G / placed.size * reached_G), best_Q)


def _deepest(placed: Placed) -> int:
    return int((placed.start + placed.size).max(initial=0))


def _log_choose(n: Ints, k: Ints) -> Floats:
    values: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return values


def _over(values: Floats, base: NDArray[np.floating] | Ints) -> Floats:
    """[Q] quotients, NaN where there is nothing to divide by."""
    return np.divide(values, base, out=np.full(len(values), np.nan), where=base > 0)
