"""A small run that is finished, and a service whose every number is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmattn.config import EncoderConfig, FusionConfig
from mmattn.experiments.config import DataConfig, EvaluationConfig, FitConfig, ProtocolConfig, TrainingConfig
from mmattn.experiments.runner import run_experiment
from mmattn.registry import datasets
from mmattn.retrieval.index import Index
from mmattn.serving.service import RecommenderService


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mmattn fit` leaves, of 113 items and 47 users."""
    folder = tmp_path_factory.mktemp("serving")
    datasets.create("digits").prepare(None, folder / "data", items=113, users=47)
    encoders = {
        "image": EncoderConfig("tiny-image", {"dim": 16, "grid": 1}, standardise=True),
        "text": EncoderConfig("tiny-text", {"dim": 16, "layers": 1}, standardise=True),
    }
    config = FitConfig(
        name="run", data=DataConfig(folder / "data", folder / "features"), encoders=encoders,
        protocol=ProtocolConfig(seeds=(3,), metrics=("ndcg@5",)), baselines={},
        fusion=FusionConfig(dim=32, heads=2), training=TrainingConfig(epochs=1, steps_per_epoch=2,
        users_per_batch=40),
        evaluation=EvaluationConfig(ablations=(), ablate_encoders=False, subsets=False, subgroups=False,
        index_dim=0),
        out=folder,
    )  # fmt: skip
    return run_experiment(config, progress=False)


@pytest.fixture(scope="session")
def data(finished: Path) -> Path:
    """What it was trained on."""
    return finished.parent / "data"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def service(tmp_path: Path) -> RecommenderService:
    """Five items on a line: item n has the vector [n], and in a history adds [1]; two were never met."""
    table = {
        "genre": ["Comedy", "Drama", "Comedy", "Drama", "Comedy"],
        "year": [1990, 1991, 1992, 1993, 1994],
    }
    index = Index.build(
        np.arange(5.0)[:, None], [10, 11, 12, 13, 14], metadata=pd.DataFrame(table), kind="exact"
    )
    entry = np.ones((5, 1), np.float32)
    facts = {
        "kind": "recommender", "catalogue": "line", "model": "model", "head": "recommendation",
        "columns": {"file": "items.csv", "id": "id", "columns": {"genre": "category", "year": "number"}},
        "known": 3, "dim": 2, "completes": False,
    }  # fmt: skip
    known = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    return RecommenderService(
        tmp_path / "line" / "index", index, entry, np.ones((1, 3), np.float32), np.arange(3), known,
        np.zeros((0, 0), np.float32), facts,
    )  # fmt: skip
