"""Intervals of figures of sums: against means, by hand, and paired on the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import bootstrap
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_metrics, paired_bootstrap_metrics


def mean_of(sums: np.ndarray) -> dict[str, np.ndarray]:
    """A plain mean as a function of sums."""
    return {"mean": sums[..., 0] / sums[..., 1]}


def counted(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones_like(values)], axis=1)


def test_of_a_mean_they_are_the_intervals_of_means() -> None:
    drawn = np.random.default_rng(0)
    seeds = [drawn.random(211) < share for share in (0.7, 0.8)]
    ours = bootstrap_metrics([counted(seed.astype(float)) for seed in seeds], mean_of, n_resamples=4000)[
        "mean"
    ]
    other = bootstrap([seed.astype(float) for seed in seeds], n_resamples=4000)
    assert ours.mean == pytest.approx(other.mean)
    assert ours.seed_means == pytest.approx(other.seed_means)
    assert (ours.low, ours.high) == pytest.approx((other.low, other.high), abs=0.006)
    assert ours.n_samples == 211


def test_the_mean_is_that_of_the_seeds_figures_and_not_of_all_samples_at_once() -> None:
    short, long = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[8.0, 10.0], [2.0, 30.0]])
    actual = bootstrap_metrics([short, long], mean_of)["mean"]
    assert actual.seed_means == (0.5, 0.25)
    assert actual.mean == 0.375


def test_a_difference_is_drawn_on_the_same_samples() -> None:
    hard = np.random.default_rng(1).random(101)  # what a sample costs any system
    ours, theirs = counted(hard + 0.1), counted(hard)
    difference = paired_bootstrap_metrics([ours], [theirs], mean_of)["mean"]
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    group = bootstrap_metrics([ours], mean_of)["mean"]
    assert group.high - group.low > 0.05


@given(st.integers(1, 13), st.integers(1, 3), st.integers(0, 9))
def test_the_mean_of_all_draws_contains_the_figure_and_zero_differs_from_itself_by_zero(
    samples: int, seeds: int, seed: int
) -> None:
    drawn = np.random.default_rng(seed)
    counts = [counted(drawn.integers(0, 2, samples).astype(float)) for _ in range(seeds)]
    actual = bootstrap_metrics(counts, mean_of, n_resamples=50, seed=seed)["mean"]
    assert 0 <= actual.low <= actual.high <= 1
    same = paired_bootstrap_metrics(counts, counts, mean_of, n_resamples=50, seed=seed)["mean"]
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_seeds_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(InputError, match=r"got counts of shapes \[\(2, 2\), \(3, 2\)\], expected"):
        bootstrap_metrics([np.ones((2, 2)), np.ones((3, 2))], mean_of)
    with pytest.raises(InputError, match=r"got counts of shapes \[\]"):
        bootstrap_metrics([], mean_of)
    with pytest.raises(InputError, match="expected the same samples in the same seeds"):
        paired_bootstrap_metrics([np.ones((3, 2))], [np.ones((3, 2))] * 2, mean_of)
