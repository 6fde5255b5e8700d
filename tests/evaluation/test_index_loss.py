"""The index's loss apart from the model's, and the gap between modalities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.index_loss import index_loss
from mmattn.evaluation.modality_gap import modality_gap
from mmattn.evaluation.ranking.metrics import Ranking, rank


def ranking(items: list[list[int]]) -> Ranking:
    return Ranking(np.array(items), np.zeros(np.shape(items), np.float32), "stable")


def test_index_loss_by_hand() -> None:
    """The index loses item 1 of user 0 and item 2 of user 1; only the second one was right."""
    right = sparse.csr_array([[1, 0, 0, 1], [0, 0, 1, 0]])
    actual = index_loss(ranking([[0, 1], [2, 3]]), ranking([[0, 2], [3, -1]]), right, "recall@2")
    assert (actual.exact.mean, actual.approximate.mean, actual.loss.mean) == (0.75, 0.25, 0.5)
    assert (actual.model_loss, actual.recall) == (0.25, 0.5)
    same = index_loss(ranking([[0, 1], [2, -1]]), ranking([[1, 0], [2, -1]]), right, "recall@2")
    assert (same.recall, same.loss.mean, same.loss.high) == (1.0, 0.0, 0.0)
    with pytest.raises(InputError, match=r"shapes \(1, 1\) and \(1, 2\)"):
        index_loss(rank([[1.0]], 1), rank([[1.0]], 2), sparse.csr_array([[1]]), "hit@1")


def test_gap_against_loops() -> None:
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(13, 5)) + shift for name, shift in (("a", 1), ("b", 0), ("c", -1))}
    presence = {name: rng.random(13) < 0.8 for name in vectors}
    vectors["b"][~presence["b"]] = 0  # absent: never looked at
    for (entry, other), gap in modality_gap(vectors, presence).items():
        both = np.flatnonzero(presence[entry] & presence[other])
        left, right = (
            vectors[n][both] / np.linalg.norm(vectors[n][both], axis=1)[:, None] for n in (entry, other)
        )
        cosines = left @ right.T
        assert gap.samples == len(both)
        assert gap.distance == pytest.approx(np.linalg.norm(left.mean(0) - right.mean(0)))
        assert gap.matched == pytest.approx(np.diag(cosines).mean())
        assert gap.unmatched == pytest.approx(cosines[~np.eye(len(both), dtype=bool)].mean())


def test_gap_refusals() -> None:
    with pytest.raises(InputError, match="'b' of sample 1 is zero or not finite"):
        modality_gap({"a": np.ones((2, 2)), "b": np.array([[1.0, 0], [0, 0]])})
    with pytest.raises(InputError, match="expected one .B, D."):
        modality_gap({"a": np.ones((2, 2)), "b": np.ones((3, 2))})
    nobody = {"a": np.array([True, False]), "b": np.array([False, True])}
    assert modality_gap({"a": np.eye(2), "b": np.eye(2)}, nobody)["a", "b"].samples == 0
