"""Every registered encoder is held against the contract, because it is registered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.model.build import build_encoders, build_model
from mmattn.registry import encoders
from mmattn.testing.plugin_checks import check_encoder

ROWS = [
    {"year": 1995.0, "genres": ["Crime", "Drama"], "country": "US", "people": [3, 11]},
    {"year": 1982.0, "genres": ["Drama"], "country": "FR", "people": [3]},
    {"year": 2001.0, "genres": ["Comedy"], "country": "US", "people": [7]},
]
COLUMNS = {"year": "number", "genres": "categories", "country": "category", "people": "entity"}


def required_options(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What an encoder cannot be built without."""
    if name == "hf-text":
        return {"model": str(request.getfixturevalue("tiny_bert")), "pool": "fields"}
    if name == "hf-audio":
        return {"model": str(request.getfixturevalue("tiny_wav2vec"))}
    if name == "timm":
        return {"model_name": "test_resnet", "grid": 2}
    if name == "tabular":
        return {"columns": Tabular.fit(ROWS, COLUMNS).columns}
    if name == "aligned":
        return {"model": str(request.getfixturevalue("aligned_model")), "source_modality": "image"}
    return {}


@pytest.fixture
def aligned_model(tmp_path: Path) -> Path:
    """A model with an alignment head, as `mmattn demo` leaves one."""
    config = ModelConfig(
        {"image": EncoderConfig("tiny-image", {"dim": 12})},
        FusionConfig(dim=16, heads=2),
        {"alignment": HeadConfig("alignment", {"embedding_dim": 11})},
    )
    build_model(build_encoders(config.encoders), config).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", list(encoders))
def test_every_registered_encoder_keeps_the_contract(name: str, request: pytest.FixtureRequest) -> None:
    check_encoder(name, **required_options(name, request))


def test_fine_tuned_ones_keep_it_too(request: pytest.FixtureRequest) -> None:
    check_encoder("hf-text", model=str(request.getfixturevalue("tiny_bert")), frozen=False)
    check_encoder("hf-audio", model=str(request.getfixturevalue("tiny_whisper")), frozen=False, pool="all")
    check_encoder("resemblyzer", frozen=False)
