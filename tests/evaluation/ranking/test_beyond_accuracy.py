"""Coverage, Gini, novelty and diversity against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.evaluation.ranking import beyond_accuracy
from mmattn.evaluation.ranking.beyond_accuracy import coverage, diversity, gini, novelty

USERS, DEPTH, ITEMS = 53, 7, 41


@pytest.fixture
def lists() -> np.ndarray:
    rng = np.random.default_rng(0)
    items = np.stack([rng.choice(ITEMS // 2, DEPTH, replace=False) for _ in range(USERS)])
    items[np.arange(DEPTH) >= rng.integers(0, DEPTH + 1, USERS)[:, None]] = -1
    items[:3, 1:] = -1
    return items


def test_against_loops(lists: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beyond_accuracy, "_MAX_VALUES", 100)
    rng = np.random.default_rng(1)
    vectors, chosen = rng.normal(size=(ITEMS, 5)), rng.integers(0, 101, ITEMS)
    counts = [int((lists == item).sum()) for item in range(ITEMS)]
    assert coverage(lists, ITEMS) == sum(count > 0 for count in counts) / ITEMS
    apart = sum(abs(a - b) for a in counts for b in counts)
    assert gini(lists, ITEMS) == pytest.approx(apart / (2 * ITEMS * sum(counts)))
    surprising, varied = novelty(lists, chosen, 101), diversity(lists, vectors)
    for user, row in enumerate(lists):
        shown = [item for item in row if item >= 0]
        bits = [-math.log2(max(chosen[item], 0.5) / 101) for item in shown]
        assert surprising[user] == pytest.approx(np.mean(bits) if bits else np.nan, nan_ok=True)
        distances = [
            1 - vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b])
            for a, b in itertools.combinations(shown, 2)
        ]
        expected = np.mean(distances) if distances else np.nan
        assert varied[user] == pytest.approx(expected, nan_ok=True, abs=1e-12)


def test_nothing_shown() -> None:
    assert coverage([[-1]], 3) == 0.0
    assert np.isnan(gini([[-1]], 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage([[0, 3]], 3), "up to 3, expected .U, k. below 3"),
        (lambda: gini([0, 1], 3), r"shape \(2,\)"),
        (lambda: novelty([[0]], [5], 4), "expected .I. from 0 to 4"),
        (lambda: diversity([[0]], [[np.nan]]), "expected finite"),
        (lambda: diversity([[1]], [[1.0], [0.0]]), "item 1 is recommended, but its vector is zero"),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
