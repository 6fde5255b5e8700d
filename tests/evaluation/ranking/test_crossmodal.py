"""Precision across modalities, against a plain loop; a sample never finds itself."""

from __future__ import annotations

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.evaluation.ranking.crossmodal import (
    cross_modal_precision,
    first_relevant_ranks,
)


def test_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 29).astype(str)
    samples = {"image": np.flatnonzero(rng.random(29) < 0.8), "text": np.flatnonzero(rng.random(29) < 0.7)}
    vectors = {name: rng.normal(size=(len(sample), 5)) for name, sample in samples.items()}
    actual = cross_modal_precision(vectors, samples, labels, k=3)
    for query, target in (("image", "text"), ("text", "image")):
        shares = []
        for vector, sample in zip(vectors[query], samples[query], strict=True):
            ranked = sorted(
                (other for other in range(len(samples[target])) if samples[target][other] != sample),
                key=lambda other: -float(vector @ vectors[target][other]),
            )
            shares.append(np.mean([labels[samples[target][other]] == labels[sample] for other in ranked[:3]]))
        np.testing.assert_allclose(actual[query, target], np.mean(shares))


def test_memory_alone_finds_nothing() -> None:
    """Vectors that know only which sample they are find their own sample, which does not count."""
    vectors = {"image": np.eye(7), "audio": np.eye(7)}
    samples = {"image": np.arange(7), "audio": np.arange(7)}
    actual = cross_modal_precision(vectors, samples, np.arange(7).astype(str), k=1)
    assert set(actual.values()) == {0.0}


def test_first_ranks_against_a_sorted_list() -> None:
    rng = np.random.default_rng(1)
    queries, targets = rng.normal(size=(11, 5)), rng.normal(size=(23, 5))
    owner, owners = np.arange(11) % 7, np.arange(23) % 7
    expected = []
    for vector, group in zip(queries, owner, strict=True):
        order = np.argsort(-(targets @ vector))
        others_before = [owners[index] for index in order].index(group)
        expected.append(1 + others_before)
    assert first_relevant_ranks(queries, targets, owner, owners).tolist() == expected


def test_who_says_the_same_of_everything_finds_nothing() -> None:
    ranks = first_relevant_ranks(np.ones((3, 2)), np.ones((7, 2)), np.arange(3), np.arange(7) % 3)
    assert ranks.tolist() == [5, 6, 6]  # behind all targets of others
    with pytest.raises(InputError, match="query 4 has no target"):
        first_relevant_ranks(np.ones((1, 2)), np.ones((2, 2)), np.array([4]), np.array([0, 1]))
