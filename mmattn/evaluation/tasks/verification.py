"""Speaker verification metrics from pairs of vectors: equal error rate and minimum detection cost.

A trial is a pair with a score and a label (same speaker or not). At a threshold, different-speaker pairs with
at least that score are false accepts, same-speaker pairs below it are misses.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.array_types import Bools, Floats, Floats32, Ints
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
    """Detection error tradeoff (DET) curve of a verifier.

    Paper: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.

    Args:
        thresholds: [P] increasing; pairs that score at least as much are accepted. The last one is infinite.
        false_accepts: [P] rate of accepted different-speaker pairs, decreasing from 1 to 0.
        misses: [P] rate of rejected same-speaker pairs, increasing from 0 to 1.
    """

    thresholds: Floats
    false_accepts: Floats
    misses: Floats

    @property
    def equal_error_rate(self) -> float:
        """Error rate at which both errors are equal, linearly interpolated."""
        return float(equal_error_rate(self.false_accepts, self.misses))

    def min_cost(self, prior: float = 0.05, miss_cost: float = 1.0, false_accept_cost: float = 1.0) -> float:
        """Return the minimum normalized detection cost (minDCF) over all thresholds.

        Accepting or rejecting all pairs, whichever is cheaper, costs 1.

        Reference: NIST, "2016 Speaker Recognition Evaluation Plan".

        Args:
            prior: probability of a same-speaker pair.
            miss_cost: cost of a miss.
            false_accept_cost: cost of a false accept.

        Raises:
            InputError: the prior is not between 0 and 1, or a cost is not positive.
        """
        return float(min_detection_cost(self.false_accepts, self.misses, prior, miss_cost, false_accept_cost))


def equal_error_rate(false_accepts: Floats, misses: Floats) -> Floats:
    """Compute the equal error rate, linearly interpolated between thresholds.

    Args:
        false_accepts: [..., P] rates for increasing thresholds, decreasing from 1 to 0.
        misses: [..., P] rates for the same thresholds, increasing from 0 to 1.

    Returns:
        [...] rates at which both errors are equal.

    Example:
        >>> float(equal_error_rate(np.array([1.0, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])))
        0.3333333333333333
    """
    gap = false_accepts - misses
    after = np.argmax(gap <= 0, axis=-1)[..., None]
    before = after - 1

    def take(values: Floats, index: Ints) -> Floats:
        return np.take_along_axis(values, index, -1)[..., 0]

    fraction = take(gap, before) / (take(gap, before) - take(gap, after))
    low, high = take(misses, before), take(misses, after)
    return np.asarray(low + fraction * (high - low))


def min_detection_cost(
    false_accepts: Floats,
    misses: Floats,
    prior: float = 0.05,
    miss_cost: float = 1.0,
    false_accept_cost: float = 1.0,
) -> Floats:
    """Compute the minimum normalized detection cost over thresholds.

    Reference: NIST, "2016 Speaker Recognition Evaluation Plan".

    Args:
        false_accepts: [..., P] rates for increasing thresholds.
        misses: [..., P] rates for the same thresholds.
        prior: probability of a same-speaker pair.
        miss_cost: cost of a miss.
        false_accept_cost: cost of a false accept.

    Returns:
        [...] costs; 1 is the cost of accepting or rejecting all pairs.

    Raises:
        InputError: the prior is not between 0 and 1, or a cost is not positive.

    Example:
        >>> float(min_detection_cost(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.5, 1.0])))
        0.5
    """
    if not 0 < prior < 1 or miss_cost <= 0 or false_accept_cost <= 0:
        raise InputError(
            f"verification: got {prior}, {miss_cost}, {false_accept_cost} as prior and costs, expected "
            "0 < prior < 1 and costs above 0"
        )
    costs = miss_cost * prior * misses + false_accept_cost * (1 - prior) * false_accepts
    return np.asarray(costs.min(-1) / min(miss_cost * prior, false_accept_cost * (1 - prior)))


def error_tradeoff_curve(scores: ArrayLike, same: ArrayLike) -> ErrorTradeoffCurve:
    """Compute the DET curve of trials, through scikit-learn's ROC curve.

    Args:
        scores: [N] similarity of each pair.
        same: [N] boolean, True for same-speaker pairs.

    Returns:
        One point per distinct score, and one above all scores.

    Raises:
        InputError: no same-speaker or no different-speaker pair, or scores that are not finite.

    Example:
        >>> scores, same = [0.9, 0.8, 0.3, 0.7, 0.2, 0.1], [True, True, True, False, False, False]
        >>> curve = error_tradeoff_curve(scores, same)
        >>> round(curve.equal_error_rate, 4)
        0.3333
    """
    from sklearn.metrics import roc_curve

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
    false_accepts_P, hits_P, thresholds_P = roc_curve(same_N, scores_N, drop_intermediate=False)
    return ErrorTradeoffCurve(thresholds_P[::-1], false_accepts_P[::-1], 1 - hits_P[::-1])


def pair_scores(
    vectors: Sequence[Any] | NDArray[Any],
    groups: Sequence[Hashable],
    *,
    max_pairs: int = _MAX_PAIRS,
    seed: int = 0,
) -> tuple[Floats32, Bools]:
    """Compute the cosines of all pairs of vectors, each pair once.

    Args:
        vectors: B vectors of shape [K]; None for a sample without a vector.
        groups: B speakers; None excludes the sample.
        max_pairs: maximum number of pairs; of more, this many are sampled.
        seed: seed of the sampling.

    Returns:
        [N] cosines, and [N] whether both vectors belong to one group.

    Raises:
        InputError: the lengths differ, or fewer than two samples have both a vector and a group.

    Example:
        >>> cosines, same = pair_scores([[1, 0], [2, 0], [0, 1]], ["ann", "ann", "bob"])
        >>> cosines.tolist(), same.tolist()
        ([1.0, 0.0, 0.0], [True, False, False])
    """
    if len(vectors) != len(groups):
        raise InputError(
            f"verification: got {len(vectors)} vectors and {len(groups)} speakers, expected as many"
        )
    present = [
        index
        for index, (vector, group) in enumerate(zip(vectors, groups, strict=True))
        if vector is not None and group is not None
    ]
    if len(present) < 2:
        raise InputError(
            f"verification: got {len(present)} samples with a vector and a speaker, expected two"
        )
    vectors_BK = np.stack([np.asarray(vectors[index], np.float32) for index in present])
    vectors_BK /= np.maximum(np.linalg.norm(vectors_BK, axis=1, keepdims=True), 1e-12)
    group_ids = {group: i for i, group in enumerate(dict.fromkeys(groups[index] for index in present))}
    group_B = np.array([group_ids[groups[index]] for index in present])
    left, right = _sample_pairs(len(present), max_pairs, seed)
    return np.einsum("nk,nk->n", vectors_BK[left], vectors_BK[right]), group_B[left] == group_B[right]


def _sample_pairs(count: int, max_pairs: int, seed: int) -> tuple[Ints, Ints]:
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
    """Evaluate a verifier that compares vectors by their cosine, on all pairs.

    Args:
        predictions: B vectors, as `SpeakerHead.predict` returns them.
        targets: B speakers.
        prior: probability of a same-speaker pair, for the cost.

    Returns:
        "eer" (equal error rate), "min_dcf" (see `ErrorTradeoffCurve.min_cost`) and "pairs" (their number).

    Raises:
        InputError: no same-speaker or no different-speaker pair.

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
