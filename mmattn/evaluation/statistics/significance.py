"""Which system is better, by how much, and how sure: paired tests over users or queries, seeds pooled.

The same users stand behind every seed, so a user is one unit: drawn, or turned round, in all seeds at
once. Smucker, Allan and Carterette, "A Comparison of Statistical Significance Tests for Information
Retrieval Evaluation", CIKM 2007, find the randomisation and the bootstrap test to agree; both are given.
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


# Up to this many users every assignment of signs is tried.
_MAX_EXACT_USERS = 14
# Two values closer than this are one value that was summed in another order.
_TOLERANCE = 1e-12
_SIGNS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """One system against another on one metric.

    Args:
        metric: its name.
        system: the one that a positive difference speaks for.
        baseline: the other.
        difference: system - baseline with its paired bootstrap interval.
        p_value: two-sided, of the paired randomisation test.
        adjusted_p_value: the same after Holm's correction for all comparisons made together.
        effect_size: mean over standard deviation of the users' differences (Cohen's d of paired values); 0
            where nobody differs, infinite where all differ by the same.
        wins: users for whom the system is better, in the mean over the seeds.
        losses: users for whom the baseline is.
        ties: the rest.
        per_user: [U] difference of each user in the mean over the seeds, NaN where it has none.
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
        """What `mmattn compare --json` prints for it; an infinite effect is null."""
        names = ("metric", "system", "baseline", "p_value", "adjusted", "wins", "losses", "draws")
        return {
            **{name: getattr(self, name) for name in names},
            "effect": self.effect_size if np.isfinite(self.effect_size) else None,
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
    """Compare systems that were measured on the same users and seeds.

    Args:
        systems: name -> metric -> [U] values or [S, U] of several seeds, NaN where a user has none.
        baseline: the one that the others are compared with; by default the first.
        all_pairs: compare each with each instead.
        n_resamples: random sign assignments and bootstrap draws.
        confidence_level: coverage of the intervals.
        seed: of both.

    Raises:
        InputError: fewer than two systems, an unknown baseline, or systems measured differently.

    Example:
        >>> found = compare_systems({"old": {"mrr": [0.1, 0.5, 0.2]}, "new": {"mrr": [0.4, 0.6, 0.2]}})[0]
        >>> found.system, round(found.difference.mean, 4), found.wins, found.losses, found.p_value
        ('new', 0.1333, 2, 0, 0.5)
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
    first = names[0] if baseline is None else baseline
    pairs = [(name, first) for name in names if name != first]
    if all_pairs:
        pairs = [(one, other) for other, one in itertools.combinations(names, 2)]
    found = [
        _compare_pair(
            metric, system, other, systems[system][metric], systems[other][metric],
            n_resamples=n_resamples, confidence_level=confidence_level, seed=seed,
        )
        for metric in metrics
        for system, other in pairs
    ]  # fmt: skip
    adjusted = holm_correction([one.p_value for one in found])
    return tuple(
        replace(one, adjusted_p_value=float(value)) for one, value in zip(found, adjusted, strict=True)
    )


def randomization_test(
    ours: ArrayLike, theirs: ArrayLike, *, n_resamples: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of the paired randomisation test (Fisher's).

    If the two systems were alike, a user's two values could as well be exchanged. The p-value is the
    share of exchanges that give a mean difference at least as large: of all where few users differ,
    otherwise of random ones, the observed one counted among them.

    Args:
        ours: [U] or [S, U]; a user is exchanged in all seeds at once.
        theirs: the same users and seeds.
        n_resamples: random exchanges.
        seed: of them.

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
    block = max(1, _SIGNS_AT_ONCE // users)
    reached = 1
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        bits_RU = np.unpackbits(rng.integers(0, 256, (rows, -(-users // 8)), np.uint8), axis=1, count=users)
        # The sum with random signs is the whole minus twice the part that is turned round.
        sums_R = weights_U.sum() - 2 * (bits_RU.astype(np.float64) @ weights_U)
        reached += int((np.abs(sums_R) >= observed - _TOLERANCE).sum())
    return reached / (n_resamples + 1)


def holm_correction(p_values: Sequence[float] | Floats) -> Floats:
    """Holm's step-down correction: p-values that hold for all tests together (Holm, 1979).

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
    there_U = ~np.isnan(differences_SU).all(0)
    per_user = np.full(differences_SU.shape[1], np.nan)
    per_user[there_U] = np.nanmean(differences_SU[:, there_U], axis=0)
    counted = np.where(np.abs(per_user[there_U]) < _TOLERANCE, 0.0, per_user[there_U])
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
        effect_size=_cohens_d(counted),
        wins=int((counted > 0).sum()),
        losses=int((counted < 0).sum()),
        ties=int((counted == 0).sum()),
        per_user=per_user,
    )


def _differences(ours: ArrayLike, theirs: ArrayLike) -> Floats:
    """[S, U]."""
    ours_SU, theirs_SU = (np.atleast_2d(np.asarray(values, np.float64)) for values in (ours, theirs))
    same = ours_SU.shape == theirs_SU.shape and (np.isnan(ours_SU) == np.isnan(theirs_SU)).all()
    if not same or np.isnan(ours_SU).all(1).any():
        raise InputError(
            f"compare: got values of shapes {ours_SU.shape} and {theirs_SU.shape} [seeds, users], expected "
            "the same users with values in the same seeds, at least one in each"
        )
    return ours_SU - theirs_SU


def _user_contributions(differences_SU: Floats) -> Floats:
    """[U] what each user adds to the mean over the seeds of the seeds' means."""
    there_SU = ~np.isnan(differences_SU)
    shares_SU = np.where(there_SU, differences_SU, 0.0) / there_SU.sum(1, keepdims=True)
    sums: Floats = shares_SU.mean(0)
    return np.where(np.abs(sums) < _TOLERANCE / len(sums), 0.0, sums)


def _cohens_d(differences: Floats) -> float:
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    mean = float(differences.mean())
    if spread < _TOLERANCE:
        return 0.0 if abs(mean) < _TOLERANCE else float(np.copysign(np.inf, mean))
    return mean / spread
