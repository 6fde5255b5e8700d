"""`mmattn fit` with `tasks`: heads on one core, from one card or two; every mistake is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from mmattn import attention as A
from mmattn.cli import main
from mmattn.data.reader import read_dataset
from mmattn.model.model import Model
from mmattn.registry import datasets

HEAD = {"name": "classification"}
SETTINGS: dict[str, Any] = {
    "name": "small",
    "data": {"card": "data", "features": "features"},
    "encoders": {
        "image": {"name": "tiny-image", "options": {"dim": 16, "grid": 1, "size": 8}, "standardise": True},
        "text": {"name": "tiny-text", "options": {"dim": 16, "layers": 1}, "standardise": True},
    },
    "fusion": {
        "dim": 32,
        "heads": 2,
        "program": "Program(score=dot() >> temperature(dynamic('t', on='task')))",
    },
    "tasks": {
        "digit": {"head": HEAD, "target": "digit", "drop_modality": 0.2, "augment": {"image": {"shift": 1}}},
        "language": {"head": HEAD, "target": "language", "inputs": ["text"], "weight": 0.5},
    },
    "training": {"epochs": 2, "steps_per_epoch": 3},
    "protocol": {"seeds": [0, 1]},
    "evaluation": {"noise_levels": [0.5], "attack_radii": [0.1]},
}
QUICK = (
    "--protocol.seeds",
    "[0]",
    "--single_task_baselines",
    "false",
    "--evaluation",
    "{ablations: [], subsets: false, noise_levels: []}",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    datasets.create("digits").prepare(None, folder, items=150, users=20)
    return folder


@pytest.fixture
def here(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").symlink_to(digits)
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(SETTINGS, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*arguments: str) -> int:
    return main(["fit", "--config", "tasks.yaml", "--quiet", *arguments])


def rewrite(**changes: Any) -> None:
    Path("tasks.yaml").write_text(yaml.safe_dump({**SETTINGS, **changes}, sort_keys=False))


def test_a_run_says_what_each_task_gained_or_lost(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert fit() == 0
    folder = here / "runs" / "small"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["systems"]) == {"mmattn", "single_task"}
    assert list(metrics["tasks"]) == ["digit", "language"]
    digit = metrics["tasks"]["digit"]
    whole, alone, gain = (digit[which]["accuracy"] for which in ("metrics", "single_task", "gain"))
    assert len(whole["seeds"]) == 2
    assert whole["low"] <= whole["mean"] <= whole["high"]
    assert gain["mean"] == pytest.approx(whole["mean"] - alone["mean"])
    assert gain["seeds"] == pytest.approx(np.subtract(whole["seeds"], alone["seeds"]).tolist())
    assert digit["outcome"] in ("gained", "lost", "even")
    kinds = ("without", "shuffled", "only")  # no noise: both encoders are trained along
    assert set(digit["ablations"]) == {f"{kind}-{name}" for kind in kinds for name in ("image", "text")}
    without, only = digit["ablations"]["without-image"], digit["ablations"]["only-text"]
    assert without == only
    assert {(entry["target"], entry["level"]) for entry in digit["perturbations"]} == {
        ("image", 0.5), ("text", 0.5), ("all", 0.5), ("attack", 0.1),
    }  # fmt: skip
    assert sum(map(sum, digit["confusion"]["counts"])) == 2 * digit["parts"]["test"]
    assert sum(row["support"] for row in digit["classes"]) == digit["parts"]["test"]
    # What reads words alone has nothing to take away, and learns from items with words alone.
    language = metrics["tasks"]["language"]
    assert language["ablations"].keys() <= {"shuffled-text"}
    dataset = read_dataset(here / "data")
    present = dataset.presence[:, dataset.modalities.index("text")] & (dataset.item_split == "test")
    assert language["parts"]["test"] == present.sum()
    answer = caplog.text + capsys.readouterr().out
    assert "device: " in answer
    assert "task language: classification of 'language' from text" in answer
    assert f"report: {Path('runs/small/report.html')}" in answer
    page = (folder / "report.html").read_text()
    assert "<script src" not in page
    assert "data:image" in page
    assert "Effect of joint training on each task" in page
    tables = (folder / "tables.md").read_text()
    assert "| digit | Accuracy | " in tables
    assert "| image | " in tables
    assert (folder / "tables.tex").read_text().count(r"\toprule") == tables.count("| --- |")
    # A finished run is not trained again: asked to resume, it gives the same numbers from the disk.
    before = (folder / "seed-0" / "result.npz").stat().st_mtime_ns
    assert fit("--resume") == 0
    assert (folder / "seed-0" / "result.npz").stat().st_mtime_ns == before
    assert json.loads((folder / "metrics.json").read_text()) == metrics


def test_voices_are_told_apart_by_vectors(here: Path) -> None:
    audio = {"name": "conv-mel", "options": {"dim": 16, "channels": [4, 8, 8]}, "standardise": True}
    voice = {
        "head": {"name": "speaker", "options": {"embedding_dim": 8, "loss": "ArcFaceLoss"}},
        "target": "voice", "inputs": ["audio"],
    }  # fmt: skip
    rewrite(encoders={**SETTINGS["encoders"], "audio": audio}, tasks={"voice": voice})
    assert fit(*QUICK, "--training.epochs", "3", "--training.steps_per_epoch", "6") == 0
    folder = here / "runs" / "small"
    metrics = json.loads((folder / "metrics.json").read_text())["tasks"]["voice"]
    assert metrics["primary_metric"] == "eer"
    error = metrics["metrics"]["eer"]
    assert error["low"] <= error["mean"] <= error["high"] < 0.5
    vectors = json.loads((folder / "seed-0" / "result.json").read_text())["tasks"]["voice"]["predictions"]
    assert np.shape(vectors) == (metrics["parts"]["test"], 8)
    assert "Equal error rate" in (folder / "report.html").read_text()


def test_heads_that_training_has_closed_are_not_kept(here: Path) -> None:
    gated = {**SETTINGS["fusion"], "program": "Program(score=dot() >> head_gate('gate'))"}
    rewrite(fusion=gated, tasks={"digit": SETTINGS["tasks"]["digit"]})
    assert fit(*QUICK, "--training.gate_penalty", "9", "--training.gate_learning_rate", "9") == 0
    model = Model.from_pretrained(here / "runs" / "small" / "seed-0" / "model")
    assert [layer.heads for _, layer in A.layers(model)] == [1] * len(model.core.blocks)


def test_a_saved_model_answers_for_every_task(here: Path) -> None:
    assert fit(*QUICK) == 0
    folder = here / "runs" / "small" / "seed-0"
    model = Model.from_pretrained(folder / "model")
    dataset = read_dataset(here / "data")
    notes = json.loads((folder / "result.json").read_text())["tasks"]
    for task, reads in (("digit", ("image", "text")), ("language", ("text",))):
        known = np.array([target is not None for target in dataset.targets[task]])
        seen = dataset.presence[:, [dataset.modalities.index(name) for name in reads]].any(1)
        rows = np.flatnonzero(known & seen & (dataset.item_split == "test"))
        parts = model.encode([dataset.items[row] for row in rows])
        with torch.no_grad():
            fused = model.fuse({name: parts[name] for name in reads}, {"task": task})
        assert model.head(task).predict(fused) == notes[task]["predictions"]


def test_a_killed_run_resumes_to_the_numbers_of_an_uninterrupted_one(here: Path) -> None:
    chosen = ("--protocol.seeds", "[0]", "--weighting", "uncertainty")
    assert fit("--name", "whole", *chosen) == 0
    command = [sys.executable, "-m", "mmattn", "fit", "--config", "tasks.yaml", "--name", "killed", "--quiet"]
    process = subprocess.Popen([*command, *chosen], env={**os.environ, "OMP_NUM_THREADS": "1"})
    first = here / "runs" / "killed" / "seed-0" / "alone-digit" / "last.safetensors"
    deadline = time.monotonic() + 120
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert first.exists()
    assert not (here / "runs" / "killed" / "report.html").exists()
    assert fit("--name", "killed", *chosen, "--resume") == 0
    whole, killed = (
        json.loads((here / "runs" / name / "metrics.json").read_text())["tasks"]
        for name in ("whole", "killed")
    )
    assert killed == whole


def test_tasks_may_learn_from_different_cards(here: Path) -> None:
    other = here / "sentences"
    other.mkdir()
    rows = []
    for number, index in enumerate(["York", "Rome", "Oslo", "Bonn"] * 5):
        later = ["now"] * (number % 3)
        words, tags = ["in", index, "again", *later], ["O", "B-place", "O", *["O"] * len(later)]
        part = "test" if number % 4 == 3 else "train"
        rows.append({"id": number, "words": words, "tags": tags, "part": part})
    pd.DataFrame(rows).to_parquet(other / "items.parquet")
    columns = {"words": {"role": "words", "modality": "sentence"}, "tags": "tags"}
    card = {"file": "items.parquet", "id": "id", "split": "part", "columns": columns}
    (other / "card.yaml").write_text(yaml.safe_dump({"name": "sentences", "items": card}))
    words = {"name": "tiny-text", "options": {"dim": 16, "is_split_into_words": True}}
    head = {"name": "tagging", "options": {"modality": "sentence"}}
    tags = {"head": head, "target": "tags", "card": "sentences"}
    rewrite(
        encoders={**SETTINGS["encoders"], "sentence": words},
        tasks={"digit": SETTINGS["tasks"]["digit"], "places": tags},
        training={"epochs": 3, "steps_per_epoch": 8, "learning_rate": 0.01},
    )
    shuffled = ("--evaluation", "{ablations: [shuffle], subsets: false, noise_levels: []}")
    assert fit(*QUICK, *shuffled, "--protocol.validation", "0.2") == 0
    metrics = json.loads((here / "runs" / "small" / "metrics.json").read_text())["tasks"]
    indices = metrics["places"]
    assert indices["data"] == "sentences"
    assert indices["parts"] == {"train": 12, "validation": 3, "test": 5}
    assert indices["metrics"]["f1"]["mean"] == 1.0
    # Another sentence's words are at other places, and may be more than there are.
    assert indices["ablations"]["shuffled-sentence"]["f1"]["mean"] <= 1.0
    assert metrics["digit"]["data"] == "digits"
    page = (here / "runs" / "small" / "report.html").read_text()
    assert "<h3>sentences</h3>" in page


def test_boxes_are_found_and_drawn(here: Path) -> None:
    """Squares on pictures: the whole way of boxes, from the cells of a table to pictures in the report."""
    folder, drawn = here / "squares", np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for number in range(24):
        left, top = drawn.integers(0, 20, 2).tolist()
        pixels = np.zeros((32, 32), np.uint8)
        pixels[top : top + 9, left : left + 9] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        boxes = [{"label": "square", "box": [left, top, left + 9, top + 9]}]
        part = ("train", "train", "validation", "test")[number % 4]
        rows.append({"id": number, "image": f"{number}.png", "boxes": boxes, "part": part})
    pd.DataFrame(rows).to_parquet(folder / "items.parquet")
    card = {
        "file": "items.parquet",
        "id": "id",
        "split": "part",
        "columns": {"image": "image", "boxes": "boxes"},
    }
    (folder / "card.yaml").write_text(yaml.safe_dump({"name": "squares", "items": card}))
    rewrite(
        data={"card": "squares"},
        encoders={"image": {"name": "tiny-image", "options": {"dim": 16, "grid": 4}}},
        tasks={"squares": {"head": {"name": "detection"}, "target": "boxes", "batch_size": 6}},
    )
    assert fit(*QUICK) == 0
    actual = json.loads((here / "runs" / "small" / "metrics.json").read_text())["tasks"]["squares"]
    assert actual["parts"] == {"train": 12, "validation": 6, "test": 6}
    assert {"f1", "ap50", "map"} <= set(actual["metrics"])
    notes = json.loads((here / "runs" / "small" / "seed-0" / "result.json").read_text())
    assert notes["tasks"]["squares"]["predictions"][0]["size"] == [32, 32]
    page = (here / "runs" / "small" / "report.html").read_text()
    assert page.count("target and predicted boxes") == 6


def test_adversarial_training_by_name(here: Path) -> None:
    pushed = {
        **SETTINGS["tasks"]["digit"],
        "adversarial": {"name": "pgd", "options": {"radius": 0.1, "steps": 2}},
    }
    rewrite(tasks={"digit": pushed})
    assert fit(*QUICK) == 0
    rewrite(tasks={"digit": {**pushed, "adversarial": {"options": {"radios": 1}}}})
    assert fit(*QUICK, "--name", "wrong") == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"digit": {"head": {"name": "clasification"}}},
            "tasks.digit.head: no heads plugin 'clasification'. Did",
        ),
        (
            {"digit": {"head": {"name": "recommendation"}}},
            "tasks.digit.head: 'recommendation' does not learn from",
        ),
        (
            {"digit": {"head": {"name": "labels"}}},
            "the head 'labels' learns from labels, and 'digit' is label in",
        ),
        ({"digit": {"target": "digt"}}, "no target 'digt' in digits. Did you mean 'digit'?"),
        ({"digit": {"target": "image"}}, "no target 'image' in digits, where it is content (image)."),
        ({"digit": {"inputs": ["sound"]}}, "tasks.digit.inputs: no encoder 'sound'. Known: image, text."),
        ({"digit": {"augment": {"text": {}}}}, "augment.text: nothing is known for the encoder 'tiny-text'"),
        ({"digit": {"batch_size": 0}}, "tasks.digit: batch_size: got 0, expected at least 1"),
        ({"digit": {"head": {**HEAD, "options": {"smooth": 1}}}}, "'smooth'"),
        ({"digit.it": {}}, "got the name 'digit.it', expected text without dots"),
    ],
)
def test_mistakes_in_a_task_end_with_one_line(
    here: Path, changes: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = SETTINGS["tasks"]["digit"]
    rewrite(tasks={name: {**base, **change} for name, change in changes.items()})
    assert fit(*QUICK) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("mmattn: ")
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weighting", "uncertain"], "no kind 'uncertain'. Did you mean 'uncertainty'?"),
        (["--taks.digit", "{}"], "unknown key 'taks'. Did you mean 'tasks'?"),
        (["--fusion.tasks", "[digit]"], "fusion.tasks: no task 'language', expected all of the run's tasks"),
        (["--data", "{features: x}"], "tasks.digit: has no card, and data.card is not there either"),
        (["--tasks", "{}"], "evaluation.noise_levels: has no meaning here, as this run has no tasks"),
        (["--protocol.validation", "1.5"], "validation: got 1.5, expected a fraction between 0 and 1"),
    ],
)
def test_mistakes_elsewhere_end_with_one_line(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(*arguments) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("mmattn: ")
    assert message in line


def cut(here: Path, change: Any, **columns: str) -> None:
    """The card's table with its cells changed and columns added, beside its files."""
    folder = here / "cut"
    folder.mkdir()
    for part in ("images", "sounds"):
        (folder / part).symlink_to(here / "data" / part)
    table = pd.read_parquet(here / "data" / "items.parquet")
    change(table)
    table.to_parquet(folder / "items.parquet")
    card = yaml.safe_load((here / "data" / "card.yaml").read_text())
    del card["interactions"]
    card["items"]["columns"] |= columns
    (folder / "card.yaml").write_text(yaml.safe_dump(card, sort_keys=False))


