"""Are these two recordings of one speaker? What vectors say of pairs, measured as verification is.

A trial is a pair with a score and whether both sides are the same. At a threshold, different pairs at or
above it are accepted wrongly, same pairs below it are missed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.array_types import Floats
from mmattn.errors import InputError

__all__ = [
    "ErrorTradeoffCurve",
    "equal_error_rate",
    "error_tradeoff_curve",
    "min_detection_cost",
    "pair_scores",
    "verification_metrics",
]  # fmt: skip


_MAX_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False)
class ErrorTradeoffCurve:
    """The trade-off of a verifier, threshold by threshold: the points of its DET curve.

    Paper: Martin et al., "The DET curve in assessment of detection task performance", 1997.

    Args:
        thresholds: [P] rising; pairs that score at least as much are accepted. The last accepts nothing.
        false_accepts: [P] share of the different pairs that is accepted, falling from 1 to 0.
        misses: [P] share of the same pairs that is not, rising from 0 to 1.
    """

    thresholds: NDArray[np.float64]
    false_accepts: NDArray[np.float64]
    misses: NDArray[np.float64]

    @property
    def equal_error_rate(self) -> float:
        """Where both errors are the same, on the straight line between the points around it."""
        return float(equal_error_rate(self.false_accepts, self.misses))

    def min_cost(self, prior: float = 0.05, miss_cost: float = 1.0, false_accept_cost: float = 1.0) -> float:
        """The least detection cost (minDCF) at any threshold; 1 is what accepting or refusing all costs.

        Paper: NIST, "2016 Speaker Recognition Evaluation Plan".

        Args:
            prior: probability that a pair is of one speaker.
            miss_cost: cost of a miss.
            false_accept_cost: cost of accepting wrongly.
        """
        return float(min_detection_cost(self.false_accepts, self.misses, prior, miss_cost, false_accept_cost))


def equal_error_rate(false_accepts: Floats, misses: Floats) -> Floats:
    """Where both errors are the same, on the straight line between the thresholds around it.

    Args:
        false_accepts: [..., P] falling from 1 to 0 as the threshold rises.
        misses: [..., P] rising from 0 to 1.

    Returns:
        [...] the error there.

    Example:
        >>> float(equal_error_rate(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])))
        0.3333333333333333
    """
    gap = false_accepts - misses
    ahead = np.argmax(gap <= 0, axis=-1)[..., None]
    before = ahead - 1

    def at(values: Floats, place: NDArray[np.int64]) -> Floats:
        return np.take_along_axis(values, place, -1)[..., 0]

    share = at(gap, before) / (at(gap, before) - at(gap, ahead))
    low, high = at(misses, before), at(misses, ahead)
    return np.asarray(low + share * (high - low))


def min_detection_cost(
    false_accepts: Floats,
    misses: Floats,
    prior: float = 0.05,
    miss_cost: float = 1.0,
    false_accept_cost: float = 1.0,
) -> Floats:
    """[...] the least detection cost over the thresholds of [..., P]: see `ErrorTradeoffCurve.min_cost`.

    Raises:
        InputError: no probability, or costs that are none.
    """
    if not 0 < prior < 1 or miss_cost <= 0 or false_accept_cost <= 0:
        raise InputError(
            f"verification: got {prior}, {miss_cost}, {false_accept_cost} as prior and costs, expected 0 < prior < 1 and "
            "costs above 0"
        )
    costs = miss_cost * prior * misses + false_accept_cost * (1 - prior) * false_accepts
    return np.asarray(costs.min(-1) / min(miss_cost * prior, false_accept_cost * (1 - prior)))


def error_tradeoff_curve(scores: ArrayLike, same: ArrayLike) -> ErrorTradeoffCurve:
    """The points of the curve, one for each score that occurs and one above all; equal scores share one.

    Args:
        scores: [N] of trials, higher where the two are more alike.
        same: [N] boolean, whether they are one speaker.

    Raises:
        InputError: no same or no different pair, or scores that are not finite.

    Example:
        >>> curve = error_tradeoff_curve([0.9, 0.8, 0.3, 0.7, 0.2, 0.1], [True, True, True, False, False, False])
        >>> round(curve.equal_error_rate, 4)
        0.3333
    """
    scores_N, same_N = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores_N.shape != same_N.shape or scores_N.ndim != 1 or not np.isfinite(scores_N).all():
        raise InputError(
            f"verification: got scores {scores_N.shape}, answers {same_N.shape}, expected finite [N] and [N]"
        )
    count = int(same_N.sum())
    if not 0 < count < len(same_N):
        raise InputError(
            f"verification: got {count} same and {len(same_N) - count} different pairs, expected some of both"
        )
    thresholds, place_N = np.unique(scores_N, return_inverse=True)
    same_P = np.bincount(place_N[same_N], minlength=len(thresholds))
    other_P = np.bincount(place_N[~same_N], minlength=len(thresholds))
    return ErrorTradeoffCurve(
        thresholds=np.append(thresholds, np.inf),
        false_accepts=1 - np.append(0, other_P.cumsum()) / (len(same_N) - count),
        misses=np.append(0, same_P.cumsum()) / count,
    )


def pair_scores(
    vectors: Sequence[Any] | NDArray[Any],
    groups: Sequence[Hashable],
    *,
    max_pairs: int = _MAX_PAIRS,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Cosines of all pairs of vectors, each pair once, and whether the two are of one group.

    Args:
        vectors: [B] vectors [K]; None where a sample has none.
        groups: [B] the speakers; a sample with None takes no part.
        max_pairs: pairs at most; of more, so many are drawn.
        seed: of the drawing.

    Raises:
        InputError: as many groups as vectors are expected, with two of each at least.
    """
    if len(vectors) != len(groups):
        raise InputError(
            f"verification: got {len(vectors)} vectors and {len(groups)} speakers, expected as many"
        )
    there = [
        place
        for place, (vector, group) in enumerate(zip(vectors, groups, strict=True))
        if vector is not None and group is not None
    ]
    if len(there) < 2:
        raise InputError(f"verification: got {len(there)} samples with a vector and a speaker, expected two")
    x_BK = np.stack([np.asarray(vectors[place], np.float32) for place in there])
    x_BK /= np.maximum(np.linalg.norm(x_BK, axis=1, keepdims=True), 1e-12)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups[place] for place in there))}
    group_B = np.array([names[groups[place]] for place in there])
    left, right = _sample_pairs(len(there), max_pairs, seed)
    return np.einsum("nk,nk->n", x_BK[left], x_BK[right]), group_B[left] == group_B[right]


