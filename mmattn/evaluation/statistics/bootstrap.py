"""Bootstrap intervals over users, several seeds pooled, alone and as paired differences.

The same people stand behind every seed, so the users are drawn once a resample and looked up in all
seeds (a cluster bootstrap). Treating U users x S seeds as U * S independent values would make the
intervals too narrow by up to the square root of S. The intervals speak of other users, given these
splits; the spread over the seeds is kept beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.errors import InputError

__all__ = ["Interval", "bootstrap", "paired_bootstrap"]

# Resampled counts held at once: 4 million float64 are 32 MB.
_COUNTS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile interval.

    Args:
        mean: over users within a seed, then over seeds.
        low: lower end.
        high: upper end.
        seed_means: the mean of each seed.
        confidence_level: coverage, for example 0.95.
        n_samples: how many had a value in any seed.
    """

    mean: float
    low: float
    high: float
    seed_means: tuple[float, ...] = ()
    confidence_level: float = 0.95
    n_samples: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "seeds": list(self.seed_means)}


def bootstrap(
    values: ArrayLike | Sequence[ArrayLike],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of per-user values with its bootstrap interval.

    Args:
        values: [U] of one seed or [S, U] of several, the same users in the same places; NaN where a
            user has no value in a seed.
        confidence_level: coverage, between 0 and 1.
        n_resamples: how many times the users are drawn anew.
        seed: of the resampling.

    Raises:
        InputError: no values in some seed, or other shapes.

    Example:
        >>> result = bootstrap([[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, float("nan")]])
        >>> result.mean, result.seed_means, result.n_samples
        (0.75, (0.5, 1.0), 4)
    """
    values_SU = _as_seed_matrix(values)
    if not 0 < confidence_level < 1 or n_resamples < 1:
        raise InputError(
            f"bootstrap: got level {confidence_level} and {n_resamples} resamples, expected 0 < level < 1 and >= 1"
        )
    there_SU = ~np.isnan(values_SU)
    present_U = there_SU.any(0)
    values_SU, there_SU = values_SU[:, present_U], there_SU[:, present_U]
    means_S = np.nanmean(values_SU, axis=1)
    draws = _resampled_means(
        np.where(there_SU, values_SU, 0.0), there_SU.astype(np.float64), n_resamples, seed
    )
    low, high = np.quantile(draws, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    return Interval(
        mean=float(means_S.mean()),
        low=float(low),
        high=float(high),
        seed_means=tuple(float(mean) for mean in means_S),
        confidence_level=confidence_level,
        n_samples=int(present_U.sum()),
    )


def paired_bootstrap(
    ours: ArrayLike | Sequence[ArrayLike],
    theirs: ArrayLike | Sequence[ArrayLike],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean difference `ours - theirs`, user by user and seed by seed, with its interval.

    What makes a user easy for both cancels, so this can tell systems apart whose own intervals overlap.

    Raises:
        InputError: the two were not measured on the same users and seeds.

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


def _as_seed_matrix(values: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.float64]:
    values_SU = np.atleast_2d(np.asarray(values, np.float64))
    if values_SU.ndim != 2 or not len(values_SU) or np.isnan(values_SU).all(axis=1).any():
        raise InputError(
            f"intervals: got values of shape {values_SU.shape}, "
            "expected [seeds, users] with a value in each seed"
        )
    return values_SU


def _resampled_means(
    values_SU: NDArray[np.float64], present_SU: NDArray[np.float64], n_resamples: int, seed: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    users = values_SU.shape[1]
    means = []
    block = max(1, _COUNTS_AT_ONCE // users)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn_RU = rng.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
        counts_RU = (
            np.bincount(drawn_RU.ravel(), minlength=rows * users).reshape(rows, users).astype(np.float64)
        )
        present_RS = counts_RU @ present_SU.T
        sums_RS = counts_RU @ values_SU.T
        # A resample may miss every user of a small seed: it says nothing about that seed.
        means_RS = np.divide(sums_RS, present_RS, out=np.full_like(sums_RS, np.nan), where=present_RS > 0)
        means.append(np.nanmean(means_RS[(present_RS > 0).any(1)], axis=1))
    return np.concatenate(means)