def test_parts_without_targets_and_classes_never_seen(
    here: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def forget(table: pd.DataFrame) -> None:
        table.loc[(table["split"] == "train") & (table["digit"] == 7), "digit"] = np.nan
        table.loc[table["split"] == "train", "language"] = None

    cut(here, forget)
    rewrite(tasks={"digit": SETTINGS["tasks"]["digit"]})
    caplog.set_level("INFO")
    assert fit(*QUICK, "--data.card", "cut") == 0
    assert "task digit: never seen in training, so never predicted: 7" in caplog.text
    rewrite()
    assert fit(*QUICK, "--data.card", "cut", "--name", "other") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tasks.language: 0 items of the part 'train' in digits have a 'language'" in line


@pytest.mark.parametrize(
    ("head", "measure", "figures"),
    [
        ({"name": "ctc"}, "transcript", {"wer", "cer", "faultless"}),
        (
            {
                "name": "generation",
                "options": {"layers": 1, "heads": 2, "unit": "character", "min_length": 2},
            },
            "translation",
            {"bleu", "chrf", "exact"},
        ),
    ],
)
def test_texts_are_measured_as_transcripts_or_translations(
    here: Path, head: dict[str, Any], measure: str, figures: set[str]
) -> None:
    """The word that a sound pattern says, heard or written."""

    def spell(table: pd.DataFrame) -> None:
        names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        table["said"] = [names[digit] for digit in table["digit"]]

    cut(here, spell, said="transcript")
    audio = {
        "name": "log-mel",
        "options": {"dim": 16, "sample_rate": 8000, "n_mels": 20, "layers": 1, "heads": 2},
    }
    rewrite(
        data={"card": "cut"},
        encoders={"audio": audio},
        tasks={"word": {"head": head, "target": "said", "metric": measure}},
    )
    assert fit(*QUICK) == 0
    word = json.loads((here / "runs" / "small" / "metrics.json").read_text())["tasks"]["word"]
    assert set(word["metrics"]) == figures
    page = (here / "runs" / "small" / "report.html").read_text()
    assert "Transcripts with the most errors" in page