def _sample_pairs(count: int, max_pairs: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    total = count * (count - 1) // 2
    if total <= max_pairs:
        left, right = np.triu_indices(count, 1)
        return left, right
    rng = np.random.default_rng(seed)
    left, step = rng.integers(count, size=max_pairs), rng.integers(1, count, size=max_pairs)
    return left, (left + step) % count


def verification_metrics(
    predictions: Sequence[Any], targets: Sequence[Hashable], *, prior: float = 0.05
) -> dict[str, float]:
    """What a verifier that compares these vectors by their cosine does on all pairs of them.

    Args:
        predictions: [B] vectors, as `SpeakerHead.predict` gives them.
        targets: [B] speakers.
        prior: of a pair of one speaker, for the cost.

    Returns:
        "eer" (equal error rate), "min_dcf" (least cost, see `ErrorTradeoffCurve.min_cost`), "pairs".

    Raises:
        InputError: all are of one speaker, or no two of them are.

    Example:
        >>> verification_metrics([[1, 0], [1, 0], [0, 1], [0, 1]], ["ann", "ann", "bob", "bob"])
        {'eer': 0.0, 'min_dcf': 0.0, 'pairs': 6.0}
    """
    scores, same = pair_scores(predictions, targets)
    curve = error_tradeoff_curve(scores, same)
    return {
        "eer": curve.equal_error_rate,
        "min_dcf": curve.min_cost(prior),
        "pairs": float(len(scores)),
    }
