"""Precision across modalities, against a plain loop; a sample never finds itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.evaluation.ranking.crossmodal import (
    cross_modal_precision,
    first_relevant_ranks,
    modality_vectors,
    subset_vectors,
)
from mmattn.model.build import build_encoders, build_model


def test_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 29).astype(str)
    samples = {"image": np.flatnonzero(rng.random(29) < 0.8), "text": np.flatnonzero(rng.random(29) < 0.7)}
    vectors = {name: rng.normal(size=(len(own), 5)) for name, own in samples.items()}
    found = cross_modal_precision(vectors, samples, labels, k=3)
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
    found = cross_modal_precision(vectors, samples, np.arange(7).astype(str), k=1)
    assert set(found.values()) == {0.0}


def test_first_ranks_against_a_sorted_list() -> None:
    rng = np.random.default_rng(1)
    queries, targets = rng.normal(size=(11, 5)), rng.normal(size=(23, 5))
    owner, owners = np.arange(11) % 7, np.arange(23) % 7
    expected = []
    for vector, own in zip(queries, owner, strict=True):
        order = np.argsort(-(targets @ vector))
        others_before = [owners[place] for place in order].index(own)
        expected.append(1 + others_before)
    assert first_relevant_ranks(queries, targets, owner, owners).tolist() == expected


def test_who_says_the_same_of_everything_finds_nothing() -> None:
    ranks = first_relevant_ranks(np.ones((3, 2)), np.ones((7, 2)), np.arange(3), np.arange(7) % 3)
    assert ranks.tolist() == [5, 6, 6]  # behind all targets of others
    with pytest.raises(InputError, match="4 has a query and no target"):
        first_relevant_ranks(np.ones((1, 2)), np.ones((2, 2)), np.array([4]), np.array([0, 1]))


def test_subsets_are_what_is_there() -> None:
    """One modality alone gives its own vectors; two give those of samples that have no more than the two."""
    config = ModelConfig(
        {name: EncoderConfig("tiny-text", {"dim": 8, "modality": name}) for name in ("a", "b", "c")},
        FusionConfig(dim=12, layers=1, heads=2),
        {"alignment": HeadConfig("alignment", {"out": 6})},
    )
    torch.manual_seed(0)
    model = build_model(build_encoders(config.encoders), config)
    texts = {name: [f"{name} {number}" for number in range(5)] for name in "abc"}
    inputs, rows = ModelInputs(contents=texts), torch.tensor([3, 0, 4])
    vectors, _ = modality_vectors(model, inputs, rows)
    for name in "abc":
        np.testing.assert_allclose(subset_vectors(model, inputs, rows, (name,)), vectors[name], atol=1e-6)
    both = subset_vectors(model, inputs, rows, ("a", "c"), batch_size=2)
    without = ModelInputs(contents={**texts, "b": [None] * 5})
    model.eval()
    with torch.no_grad():
        expected = model.head("alignment")(model.fuse(model.tokens(without, rows)))
    np.testing.assert_allclose(both, expected, atol=1e-6)
