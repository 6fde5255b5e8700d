"""Vectors of single modalities and of subsets."""

from __future__ import annotations

import numpy as np
import torch

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.model.build import build_encoders, build_model
from mmattn.model.modality_vectors import modality_vectors, subset_vectors


def test_subsets_are_what_is_there() -> None:
    """One modality alone gives its own vectors; two give those of samples that have no more than the two."""
    config = ModelConfig(
        {name: EncoderConfig("tiny-text", {"dim": 8, "modality": name}) for name in ("a", "b", "c")},
        FusionConfig(dim=12, layers=1, heads=2),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 6})},
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
