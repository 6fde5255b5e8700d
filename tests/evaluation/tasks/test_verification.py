"""Verification: error rates by hand, ties, one-sided trials, against scikit-learn's curve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import det_curve

from mmattn.errors import InputError
from mmattn.evaluation.tasks.verification import error_tradeoff_curve, pair_scores, verification_metrics

SAME = [True, True, True, False, False, False, False]


def test_by_hand() -> None:
    curve = error_tradeoff_curve([0.9, 0.6, 0.4, 0.8, 0.5, 0.2, 0.1], SAME)
    assert curve.thresholds.tolist() == [0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, np.inf]
    np.testing.assert_allclose(curve.false_accepts, [1, 3 / 4, 1 / 2, 1 / 2, 1 / 4, 1 / 4, 0, 0])
    np.testing.assert_allclose(curve.misses, [0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1])
    # From (1/2, 1/3) to (1/4, 1/3): the misses stay at a third.
    assert curve.equal_error_rate == pytest.approx(1 / 3)
    # With prior 1/2 the cost is half of both errors' sum, over 1/2: least at 1/4 + 1/3 and at 1/2 + 0.
    assert curve.min_cost(prior=0.5) == pytest.approx(1 / 2)
    # Wrong acceptance weighs 19 to 1: best is to accept the top pair alone, 2/3 missed.
    assert curve.min_cost(prior=0.05) == pytest.approx(2 / 3)


def test_between_two_points() -> None:
    # (1, 0), (1/3, 1/2), (0, 1): on the way from the first to the second, 1 - 2/3 s = 1/2 s, s = 6/7.
    curve = error_tradeoff_curve([1, 2, 1, 1, 2], [True, True, False, False, False])
    assert curve.equal_error_rate == pytest.approx(3 / 7)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([9, 8, 7, 4, 3, 2, 1], 0.0), ([1, 2, 3, 6, 7, 8, 9], 1.0), ([5] * 7, 0.5)],
    ids=["perfect", "reversed", "all equal"],
)
def test_extremes(scores: list[float], expected: float) -> None:
    curve = error_tradeoff_curve(scores, SAME)
    assert curve.equal_error_rate == pytest.approx(expected)
    assert curve.min_cost() == pytest.approx(min(1.0, 2 * expected))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60))
def test_as_scikit_learn_draws_the_curve(trials: list[tuple[int, bool]]) -> None:
    scores, same = np.array([score for score, _ in trials], float), np.array([flag for _, flag in trials])
    if same.all() or not same.any():
        with pytest.raises(InputError, match="expected some of both"):
            error_tradeoff_curve(scores, same)
        return
    curve = error_tradeoff_curve(scores, same)
    ours = set(zip(curve.false_accepts.round(9), curve.misses.round(9), strict=True))
    accepts, misses, _ = det_curve(same, scores)
    assert set(zip(accepts.round(9), misses.round(9), strict=True)) <= ours
    assert (np.diff(curve.false_accepts) <= 0).all()
    assert (np.diff(curve.misses) >= 0).all()
    swapped = error_tradeoff_curve(-scores, ~same).equal_error_rate
    assert curve.equal_error_rate == pytest.approx(swapped)
    assert 0 <= curve.min_cost() <= 1


def test_all_pairs_once_by_cosine() -> None:
    vectors = [torch.tensor([3.0, 0.0]), None, torch.tensor([0.0, 2.0]), torch.tensor([5.0, 5.0]), [1.0, 0.0]]
    scores, same = pair_scores(vectors, ["a", "a", "b", "a", None])
    np.testing.assert_allclose(scores, [0.0, 0.5**0.5, 0.5**0.5], atol=1e-6)
    assert same.tolist() == [False, True, False]


def test_of_many_pairs_some_are_drawn_never_one_with_itself() -> None:
    vectors = np.eye(41, dtype=np.float32)
    scores, same = pair_scores(vectors, list(range(41)), max_pairs=500, seed=3)
    assert len(scores) == 500
    assert not scores.any()
    assert not same.any()


def test_figures_of_a_head_s_vectors() -> None:
    generator = torch.Generator().manual_seed(0)
    voices = torch.randn(5, 16, generator=generator)
    names = [f"voice {number % 5}" for number in range(60)]
    vectors = [voices[number % 5] + 0.3 * torch.randn(16, generator=generator) for number in range(60)]
    figures = verification_metrics(vectors, names)
    assert figures["pairs"] == 60 * 59 / 2
    assert figures["eer"] < 0.02
    assert figures["min_dcf"] < 0.2


@pytest.mark.parametrize(
    ("vectors", "names", "reason"),
    [
        ([[1.0], [1.0]], ["a", "a"], "got 1 same and 0 different pairs"),
        ([[1.0], [1.0]], ["a", "b"], "got 0 same and 1 different pairs"),
        ([[1.0]], ["a", "b"], "got 1 vectors and 2 speakers"),
        ([[1.0], None], ["a", "b"], "got 1 samples with a vector"),
        ([[1.0], [float("nan")], [1.0]], ["a", "b", "a"], "expected finite"),
    ],
)
def test_refused(vectors: list[object], names: list[str], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        verification_metrics(vectors, names)


def test_costs_are_checked() -> None:
    with pytest.raises(InputError, match="got 1.5, 1.0, 1.0 as prior"):
        error_tradeoff_curve([1, 2], [True, False]).min_cost(1.5)
