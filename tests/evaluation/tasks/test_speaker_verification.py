"""Recordings against speakers: counts against trials that are listed one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.evaluation.tasks.speaker_verification import SpeakerVerificationMetrics
from mmattn.evaluation.tasks.verification import error_tradeoff_curve

MEASURE = SpeakerVerificationMetrics()


def trials(vectors: np.ndarray, speakers: list[str]) -> tuple[list[float], list[bool]]:
    """Every recording with the mean of every speaker's other recordings."""
    scores, same = [], []
    for row, vector in enumerate(vectors):
        for name in dict.fromkeys(speakers):
            others = [
                vectors[k] / np.linalg.norm(vectors[k])
                for k in range(len(vectors))
                if speakers[k] == name and k != row
            ]
            if others:
                mean = np.mean(others, axis=0)
                scores.append(float(vector @ mean / np.linalg.norm(vector) / np.linalg.norm(mean)))
                same.append(speakers[row] == name)
    return scores, same


@given(st.integers(0, 10**6), st.integers(5, 23), st.floats(0.1, 3.0))
def test_the_same_errors_as_of_trials_one_by_one(seed: int, count: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    speakers = ["ann", "bob", "cay", "ann", "bob", *rng.choice(["ann", "bob", "cay"], count - 5).tolist()]
    centre = {name: rng.normal(size=7) for name in set(speakers)}
    vectors = np.stack([centre[name] + spread * rng.normal(size=7) for name in speakers])
    curve = error_tradeoff_curve(*trials(vectors, speakers))
    actual = MEASURE.evaluate(list(vectors), speakers)
    # Sorting scores into bins moves a trial or two across the threshold.
    step = 3 / min(len(speakers), 2 * len(speakers))
    assert actual["eer"] == pytest.approx(curve.equal_error_rate, abs=step)
    assert actual["min_dcf"] == pytest.approx(curve.min_cost(), abs=max(0.1, 3 * step))


def test_by_hand() -> None:
    # To the mean of the others of its own: 1, 1, 0 and 0; to the other speaker's mean: .707, .707, 1 and 0.
    vectors = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    actual = MEASURE.evaluate(vectors, ["ann", "ann", "bob", "bob"])
    assert actual["eer"] == pytest.approx(0.5, abs=0.01)
    counts = MEASURE.counts(vectors, ["ann", "ann", "bob", "bob"])
    same, other = np.split(counts, 2, axis=1)
    assert same.sum(1).tolist() == other.sum(1).tolist() == [1, 1, 1, 1]
    assert same.argmax(1).tolist() == [399, 399, 200, 200]
    assert other.argmax(1).tolist()[2:] == [399, 200]


def test_what_cannot_be_compared_counts_as_not_knowing() -> None:
    assert MEASURE.evaluate([None, None], ["ann", "bob"])["eer"] == pytest.approx(0.5)
    assert MEASURE.evaluate([[1.0], [1.0]], ["ann", "ann"]) == {"eer": 0.5, "min_dcf": 1.0}
    alone = MEASURE.counts([[1.0, 0.0], None, [0.0, 1.0]], ["ann", "ann", "bob"])
    assert alone[1].sum() == 0
    assert alone[:, :400].sum() == 0  # lone recordings have nothing of their own to be compared with
    assert alone[0].sum() == alone[2].sum() == 1
    assert MEASURE.selection_score({"eer": 0.25}) == 0.75


def test_figures_of_many_sums_at_once_are_those_of_each() -> None:
    counts = MEASURE.counts(list(np.random.default_rng(0).normal(size=(13, 5))), list("aabbccaabbcca"))
    sums = np.stack([counts.sum(0), counts[:7].sum(0), 2 * counts.sum(0)])
    actual = MEASURE.compute(sums)
    for name in ("eer", "min_dcf"):
        assert actual[name].tolist() == [float(MEASURE.compute(entry)[name]) for entry in sums]
        assert actual[name][0] == actual[name][2]
