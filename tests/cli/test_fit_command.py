"""`mmattn fit`, `demo` and `plugins` from the outside: small runs, and every mistake in one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mmattn import InputError
from mmattn.cli import main
from mmattn.cli.fit import metrics_table, split_overrides
from mmattn.model.model import Model
from mmattn.registry import datasets

SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {"card": "data", "features": "features"},
    "protocol": {"seeds": [0, 1], "metrics": ["ndcg@5", "recall@5"]},
    "encoders": {
        "image": {"name": "tiny-image", "options": {"dim": 16, "grid": 1}, "standardise": True},
        "text": {"name": "tiny-text", "options": {"dim": 16, "layers": 1}, "standardise": True},
    },
    "fusion": {"dim": 32, "heads": 2},
    "training": {"epochs": 2, "steps_per_epoch": 2, "users_per_batch": 50},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    datasets.create("digits").prepare(None, folder, items=120, users=60)
    return folder


@pytest.fixture
def here(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").symlink_to(digits)
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(SETTINGS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments: str) -> int:
    return main(["fit", "--config", "fit.yaml", "--quiet", *arguments])


def test_a_run_leaves_models_metrics_and_a_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit() == 0
    folder = here / "runs" / "small"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["systems"]) == {"mmattn", "popularity", "ease"}
    assert metrics["protocol"]["seeds"] == [0, 1]
    ours = metrics["systems"]["mmattn"]["recall@5"]
    assert len(ours["seeds"]) == 2
    assert ours["low"] <= ours["mean"] <= ours["high"]
    assert ours["mean"] == pytest.approx(np.mean(ours["seeds"]))
    kinds = ("without", "shuffled", "only")  # no noise: both encoders are trained along
    assert set(metrics["ablations"]) == {f"{kind}-{name}" for kind in kinds for name in ("image", "text")}
    assert set(metrics["ablation_changes"]) == set(metrics["ablations"])
    assert "image" in metrics["ablation_summary"]
    assert "text" in metrics["ablation_summary"]
    assert metrics["modality_gaps"]["image | text"]["samples"] > 2
    assert metrics["index_cost"]["operating_points"]
    assert {name.partition(":")[0] for name in metrics["subgroups"]} == {"cold items", "history"}
    assert set(metrics["recall_at_k"]) == set(metrics["systems"])
    assert "| mmattn |" in (folder / "tables.md").read_text()
    assert r"\begin{tabular}" in (folder / "tables.tex").read_text()
    assert f"report: {Path('runs/small/report.html')}" in capsys.readouterr().out
    page = (folder / "report.html").read_text()
    assert "<script src" not in page
    assert "data:image" in page
    # A finished run is not trained again: asked to resume, it gives the same numbers from the disk.
    before = (folder / "seed-0" / "result.npz").stat().st_mtime_ns
    assert fit("--resume") == 0
    assert (folder / "seed-0" / "result.npz").stat().st_mtime_ns == before
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_baselines_are_tuned_by_one_budget_and_the_report_says_so(here: Path) -> None:
    baselines = {
        "ease": {"kind": "ease"},
        "knn": {"kind": "item-knn"},
        "bpr": {"kind": "bpr", "options": {"dim": 4, "epochs": 4, "validate_every": 2}},
    }
    (here / "fit.yaml").write_text(yaml.safe_dump({**SETTINGS, "baselines": baselines}))
    assert fit("--protocol.tuning_trials", "2", "--protocol.seeds", "[0]") == 0
    folder = here / "runs" / "small"
    search = json.loads((folder / "seed-0" / "baselines.json").read_text())
    assert {name: len(value["trials"]) for name, value in search["systems"].items()} == dict.fromkeys(
        baselines, 2
    )
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["protocol"]["tuning_trials"] == 2
    page = (folder / "report.html").read_text()
    assert "had 2 trials on validation" in page
    for name in baselines:
        for key, value in search["systems"][name]["best"].items():
            assert f"{key} {value:.3g}" in page, (name, key)
    # From the disk, the report is the same.
    assert fit("--protocol.tuning_trials", "2", "--protocol.seeds", "[0]", "--resume") == 0
    assert "had 2 trials on validation" in (folder / "report.html").read_text()


def test_a_killed_run_resumes_to_the_numbers_of_an_uninterrupted_one(here: Path) -> None:
    torch.manual_seed(torch.seed())  # what was drawn before must not matter
    assert fit("--name", "whole") == 0
    command = [sys.executable, "-m", "mmattn", "fit", "--config", "fit.yaml", "--name", "killed", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = here / "runs" / "killed" / "seed-0" / "choose" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (here / "runs" / "killed" / "report.html").exists()
    assert fit("--name", "killed", "--resume") == 0
    whole, killed = (
        json.loads((here / "runs" / name / "metrics.json").read_text())["systems"]["mmattn"]
        for name in ("whole", "killed")
    )
    for metric, value in whole.items():
        assert killed[metric]["seeds"] == pytest.approx(value["seeds"], abs=1e-6)


def test_a_saved_model_gives_the_same_vectors(here: Path) -> None:
    from mmattn.data.reader import read_dataset

    assert fit("--protocol.seeds", "[0]", "--baselines", "{}") == 0
    folder = here / "runs" / "small" / "seed-0" / "model"
    entry, other = Model.from_pretrained(folder), Model.from_pretrained(folder)
    samples = read_dataset(here / "data").items[:7]
    with torch.no_grad():
        vectors = entry(samples)["recommendation"]
        assert torch.equal(vectors, other(samples)["recommendation"])
    assert vectors.shape == (7, 32)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match="model.safetensors cannot be read"):
        Model.from_pretrained(folder)


def test_another_encoder_is_refused_by_name(here: Path) -> None:
    assert fit("--protocol.seeds", "[0]", "--baselines", "{}") == 0
    folder = here / "runs" / "small" / "seed-0" / "model"
    content = json.loads((folder / "config.json").read_text())
    content["encoders"]["image"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"encoder 'image' is \w{12} here, expected 000000000000"):
        Model.from_pretrained(folder)


@pytest.mark.parametrize("split", ["random", "time"])
def test_warm_protocols_run_too(here: Path, split: str) -> None:
    assert fit("--protocol.split", split, "--protocol.seeds", "[0]", "--head.options.num_ids", "120") == 0
    actual = json.loads((here / "runs" / "small" / "metrics.json").read_text())["systems"]
    assert 0 < actual["mmattn"]["recall@5"]["mean"] <= 1


@pytest.mark.parametrize("split", ["mixed", "cold"])
def test_a_hybrid_is_chosen_on_validation_and_told_in_the_report(here: Path, split: str) -> None:
    grid = {
        "regularization": [1.0, 10.0],
        "user_regularization": [1.0],
        "user_weight": [0.5, 1.0],
        "shrinkage": [1.0],
    }
    chosen = ["--protocol.split", split, "--hybrid", json.dumps(grid), "--baselines", "{}"]
    assert fit("--protocol.seeds", "[0]", *chosen) == 0
    folder = here / "runs" / "small"
    actual = json.loads((folder / "seed-0" / "result.json").read_text())["ranking"]["hybrid_settings"]
    assert actual["regularization"] in (1.0, 10.0)
    assert actual["user_weight"] in (0.5, 1.0)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 < metrics["systems"]["mmattn"]["recall@5"]["mean"] <= 1
    assert metrics["index_cost"] is None
    assert abs(metrics["ablation_changes"]["without-image"]["recall@5"]["mean"]) > 0
    # Cold items have a subgroup of their own where they share the list.
    assert ("items: cold" in metrics["subgroups"]) == (split == "mixed")
    assert "attention over users" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainng.epochs", "3"], "fit.yaml: unknown key 'trainng'. Did you mean 'training'?"),
        (["--training.epochs", "many"], "training.epochs: got 'many' (str), expected a whole number"),
        (["--training.epochs"], "--training.epochs has no value"),
        (["--hybrid.user_weight", "[]"], "hybrid: user_weight: got no value, expected one or several"),
        (
            ["--encoders.image.name", "tiny-imag"],
            "no encoders plugin 'tiny-imag'. Did you mean 'tiny-image'?",
        ),
        (["--fusion.program", "Program(score=dit())"], "dit"),
        (["--data.card", "nowhere"], "nowhere"),
        (["--protocol.metrics", "[ndgc@5]"], "Did you mean 'ndcg'?"),
        (
            ["--protocol.split", "warm"],
            "expected one of cold, mixed, random, time, leave-one-out, cold-users, given",
        ),
        (
            ["--training.candidate_fraction", "0.9"],
            "expected shares of the items that together make at most 1",
        ),
    ],
)
def test_mistakes_end_with_one_line(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("mmattn: ")
    assert message in lines[-1]


def test_a_run_never_writes_over_another(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs" / "small").mkdir(parents=True)
    (here / "runs" / "small" / "notes.txt").write_text("mine")
    assert fit() == 2
    assert "exists and is no run; choose another name" in capsys.readouterr().err
    shutil.rmtree(here / "runs")
    assert fit("--protocol.seeds", "[0]", "--baselines", "{}") == 0
    assert fit() == 2
    assert "this run exists; choose another name, or --resume" in capsys.readouterr().err
    assert fit("--resume") == 2
    assert "holds a run with other settings" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_is_listed_and_the_run_goes_on(here: Path, digits: Path) -> None:
    broken = here / "broken"
    shutil.copytree(digits, broken)
    first = sorted((broken / "images").iterdir())[0]
    first.write_bytes(first.read_bytes()[:60])
    assert fit("--data.card", "broken", "--protocol.seeds", "[0]", "--baselines", "{}") == 0
    rejected = (here / "runs" / "small" / "rejected.csv").read_text().splitlines()
    assert rejected[0] == "id,modality,reason"
    assert len(rejected) == 2
    assert ",image," in rejected[1]


def test_overrides_are_parted_from_the_command_s_own_arguments() -> None:
    group, actual = split_overrides(["--config", "a.yaml", "--training.epochs=3", "--json", "--name", "x"])
    assert group == ["--config", "a.yaml", "--json"]
    assert actual == {"training.epochs": 3, "name": "x"}


def test_the_table_is_aligned() -> None:
    cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
    lines = metrics_table({"systems": {"mmattn": {"ndcg@5": cell}, "a": {"ndcg@5": cell}}}).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_plugins_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"]) == 0
    rows = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    tiny = rows["encoders", "tiny-text"]
    assert tiny["loadable"]
    assert tiny["origin"].startswith("mmattn ")
    assert ("heads", "recommendation") in rows
    assert ("datasets", "movielens") in rows


def test_commands_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: mmattn COMMAND" in capsys.readouterr().out
    assert main(["fit", "--help"]) == 0
    assert "--config" in capsys.readouterr().out
    assert main(["ftt"]) == 2
    assert "no command 'ftt'. Did you mean 'fit'?" in capsys.readouterr().err


def test_the_demo_s_first_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole tour at a tenth of its size: figures are small here, `make demo` shows the real ones."""
    assert main(["demo", "--out", str(tmp_path / "demo"), "--items", "150", "--epochs", "1", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(" -> ") == 7  # six directions and the heading
    assert (tmp_path / "demo" / "recommend" / "report.html").is_file()
