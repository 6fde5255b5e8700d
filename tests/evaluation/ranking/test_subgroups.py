"""Subgroups: every item and user in one of them, and values that add up to the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.ranking.metrics import evaluate, rank
from mmattn.evaluation.ranking.subgroups import (
    activity_groups,
    metrics_by_item_group,
    metrics_by_user_group,
    popularity_groups,
)


def test_popularity_by_hand() -> None:
    """50 of 100 choices are the head; 30 more the middle; the item with 15 begins at 80."""
    chosen = [15, 50, 0, 20, 10, 5]
    results = {name: np.flatnonzero(mask).tolist() for name, mask in popularity_groups(chosen).items()}
    assert results == {"head": [1], "middle": [0, 3], "tail": [4, 5], "cold": [2]}
    assert popularity_groups([7, 0])["head"].tolist() == [True, False]
    assert popularity_groups([0, 0])["cold"].all()


def test_hits_of_the_subgroups_add_up() -> None:
    rng = np.random.default_rng(0)
    right = sparse.csr_array(rng.random((53, 41)) < 0.2)
    ranking = rank(rng.random((53, 41)), 11)
    subgroups = popularity_groups(rng.integers(0, 30, 41))
    assert np.sum(list(subgroups.values()), axis=0).tolist() == [1] * 41
    parts = metrics_by_item_group(ranking, right, subgroups, ["precision@11"])
    total = sum(np.nan_to_num(part.values["precision@11"]) for part in parts.values())
    whole = evaluate(ranking, right, ["precision@11"])
    np.testing.assert_allclose(total, np.nan_to_num(whole.values["precision@11"]), atol=1e-12)
    histories = sparse.csr_array(np.tri(53, 41, -1))
    users = activity_groups(histories, edges=(1, 10, 30))
    assert list(users) == ["0", "1 to 9", "10 to 29", "30 and more"]
    assert [int(mask.sum()) for mask in users.values()] == [1, 9, 20, 23]
    again = metrics_by_user_group(whole, users)
    counted = sum((~np.isnan(entry.values["precision@11"])).astype(int) for entry in again.values())
    assert counted.tolist() == (~np.isnan(whole.values["precision@11"])).astype(int).tolist()
    assert sum(entry.n_skipped for entry in again.values()) == whole.n_skipped


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: popularity_groups([[1]]), r"expected \[I\] from 0"),
        (lambda: popularity_groups([1], (0.8, 0.5)), "two increasing numbers between 0 and 1"),
        (lambda: activity_groups(sparse.csr_array((1, 1)), [5, 5]), "increasing numbers from 1"),
        (
            lambda: metrics_by_item_group(
                rank([[1.0]], 1), sparse.csr_array([[1]]), {"s": np.ones(2, bool)}, ["hit@1"]
            ),
            r"subgroup 's': got a mask of shape \(2,\), expected \[1\]",
        ),
    ],
)
def test_refusals(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
