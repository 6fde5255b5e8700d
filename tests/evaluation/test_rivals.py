"""Rivals from their configuration: they get the content that is named, and what is missing is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from mmattn import InputError, Sample, Tokens
from mmattn.config import RivalConfig
from mmattn.encoders.inputs import Inputs
from mmattn.evaluation.rivals import RivalContent, fit_rival


@pytest.fixture
def content() -> RivalContent:
    rows = [
        {"genres": ["Drama"], "year": 1990},
        {"genres": ["Drama", "War"], "year": 1995},
        {"year": 1990},
    ]
    samples = [Sample(str(place), {"table": row}) for place, row in enumerate(rows)]
    values = torch.tensor([[3.0, 4.0], [4.0, 3.0], [0.0, 5.0]])
    tokens = Tokens.from_lengths(values, torch.tensor([2, 1, 0]), "text")
    return RivalContent(samples, Inputs({"text": tokens}))


def test_the_kernel_is_the_weighted_sum_of_what_is_named(content: RivalContent) -> None:
    config = RivalConfig("kernel-ridge", vectors={"text": 2.0}, tags={"genres": 1.0}, numbers={"year": 5.0})
    mean = np.array([3.5, 3.5]) / np.linalg.norm([3.5, 3.5])
    text = 2.0 * float(mean @ np.array([0.0, 1.0]))
    expected = [
        [2 + 1 + 1, text + 1 / np.sqrt(2) + np.exp(-0.5), 0 + 0 + 1],
        [text + 1 / np.sqrt(2) + np.exp(-0.5), 2 + 1 + 1, np.exp(-0.5)],
        [1, np.exp(-0.5), 1],  # no text, no genres: only the year is alike
    ]
    np.testing.assert_allclose(content.kernel(config), expected, rtol=1e-6)
    exponential = RivalConfig(**{**vars(config), "exponent": 0.5})
    np.testing.assert_allclose(content.kernel(exponential), np.exp(0.5 * np.array(expected)), rtol=1e-6)


def test_linear_features_have_the_linear_kernel(content: RivalContent) -> None:
    config = RivalConfig(
        "content-ridge", vectors={"text": 0.25}, tags={"genres": 1.0}, rare={"genres+year": 2.0}
    )
    features = content.features(config)
    np.testing.assert_allclose(features @ features.T, content.kernel(config), atol=1e-6)


@pytest.mark.parametrize("kind", ["popularity", "ease", "content-ridge", "content-knn", "kernel-ridge"])
def test_every_kind_can_be_fitted(content: RivalContent, kind: str) -> None:
    config = RivalConfig(kind, vectors={"text": 1.0}, tags={"genres": 1.0})  # type: ignore[arg-type]
    seen = sparse.csr_array(np.array([[1, 0, 0], [1, 1, 0]], np.float32))
    scores = fit_rival(config, content, seen, np.array([0, 1])).score([0, 1], [0, 1, 2])
    assert scores.shape == (2, 3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RivalConfig("content-ridge", vectors={"txt": 1.0}), "no stored modality 'txt'. Did you mean 'text'"),
        (RivalConfig("content-ridge", tags={"genre": 1.0}), "no column 'genre'. Did you mean 'genres'"),
        (RivalConfig("content-ridge"), "got no content, expected vectors, tags or rare"),
    ],
)
def test_what_is_missing_is_named(content: RivalContent, config: RivalConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        content.features(config)
