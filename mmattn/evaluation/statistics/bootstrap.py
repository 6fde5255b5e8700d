"""Percentile bootstrap intervals over users, with seeds pooled, for values and paired differences.

All seeds share the same users, so each resample draws users once and looks them up in every seed (a cluster
bootstrap). Treating U users x S seeds as independent would make the intervals too narrow by up to a factor of
sqrt(S). The intervals cover the sampling of users, given the splits; the means of the seeds are kept as well.

Reference: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Floats
from mmattn.errors import InputError

__all__ = ["Interval", "bootstrap", "paired_bootstrap", "percentile_interval"]

# Resampled counts in memory at once: 4 million float64 are 32 MB.
_MAX_COUNTS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval.

    Args:
        mean: mean over samples within a seed, then over seeds.
        low: lower bound.
        high: upper bound.
        seed_means: mean of each seed.
        confidence_level: coverage, for example 0.95.
        n_samples: number of samples (users, items, images) with a value in any seed.
    """

    mean: float
    low: float
    high: float
    seed_means: tuple[float, ...] = ()
    confidence_level: float = 0.95
    n_samples: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """Return the values that metrics.json stores."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "seeds": list(self.seed_means)}


def bootstrap(
    values: ArrayLike | Sequence[ArrayLike],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute the mean of per-user values with its bootstrap interval.

    Args:
        values: [U] for one seed or [S, U] for several seeds of the same users; NaN where a user has no value.
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: a seed without values, a wrong shape, or options out of range.

    Example:
        >>> result = bootstrap([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, float("nan")]])
        >>> result.mean, result.seed_means, result.n_samples
        (0.75, (0.5, 1.0), 4)
    """
    values_SU = _as_seed_matrix(values)
    if not 0 < confidence_level < 1 or n_resamples < 1:
        raise InputError(
            f"bootstrap: got confidence_level {confidence_level} and n_resamples {n_resamples}, expected "
            "0 < confidence_level < 1 and n_resamples >= 1"
        )
    present_SU = ~np.isnan(values_SU)
    has_value_U = present_SU.any(0)
    values_SU, present_SU = values_SU[:, has_value_U], present_SU[:, has_value_U]
    means_R = _resampled_means(
        np.where(present_SU, values_SU, 0.0), present_SU.astype(np.float64), n_resamples, seed
    )
    return percentile_interval(
        np.nanmean(values_SU, axis=1), means_R, confidence_level, n_samples=int(has_value_U.sum())
    )


def paired_bootstrap(
    ours: ArrayLike | Sequence[ArrayLike],
    theirs: ArrayLike | Sequence[ArrayLike],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Compute the mean of the paired differences `ours - theirs` with its bootstrap interval.

    Pairing cancels the difficulty of a user, so systems can differ although their own intervals overlap.

    Args:
        ours: [U] or [S, U] values of one system; NaN where a user has no value.
        theirs: values of the other system for the same users and seeds.
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: the systems were not measured on the same users and seeds, or options out of range.

    Example:
        >>> result = paired_bootstrap([0.3, 0.9, 0.5], [0.2, 0.8, 0.4])
        >>> round(result.mean, 6), round(result.low, 6), result.excludes_zero
        (0.1, 0.1, True)
    """
    ours_SU, theirs_SU = _as_seed_matrix(ours), _as_seed_matrix(theirs)
    if ours_SU.shape != theirs_SU.shape or (np.isnan(ours_SU) != np.isnan(theirs_SU)).any():
        raise InputError(
            f"paired: got values of shapes {ours_SU.shape} and {theirs_SU.shape} [seeds, users], expected "
            "the same users in the same seeds"
        )
    return bootstrap(
        ours_SU - theirs_SU, confidence_level=confidence_level, n_resamples=n_resamples, seed=seed
    )


def percentile_interval(
    seed_means: ArrayLike, resampled: ArrayLike, confidence_level: float, *, n_samples: int
) -> Interval:
    """Build an interval from the quantiles of resampled values.

    Args:
        seed_means: [S] value of each seed.
        resampled: [R] value of each resample, averaged over seeds; NaN is ignored.
        confidence_level: coverage, between 0 and 1.
        n_samples: number of samples behind the values.

    Returns:
        The interval around the mean over seeds; its bounds are NaN without a valid resample.
    """
    seeds = tuple(float(value) for value in np.asarray(seed_means, np.float64))
    resampled_R = np.asarray(resampled, np.float64)
    valid_R = resampled_R[~np.isnan(resampled_R)]
    quantiles = [(1 - confidence_level) / 2, (1 + confidence_level) / 2]
    low, high = np.quantile(valid_R, quantiles) if len(valid_R) else (np.nan, np.nan)
    return Interval(float(np.mean(seeds)), float(low), float(high), seeds, confidence_level, n_samples)


def _as_seed_matrix(values: ArrayLike | Sequence[ArrayLike]) -> Floats:
    values_SU = np.atleast_2d(np.asarray(values, np.float64))
    if values_SU.ndim != 2 or not len(values_SU) or np.isnan(values_SU).all(axis=1).any():
        raise InputError(
            f"intervals: got values of shape {values_SU.shape}, "
            "expected [seeds, users] with a value in each seed"
        )
    return values_SU


def _resampled_means(values_SU: Floats, present_SU: Floats, n_resamples: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    users = values_SU.shape[1]
    means = []
    block = max(1, _MAX_COUNTS // users)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn_RU = rng.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
        counts_RU = (
            np.bincount(drawn_RU.ravel(), minlength=rows * users).reshape(rows, users).astype(np.float64)
        )
        present_RS = counts_RU @ present_SU.T
        sums_RS = counts_RU @ values_SU.T
        # A resample may miss every user of a small seed; that seed is then ignored in the resample.
        means_RS = np.divide(sums_RS, present_RS, out=np.full_like(sums_RS, np.nan), where=present_RS > 0)
        means.append(np.nanmean(means_RS[(present_RS > 0).any(1)], axis=1))
    return np.concatenate(means)
