"""Bootstrap intervals of metrics that are functions of summed counts, such as F1 and word error rate.

Such a metric is not a mean over samples. Each resample draws samples, sums their counts, and computes the
metric of the sums. All seeds, and both systems of a paired difference, share the resampled samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmattn.array_types import Floats
from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import Interval, percentile_interval

__all__ = ["bootstrap_metrics", "paired_bootstrap_metrics"]

MetricsFn = Callable[[Floats], Mapping[str, Floats]]  # sums [..., K] -> metric name -> [...]

_MAX_COUNTS = 4_000_000  # resampled counts in memory at once: 32 MB


def bootstrap_metrics(
    counts: Sequence[Floats],
    metrics_fn: MetricsFn,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute every metric with its percentile interval over samples.

    Args:
        counts: [N, K] counts of each seed, for the same samples in the same order.
        metrics_fn: maps sums [..., K] to metric name -> [...].
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Metric name -> interval.

    Raises:
        InputError: no seed, no sample, or seeds with different shapes.

    Example:
        >>> errors_and_words = np.array([[1.0, 4.0], [0.0, 6.0]])
        >>> rate = bootstrap_metrics([errors_and_words], lambda sums: {"wer": sums[..., 0] / sums[..., 1]})
        >>> rate["wer"].mean, rate["wer"].low, rate["wer"].high
        (0.1, 0.0, 0.25)
    """
    counts_SNK = _stack_counts(counts)
    resampled = _resampled_metrics(counts_SNK, metrics_fn, n_resamples, seed)
    return {
        name: percentile_interval(
            values_S, resampled[name].mean(0), confidence_level, n_samples=counts_SNK.shape[1]
        )
        for name, values_S in metrics_fn(counts_SNK.sum(1)).items()
    }


def paired_bootstrap_metrics(
    ours: Sequence[Floats], theirs: Sequence[Floats], metrics_fn: MetricsFn, *,
    confidence_level: float = 0.95, n_resamples: int = 1000, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Compute the paired difference of two systems, ours minus theirs, on every metric.

    Args:
        ours: [N, K] counts of each seed.
        theirs: counts of the other system, for the same seeds and samples.
        metrics_fn: maps sums [..., K] to metric name -> [...].
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        Metric name -> interval of the difference.

    Raises:
        InputError: different seeds or samples.

    Example:
        >>> ours, theirs = [np.array([[1.0, 2.0], [0.0, 2.0]])], [np.array([[2.0, 2.0], [1.0, 2.0]])]
        >>> rate = paired_bootstrap_metrics(ours, theirs, lambda sums: {"wer": sums[..., 0] / sums[..., 1]})
        >>> rate["wer"].mean, rate["wer"].excludes_zero
        (-0.5, True)
    """
    ours_SNK, theirs_SNK = _stack_counts(ours), _stack_counts(theirs)
    if ours_SNK.shape != theirs_SNK.shape:
        raise InputError(
            f"paired metrics: got {ours_SNK.shape} and {theirs_SNK.shape} [seeds, samples, counts], "
            "expected the same samples in the same seeds"
        )
    our_resampled = _resampled_metrics(ours_SNK, metrics_fn, n_resamples, seed)
    their_resampled = _resampled_metrics(theirs_SNK, metrics_fn, n_resamples, seed)
    our_values, their_values = metrics_fn(ours_SNK.sum(1)), metrics_fn(theirs_SNK.sum(1))
    return {
        name: percentile_interval(
            np.asarray(values_S) - their_values[name],
            (our_resampled[name] - their_resampled[name]).mean(0),
            confidence_level,
            n_samples=ours_SNK.shape[1],
        )
        for name, values_S in our_values.items()
    }


def _stack_counts(counts: Sequence[Floats]) -> Floats:
    shapes = {np.shape(seed_counts) for seed_counts in counts}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or len(shape) != 2 or not shape[0]:
        raise InputError(
            f"metrics: got counts of shapes {sorted(shapes)}, expected [samples, counts] of the same samples "
            "in each seed"
        )
    return np.stack([np.asarray(seed_counts, np.float64) for seed_counts in counts])


def _resampled_sums(counts_SNK: Floats, n_resamples: int, seed: int) -> Iterator[Floats]:
    """Yield sums [S, R, K] of resampled counts in blocks."""
    rng, samples = np.random.default_rng(seed), counts_SNK.shape[1]
    block = max(1, _MAX_COUNTS // samples)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        weights_RN = rng.multinomial(samples, np.full(samples, 1 / samples), size=rows).astype(np.float64)
        yield weights_RN @ counts_SNK


def _resampled_metrics(
    counts_SNK: Floats, metrics_fn: MetricsFn, n_resamples: int, seed: int
) -> dict[str, Floats]:
    """Return metric name -> [S, R]."""
    blocks = [metrics_fn(sums_SRK) for sums_SRK in _resampled_sums(counts_SNK, n_resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
