"""Bootstrap intervals: known widths, coverage, and seeds that are not taken for more users."""

from __future__ import annotations

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import bootstrap, paired_bootstrap


def test_width_is_the_normal_one_for_many_users() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 4001)
    interval = bootstrap(values, n_resamples=4000)
    expected = 1.959964 * values.std() / np.sqrt(len(values))
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.mean == pytest.approx(expected, rel=0.06)
    assert interval.mean - interval.low == pytest.approx(expected, rel=0.06)


def test_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(200):
        interval = bootstrap(rng.exponential(1.0, 101), n_resamples=400, confidence_level=0.9, seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.82 < covered / 200 < 0.96


def test_three_copies_of_the_users_are_not_three_times_the_users() -> None:
    values = np.random.default_rng(2).random(307)
    once, thrice = bootstrap(values), bootstrap([values] * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))
    assert thrice.seed_means == pytest.approx((values.mean(),) * 3)


def test_a_user_missing_in_one_seed_counts_in_the_others() -> None:
    nan = float("nan")
    interval = bootstrap([[1.0, nan, 3.0, nan], [nan, 4.0, 6.0, nan]])
    assert interval.seed_means == (2.0, 5.0)
    assert interval.mean == 3.5
    assert interval.n_samples == 3
    # One draw in 27 holds the first user only (mean 1, of one seed), one the third only (means 3 and 6).
    assert (interval.low, interval.high) == (1.0, 4.5)


def test_paired_sees_what_the_single_intervals_cannot() -> None:
    rng = np.random.default_rng(3)
    theirs = rng.random((3, 211))
    ours = theirs + 0.01 + rng.normal(0, 0.005, theirs.shape)
    entry, other = bootstrap(ours), bootstrap(theirs)
    assert entry.low < other.high  # they overlap
    difference = paired_bootstrap(ours, theirs)
    assert difference.excludes_zero
    assert difference.mean == pytest.approx((ours - theirs).mean())
    back = paired_bootstrap(theirs, ours)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low), abs=2e-5)


def test_same_seed_same_interval_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).random(97)
    whole = bootstrap(values, seed=7)
    assert whole == bootstrap(values, seed=7)
    assert whole != bootstrap(values, seed=8)
    monkeypatch.setattr("mmattn.evaluation.statistics.bootstrap._MAX_COUNTS", 97 * 13)
    assert bootstrap(values, seed=7) == whole


def test_json_is_what_metrics_json_holds() -> None:
    assert set(bootstrap([1.0, 2.0]).to_json()) == {"mean", "low", "high", "seeds"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([]), "a value in each seed"),
        (lambda: bootstrap([[1.0, 2.0], [np.nan, np.nan]]), "a value in each seed"),
        (lambda: bootstrap([1.0], confidence_level=95), "0 < confidence_level < 1"),
        (lambda: paired_bootstrap([1.0, 2.0], [1.0]), "same users in the same seeds"),
        (lambda: paired_bootstrap([1.0, np.nan], [1.0, 2.0]), "same users in the same seeds"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
