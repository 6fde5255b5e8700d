"""Paired comparisons of systems over users or queries, with seeds pooled.

All seeds share the same users, so a user is resampled, or its sign flipped, in all seeds at once. Both the
randomization and the bootstrap test are reported; they usually agree (Smucker, Allan and Carterette, "A
Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM 2007).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.statistics.bootstrap import Interval, paired_bootstrap

__all__ = ["Comparison", "compare_systems", "holm_correction", "randomization_test"]


# Up to this many users, all sign assignments are enumerated.
_MAX_EXACT_USERS = 14
# Differences below this are rounding errors of the summation order.
_TOLERANCE = 1e-12
_MAX_SIGNS = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """Comparison of two systems on one metric.

    Args:
        metric: name of the metric.
        system: name of the first system; a positive difference is in its favor.
        baseline: name of the second system.
        difference: system - baseline with its paired bootstrap interval.
        p_value: two-sided p-value of the paired randomization test.
        adjusted_p_value: p-value with Holm's correction for all comparisons made together.
        effect_size: mean over standard deviation of the users' differences (Cohen's d of paired values); 0
            where nobody differs, infinite where all differ by the same.
        wins: number of users for whom the system is better, averaged over seeds.
        losses: number of users for whom the baseline is better.
        ties: number of other users.
        per_user: [U] difference of each user, averaged over seeds; NaN for users without values.
    """

    metric: str
    system: str
    baseline: str
    difference: Interval
    p_value: float
    adjusted_p_value: float
    effect_size: float
    wins: int
    losses: int
    ties: int
    per_user: Floats = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return what `mmattn compare --json` prints; an infinite effect size is null."""
        names = ("metric", "system", "baseline", "p_value", "adjusted_p_value", "wins", "losses", "ties")
        return {
            **{name: getattr(self, name) for name in names},
            "effect_size": self.effect_size if np.isfinite(self.effect_size) else None,
            "difference": self.difference.to_json(),
        }


