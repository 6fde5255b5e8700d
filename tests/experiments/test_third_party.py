"""Heads of kinds that mmattn does not know, from an installed distribution: `mmattn fit` does the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.datasets import load_diabetes

PROJECT = Path(__file__).parent / "third_party"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built with hatchling and installed without a network."""
    wheels, target = (tmp_path_factory.mktemp(kind) for kind in ("wheels", "site"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", "--target"]
    subprocess.run([*pip, str(target), *map(str, wheels.glob("*.whl"))], check=True, capture_output=True)
    return target


def fit(site: Path, folder: Path, config: dict[str, Any], *arguments: str) -> Any:
    (folder / "fit.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "mmattn", "fit", "--config", "fit.yaml", "--quiet", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """442 patients of Efron et al., "Least Angle Regression", 2004: ten numbers, and one to predict."""
    table = load_diabetes(as_frame=True).frame.rename(columns={"target": "progression"})
    table["id"] = [f"patient {row}" for row in range(len(table))]
    order = np.random.default_rng(0).permutation(len(table))
    table["part"] = np.where(order < 300, "train", np.where(order < 360, "validation", "test"))
    table.to_csv(tmp_path / "items.csv", index=False)
    columns = {**COLUMNS, "progression": "value"}
    items = {"file": "items.csv", "id": "id", "split": "part", "columns": columns}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump({"name": "diabetes", "items": items}, sort_keys=False))
    return tmp_path


COLUMNS = dict.fromkeys(["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"], "number")
CONFIG: dict[str, Any] = {
    "name": "patients",
    "data": {"card": "."},
    "encoders": {"table": {"name": "tabular", "options": {"columns": COLUMNS, "dim": 16}}},
    "fusion": {"dim": 16, "heads": 2},
    "tasks": {"progression": {"head": {"name": "gaussian"}, "target": "progression"}},
    "training": {"epochs": 30, "learning_rate": 0.01},
    "protocol": {"seeds": [0, 1]},
}


def test_a_regression_head_is_trained_measured_reported_and_saved(site: Path, patients: Path) -> None:
    ran = fit(site, patients, CONFIG)
    assert ran.returncode == 0, ran.stderr
    folder = patients / "runs" / "patients"
    metrics = json.loads((folder / "metrics.json").read_text())["tasks"]["progression"]
    assert metrics["primary_metric"] == "mae"
    table = pd.read_csv(patients / "items.csv")
    test = table[table["part"] == "test"]["progression"]
    constant = (test - table[table["part"] == "train"]["progression"].median()).abs().mean()
    assert metrics["metrics"]["mae"]["mean"] < 0.8 * constant  # ordinary least squares: some 44 of 66
    assert 0.6 < metrics["metrics"]["coverage"]["mean"] < 1
    assert {metric["target"] for metric in metrics["perturbations"]} == {"table"}
    assert metrics["parts"] == {"train": 300, "validation": 60, "test": 82}
    page = (folder / "report.html").read_text()
    for expected in (
        "Largest errors",
        "Five test items of the first seed.",
        "patient ",
        "MAE",
        "RMSE",
        "Coverage",
    ):
        assert expected in page
    assert "mae" in ran.stdout
    # Finished: read from the disk, predictions included.
    before = (folder / "report.html").read_text()
    assert fit(site, patients, CONFIG, "--resume").returncode == 0
    assert (folder / "report.html").read_text() == before
    # The saved model predicts what was measured.
    code = (
        "import json\nfrom mmattn.data.reader import read_dataset\nfrom mmattn.model.model import Model\n"
        "model = Model.from_pretrained('runs/patients/seed-0/model')\ndataset = read_dataset('.')\n"
        "items = [item for item, part in zip(dataset.items, dataset.item_split) if part == 'test']\n"
        "print(json.dumps(model.head('progression').predict(model.fuse(model.encode(items)))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    again = subprocess.run(
        [sys.executable, "-c", code],
        cwd=patients,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    saved = json.loads((folder / "seed-0" / "result.json").read_text())["tasks"]["progression"]["predictions"]
    for load, expected in zip(json.loads(again.stdout), saved, strict=True):
        assert load == pytest.approx(expected, rel=1e-4)


def test_an_encoder_without_what_it_needs_is_one_line(site: Path, patients: Path) -> None:
    for options, message in (
        ({}, "missing a required argument: 'columns'; name it in the encoder's options"),
        ({"columns": COLUMNS, "dims": 3}, "no option 'dims'. Did you mean 'dim'?"),
    ):
        encoders = {"table": {"name": "tabular", "options": options}}
        ran = fit(site, patients, {**CONFIG, "name": f"run {len(options)}", "encoders": encoders})
        assert ran.returncode == 2
        assert message in ran.stderr
        assert "Traceback" not in ran.stderr


def test_its_mistakes_are_one_line(site: Path, patients: Path) -> None:
    for changes, message in (
        ({"metric": "accuracy"}, "tasks.progression: metric: got 'accuracy', expected none"),
        (
            {"target": "bmi"},
            "tasks.progression.target: no target 'bmi' in diabetes, where it is content (number)",
        ),
        ({"head": {"name": "classification"}}, "learns from label, and 'progression' is value in diabetes"),
    ):
        task = {**CONFIG["tasks"]["progression"], **changes}
        ran = fit(site, patients, {**CONFIG, "tasks": {"progression": task}})
        assert ran.returncode == 2
        assert message in ran.stderr
        assert ran.stderr.count("\n") == 1
        assert not (patients / "runs").exists()


def test_a_recommender_head_with_a_task_of_its_own(site: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    genre = rng.integers(0, 3, 60)
    titles = [f"film {number} of {['war', 'love', 'fear'][kind]}" for number, kind in enumerate(genre)]
    pd.DataFrame({"id": range(60), "title": titles}).to_csv(tmp_path / "items.csv", index=False)
    likes = np.where(rng.integers(0, 3, (40, 1)) == genre, 0.5, 0.05)
    pairs = np.argwhere(rng.random(likes.shape) < likes)
    pd.DataFrame(pairs, columns=["user", "item"]).to_csv(tmp_path / "pairs.csv", index=False)
    card = {
        "name": "films",
        "items": {"file": "items.csv", "id": "id", "columns": {"title": "text"}},
        "interactions": {"file": "pairs.csv", "user": "user", "item": "item"},
    }
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))
    config = {
        "name": "films",
        "data": {"card": "."},
        "encoders": {"text": {"name": "tiny-text", "options": {"dim": 16}, "standardise": True}},
        "fusion": {"dim": 16, "heads": 2},
        "head": {"name": "co-occurrence"},
        "protocol": {"split": "cold", "seeds": [0], "metrics": ["ndcg@5"]},
        "training": {"epochs": 3, "steps_per_epoch": 10, "learning_rate": 0.01},
        "evaluation": {"index_dim": 8},
    }
    ran = fit(site, tmp_path, config)
    assert ran.returncode == 0, ran.stderr
    metrics = json.loads((tmp_path / "runs" / "films" / "metrics.json").read_text())
    ours, popularity = (metrics["systems"][name]["ndcg@5"]["mean"] for name in ("mmattn", "popularity"))
    assert ours > popularity + 0.1  # genres are all there is, and popularity cannot know them
    assert metrics["index_cost"]["vector_loss"]["mean"] == pytest.approx(0, abs=1e-6)
    ran = fit(site, tmp_path, {**config, "name": "hybrid", "hybrid": {}})
    assert ran.returncode == 2
    assert "hybrid: is built around a head whose scores are linear in the history" in ran.stderr
