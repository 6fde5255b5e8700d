"""Precision across modalities, against a plain loop; a sample never finds itself."""

from __future__ import annotations

import numpy as np

from mmattn.evaluation.crossmodal import precision_across


def test_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 29).astype(str)
    samples = {"image": np.flatnonzero(rng.random(29) < 0.8), "text": np.flatnonzero(rng.random(29) < 0.7)}
    vectors = {name: rng.normal(size=(len(own), 5)) for name, own in samples.items()}
    found = precision_across(vectors, samples, labels, k=3)
    for query, target in (("image", "text"), ("text", "image")):
        shares = []
        for vector, sample in zip(vectors[query], samples[query], strict=True):
            ranked = sorted(
                (other for other in range(len(samples[target])) if samples[target][other] != sample),
                key=lambda other: -float(vector @ vectors[target][other]),
            )
            shares.append(np.mean([labels[samples[target][other]] == labels[sample] for other in ranked[:3]]))
        np.testing.assert_allclose(found[query, target], np.mean(shares))


def test_memory_alone_finds_nothing() -> None:
    """Vectors that know only which sample they are find their own sample, which does not count."""
    vectors = {"image": np.eye(7), "audio": np.eye(7)}
    samples = {"image": np.arange(7), "audio": np.arange(7)}
    found = precision_across(vectors, samples, np.arange(7).astype(str), k=1)
    assert set(found.values()) == {0.0}