def compare_systems(
    systems: Mapping[str, Mapping[str, ArrayLike]],
    *,
    baseline: str | None = None,
    all_pairs: bool = False,
    n_resamples: int = 10_000,
    confidence_level: float = 0.95,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare systems that were evaluated on the same users and seeds.

    Args:
        systems: system name -> metric -> [U] or [S, U] values; NaN where a user has no value.
        baseline: system that the others are compared with; by default the first.
        all_pairs: compare all pairs of systems instead.
        n_resamples: number of random sign assignments and of bootstrap resamples.
        confidence_level: coverage of the intervals.
        seed: seed of both.

    Returns:
        One comparison per metric and pair.

    Raises:
        InputError: fewer than two systems, an unknown baseline, or systems with different metrics or users.

    Example:
        >>> systems = {"old": {"mrr": [0.1, 0.5, 0.2]}, "new": {"mrr": [0.4, 0.6, 0.2]}}
        >>> comparison = compare_systems(systems)[0]
        >>> comparison.system, round(comparison.difference.mean, 4), comparison.wins, comparison.p_value
        ('new', 0.1333, 2, 0.5)
    """
    names = list(systems)
    if len(names) < 2:
        raise InputError(f"compare: got {len(names)} systems, expected at least two")
    if baseline is not None and baseline not in systems:
        raise InputError(
            f"compare: no system {baseline!r} to be the baseline.{did_you_mean(baseline, names)}"
        )
    metrics = list(systems[names[0]])
    for name in names:
        if set(systems[name]) != set(metrics) or not metrics:
            raise InputError(
                f"compare: {name!r} has metrics {sorted(systems[name])}, expected {sorted(metrics)} as "
                f"{names[0]!r} has"
            )
    reference = names[0] if baseline is None else baseline
    pairs = [(name, reference) for name in names if name != reference]
    if all_pairs:
        pairs = [(second, first) for first, second in itertools.combinations(names, 2)]
    comparisons = [
        _compare_pair(
            metric, system, other, systems[system][metric], systems[other][metric],
            n_resamples=n_resamples, confidence_level=confidence_level, seed=seed,
        )
        for metric in metrics
        for system, other in pairs
    ]  # fmt: skip
    adjusted = holm_correction([comparison.p_value for comparison in comparisons])
    return tuple(
        replace(comparison, adjusted_p_value=float(p_value))
        for comparison, p_value in zip(comparisons, adjusted, strict=True)
    )


def randomization_test(
    ours: ArrayLike, theirs: ArrayLike, *, n_resamples: int = 10_000, seed: int = 0
) -> float:
    """Compute the two-sided p-value of Fisher's paired randomization test.

    Under the null hypothesis, the two values of a user are exchangeable. The p-value is the fraction of
    exchanges with a mean difference at least as large as observed: of all exchanges if at most 14 users
    differ, otherwise of random ones, with the observed assignment included.

    Reference: Fisher, "The Design of Experiments", 1935.

    Args:
        ours: [U] or [S, U] values of one system; a user is exchanged in all seeds at once.
        theirs: values of the other system for the same users and seeds.
        n_resamples: number of random exchanges.
        seed: seed of the exchanges.

    Raises:
        InputError: the systems were not measured on the same users and seeds.

    Example:
        >>> randomization_test([0.5, 0.7, 0.9], [0.1, 0.2, 0.3])
        0.25
    """
    weights_U = _user_contributions(_differences(ours, theirs))
    weights_U = weights_U[weights_U != 0]
    observed = abs(weights_U.sum())
    users = len(weights_U)
    if users <= _MAX_EXACT_USERS:
        signs_RU = 1.0 - 2 * ((np.arange(2**users)[:, None] >> np.arange(users)) & 1)
        return float((np.abs(signs_RU @ weights_U) >= observed - _TOLERANCE).mean())
    rng = np.random.default_rng(seed)
    block = max(1, _MAX_SIGNS // users)
    reached = 1
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        bits_RU = np.unpackbits(rng.integers(0, 256, (rows, -(-users // 8)), np.uint8), axis=1, count=users)
        # The sum with random signs is the total minus twice the flipped part.
        sums_R = weights_U.sum() - 2 * (bits_RU.astype(np.float64) @ weights_U)
        reached += int((np.abs(sums_R) >= observed - _TOLERANCE).sum())
    return reached / (n_resamples + 1)


def holm_correction(p_values: Sequence[float] | Floats) -> Floats:
    """Adjust p-values by Holm's step-down correction for multiple tests.

    Paper: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Args:
        p_values: one p-value per test.

    Returns:
        Adjusted p-values in the same order.

    Example:
        >>> holm_correction([0.01, 0.04, 0.03]).round(4).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _compare_pair(
    metric: str, system: str, baseline: str, ours: ArrayLike, theirs: ArrayLike, *,
    n_resamples: int, confidence_level: float, seed: int,
) -> Comparison:  # fmt: skip
    differences_SU = _differences(ours, theirs)
    present_U = ~np.isnan(differences_SU).all(0)
    per_user = np.full(differences_SU.shape[1], np.nan)
    per_user[present_U] = np.nanmean(differences_SU[:, present_U], axis=0)
    differences_U = np.where(np.abs(per_user[present_U]) < _TOLERANCE, 0.0, per_user[present_U])
    p_value = randomization_test(ours, theirs, n_resamples=n_resamples, seed=seed)
    return Comparison(
        metric=metric,
        system=system,
        baseline=baseline,
        difference=paired_bootstrap(
            ours, theirs, confidence_level=confidence_level, n_resamples=n_resamples, seed=seed
        ),
        p_value=p_value,
        adjusted_p_value=p_value,
        effect_size=_cohens_d(differences_U),
        wins=int((differences_U > 0).sum()),
        losses=int((differences_U < 0).sum()),
        ties=int((differences_U == 0).sum()),
        per_user=per_user,
    )


def _differences(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    """Return the paired differences, [S, U]."""
    ours_SU, theirs_SU = (np.atleast_2d(np.asarray(values, np.float64)) for values in (ours, theirs))
    same = ours_SU.shape == theirs_SU.shape and (np.isnan(ours_SU) == np.isnan(theirs_SU)).all()
    if not same or np.isnan(ours_SU).all(1).any():
        raise InputError(
            f"compare: got values of shapes {ours_SU.shape} and {theirs_SU.shape} [seeds, users], expected "
            "the same users with values in the same seeds, at least one in each"
        )
    return ours_SU - theirs_SU


def _user_contributions(differences_SU: Floats) -> Floats:
    """Return the contribution of each user to the mean over seeds, [U]."""
    present_SU = ~np.isnan(differences_SU)
    shares_SU = np.where(present_SU, differences_SU, 0.0) / present_SU.sum(1, keepdims=True)
    sums: Floats = shares_SU.mean(0)
    return np.where(np.abs(sums) < _TOLERANCE / len(sums), 0.0, sums)


def _cohens_d(differences: Floats) -> float:
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    mean = float(differences.mean())
    if spread < _TOLERANCE:
        return 0.0 if abs(mean) < _TOLERANCE else float(np.copysign(np.inf, mean))
    return mean / spread
