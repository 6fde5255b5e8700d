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

__all__ = ["bootstrap_figures", "paired_figures"]

Figures = Callable[[Floats], Mapping[str, Floats]]  # sums [..., K] -> figure -> [...]

_DRAWS_AT_ONCE = 4_000_000  # numbers held at once: 32 MB


def bootstrap_figures(
    counts: Sequence[Floats], figures: Figures, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Every figure with its percentile interval over samples.

    Args:
        counts: of each seed [N, K], the same samples in the same places.
        figures: sums [..., K] to figures [...].
        level: coverage, between 0 and 1.
        resamples: how many times the samples are drawn anew.
        seed: of the resampling.

    Raises:
        InputError: no seed, no sample, or seeds of other shapes.

    Example:
        >>> errors_and_words = np.array([[1.0, 4.0], [0.0, 6.0]])
        >>> rate = bootstrap_figures([errors_and_words], lambda sums: {"wer": sums[..., 0] / sums[..., 1]})
        >>> rate["wer"].mean, rate["wer"].low, rate["wer"].high
        (0.1, 0.0, 0.25)
    """
    counts_SNK = _stacked(counts)
    drawn = _drawn(counts_SNK, resamples, seed)
    values = _joined([figures(sums_SRK) for sums_SRK in drawn])
    whole = figures(counts_SNK.sum(1))
    return {name: _interval(whole[name], values[name], level, counts_SNK.shape[1]) for name in whole}


def paired_figures(
    ours: Sequence[Floats], theirs: Sequence[Floats], figures: Figures, *,
    level: float = 0.95, resamples: int = 1000, seed: int = 0,
) -> dict[str, Interval]:  # fmt: skip
    """Every figure of ours minus that of theirs, seed by seed, on the same draws of samples.

    Args:
        ours: of each seed [N, K].
        theirs: the same seeds and samples, counted of another system.
        figures, level, resamples, seed: as `bootstrap_figures`.

    Raises:
        InputError: not the same seeds and samples.
    """
    ours_SNK, theirs_SNK = _stacked(ours), _stacked(theirs)
    if ours_SNK.shape != theirs_SNK.shape:
        raise InputError(
            f"paired figures: got {ours_SNK.shape} and {theirs_SNK.shape} [seeds, samples, counts], "
            "expected the same samples in the same seeds"
        )
    both = [figures(sums_SRK) for sums_SRK in _drawn(ours_SNK, resamples, seed)]
    against = [figures(sums_SRK) for sums_SRK in _drawn(theirs_SNK, resamples, seed)]
    values, others = _joined(both), _joined(against)
    whole, other = figures(ours_SNK.sum(1)), figures(theirs_SNK.sum(1))
    return {
        name: _interval(
            np.asarray(whole[name]) - other[name], values[name] - others[name], level, ours_SNK.shape[1]
        )
        for name in whole
    }


def _stacked(counts: Sequence[Floats]) -> Floats:
    shapes = {np.shape(one) for one in counts}
    shape = next(iter(shapes), ())
    if len(shapes) != 1 or len(shape) != 2 or not shape[0]:
        raise InputError(
            f"figures: got counts of shapes {sorted(shapes)}, expected [samples, counts] of the same samples "
            "in each seed"
        )
    return np.stack([np.asarray(one, np.float64) for one in counts])


def _drawn(counts_SNK: Floats, resamples: int, seed: int) -> Iterator[Floats]:
    """Sums [S, R, K] of draws, some at a time."""
    rng, samples = np.random.default_rng(seed), counts_SNK.shape[1]
    block = max(1, _DRAWS_AT_ONCE // samples)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        times_RN = rng.multinomial(samples, np.full(samples, 1 / samples), size=rows).astype(np.float64)
        yield times_RN @ counts_SNK


def _joined(blocks: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """figure -> [S, R]."""
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def _interval(whole_S: Floats, values_SR: Floats, level: float, samples: int) -> Interval:
    means_R = np.asarray(values_SR).mean(0)
    low, high = np.nanquantile(means_R, [(1 - level) / 2, (1 + level) / 2])
    seeds = tuple(float(value) for value in whole_S)
    return Interval(float(np.mean(whole_S)), float(low), float(high), seeds, level, samples)
