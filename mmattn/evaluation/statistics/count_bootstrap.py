"""Intervals of figures that are no mean of samples: F1, word error rate and their kind.

Such a figure is a function of sums over samples (found, said and true entities; errors and words). A
bootstrap draws samples anew, adds up their counts, and asks for the figure of the sums: as for means, the
same samples are drawn in every seed, and in both systems of a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmattn.array_types import Floats
from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import Interval

__all__ = ["bootstrap_metrics", "paired_bootstrap_metrics"]

MetricsFn = Callable[[Floats], Mapping[str, Floats]]  # sums [..., K] -> figure -> [...]

_DRAWS_AT_ONCE = 4_000_000  # numbers held at once: 32 MB


def bootstrap_metrics(
    counts: Sequence[Floats],
    metrics_fn: MetricsFn,
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every figure with its percentile interval over samples.

    Args:
        counts: of each seed [N, K], the same samples in the same places.
        metrics_fn: sums [..., K] to figures [...].
        confidence_level: coverage, between 0 and 1.
        n_resamples: how many times the samples are drawn anew.
        seed: of the resampling.

    Raises:
        InputError: no seed, no sample, or seeds of other shapes.

    Example:
        >>> errors_and_words = np.array([[1.0, 4.0], [0.0, 6.0]])
        >>> rate = bootstrap_metrics([errors_and_words], lambda sums: {"wer": sums[..., 0] / sums[..., 1]})
        >>> rate["wer"].mean, rate["wer"].low, rate["wer"].high
        (0.1, 0.0, 0.25)
    """
    counts_SNK = _stack_counts(counts)
    drawn = _resampled_sums(counts_SNK, n_resamples, seed)
    values = _concatenate_blocks([metrics_fn(sums_SRK) for sums_SRK in drawn])
    whole = metrics_fn(counts_SNK.sum(1))
    return {
        name: _interval(whole[name], values[name], confidence_level, counts_SNK.shape[1]) for name in whole
    }


def paired_bootstrap_metrics(
    ours: Sequence[Floats], theirs: Sequence[Floats], metrics_fn: MetricsFn, *,
    confidence_level: float = 0.95, n_resamples: int = 1000, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Every figure of ours minus that of theirs, seed by seed, on the same draws of samples.

    Args:
        ours: of each seed [N, K].
        theirs: the same seeds and samples, counted of another system.
        metrics_fn, confidence_level, n_resamples, seed: as `bootstrap_metrics`.

    Raises:
        InputError: not the same seeds and samples.
    """
    ours_SNK, theirs_SNK = _stack_counts(ours), _stack_counts(theirs)
    if ours_SNK.shape != theirs_SNK.shape:
        raise InputError(
            f"paired figures: got {ours_SNK.shape} and {theirs_SNK.shape} [seeds, samples, counts], "
            "expected the same samples in the same seeds"
        )
    both = [metrics_fn(sums_SRK) for sums_SRK in _resampled_sums(ours_SNK, n_resamples, seed)]
    against = [metrics_fn(sums_SRK) for sums_SRK in _resampled_sums(theirs_SNK, n_resamples, seed)]
    values, others = _concatenate_blocks(both), _concatenate_blocks(against)
    whole, other = metrics_fn(ours_SNK.sum(1)), metrics_fn(theirs_SNK.sum(1))
    return {
        name: _interval(
            np.asarray(whole[name]) - other[name],
            values[name] - others[name],
            confidence_level,
            ours_SNK.shape[1],
        )
        for name in whole
    }


def _stack_counts(counts: Sequence[Floats]) -> Floats:
    shapes = {np.shape(one) for one in counts}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or len(shape) != 2 or not shape[0]:
        raise InputError(
            f"figures: got counts of shapes {sorted(shapes)}, expected [samples, counts] of the same samples "
            "in each seed"
        )
    return np.stack([np.asarray(one, np.float64) for one in counts])


def _resampled_sums(counts_SNK: Floats, n_resamples: int, seed: int) -> Iterator[Floats]:
    """Sums [S, R, K] of draws, some at a time."""
    rng, samples = np.random.default_rng(seed), counts_SNK.shape[1]
    block = max(1, _DRAWS_AT_ONCE // samples)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        times_RN = rng.multinomial(samples, np.full(samples, 1 / samples), size=rows).astype(np.float64)
        yield times_RN @ counts_SNK


def _concatenate_blocks(blocks: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """figure -> [S, R]."""
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def _interval(whole_S: Floats, values_SR: Floats, confidence_level: float, n_samples: int) -> Interval:
    means_R = np.asarray(values_SR).mean(0)
    low, high = np.nanquantile(means_R, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    seeds = tuple(float(value) for value in whole_S)
    return Interval(float(np.mean(whole_S)), float(low), float(high), seeds, confidence_level, n_samples)
