"""Paired tests: exact values by hand, scipy's permutation test, and seeds that are not more users."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmattn.errors import InputError
from mmattn.evaluation.statistics.significance import compare_systems, holm_correction, randomization_test


def test_all_exchanges_of_three_users() -> None:
    """Of the 8 sign assignments of (.1, .2, .3), two give a sum of .6 or more, four .4 or more."""
    assert randomization_test([0.1, 0.2, 0.3], [0, 0, 0]) == 2 / 8
    assert randomization_test([-0.1, 0.2, 0.3], [0, 0, 0]) == 4 / 8
    assert randomization_test([0.5, 0.5], [0.5, 0.5]) == 1.0


def test_agrees_with_scipy_where_exchanges_are_drawn() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random(53) + 0.08, rng.random(53)
    expected = stats.permutation_test(
        (ours, theirs), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=20_000, rng=1,
    ).pvalue  # fmt: skip
    assert randomization_test(ours, theirs, n_resamples=20_000) == pytest.approx(expected, abs=0.015)
    assert 0.02 < expected < 0.6


def test_under_no_difference_p_values_are_uniform() -> None:
    rng = np.random.default_rng(1)
    results = [
        randomization_test(rng.random(31), rng.random(31), n_resamples=400, seed=i) for i in range(300)
    ]
    assert stats.kstest(results, "uniform").pvalue > 0.01


def test_copies_of_the_users_as_seeds_make_nothing_surer() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random(41) + 0.05, rng.random(41)
    once = compare_systems({"a": {"m": theirs}, "b": {"m": ours}}, n_resamples=2000)[0]
    thrice = compare_systems({"a": {"m": [theirs] * 3}, "b": {"m": [ours] * 3}}, n_resamples=2000)[0]
    assert thrice.p_value == once.p_value
    assert thrice.difference.low == pytest.approx(once.difference.low)
    assert (thrice.wins, thrice.losses, thrice.effect_size) == (
        once.wins,
        once.losses,
        pytest.approx(once.effect_size),
    )


def test_holm_by_hand() -> None:
    assert holm_correction([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm_correction([]).tolist() == []


def test_one_comparison_by_hand() -> None:
    """Differences of .2, -.1, 0 and .3; the fifth user has no value."""
    nan = float("nan")
    systems = {"base": {"m": [0.3, 0.6, 0.5, 0.1, nan]}, "new": {"m": [0.5, 0.5, 0.5, 0.4, nan]}}
    (actual,) = compare_systems(systems)
    assert (actual.system, actual.baseline, actual.metric) == ("new", "base", "m")
    assert actual.difference.mean == pytest.approx(0.1)
    assert (actual.wins, actual.losses, actual.ties) == (2, 1, 1)
    assert actual.effect_size == pytest.approx(0.1 / np.std([0.2, -0.1, 0, 0.3], ddof=1))
    assert actual.p_value == 4 / 8  # sums of at least .4 among the signs of (.2, .1, .3): 6, 4 (twice each)
    assert actual.per_user.tolist() == pytest.approx([0.2, -0.1, 0.0, 0.3, nan], nan_ok=True)


def test_many_systems_are_corrected_together() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(101)
    systems = {"base": {"m": base}} | {
        f"s{i}": {"m": base + rng.normal(0.01 * i, 0.1, 101)} for i in range(4)
    }
    against = compare_systems(systems, n_resamples=999)
    assert [entry.system for entry in against] == ["s0", "s1", "s2", "s3"]
    assert [entry.adjusted_p_value for entry in against] == holm_correction(
        [entry.p_value for entry in against]
    ).tolist()
    assert len(compare_systems(systems, all_pairs=True, n_resamples=99)) == 10
    other = compare_systems(systems, baseline="s3", n_resamples=99)
    assert {entry.baseline for entry in other} == {"s3"}


def test_the_same_everywhere_is_an_infinite_effect_and_valid_json() -> None:
    (actual,) = compare_systems({"a": {"m": [0.25, 0.5]}, "b": {"m": [0.5, 0.75]}})
    assert actual.effect_size == np.inf
    assert actual.to_json()["effect_size"] is None
    assert compare_systems({"a": {"m": [0.25, 0.5]}, "b": {"m": [0.25, 0.5]}})[0].effect_size == 0.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare_systems({"a": {"m": [1.0]}}), "got 1 systems, expected at least two"),
        (
            lambda: compare_systems({"a": {"m": [1.0]}, "b": {"n": [1.0]}}),
            r"'b' has metrics \['n'\], expected \['m'\]",
        ),
        (lambda: compare_systems({"a": {"m": [1.0]}, "b": {"m": [1.0]}}, baseline="c"), "no system 'c'"),
        (lambda: compare_systems({"a": {"m": [1.0]}, "b": {"m": [1.0, 2.0]}}), "expected the same users"),
        (lambda: randomization_test([1.0, np.nan], [np.nan, 1.0]), "expected the same users"),
        (lambda: randomization_test([np.nan], [np.nan]), "at least one in each"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
