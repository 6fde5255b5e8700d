"""What a configuration reaches beside the defaults: splits, rating heads, mixup, a teacher, beam search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mmattn.cli import main
from mmattn.model.model import Model
from mmattn.registry import datasets

TEXT = {"name": "tiny-text", "options": {"dim": 16, "layers": 1}, "standardise": True}
IMAGE = {"name": "tiny-image", "options": {"dim": 16, "grid": 1, "size": 8}, "standardise": True}
AUDIO = {
    "name": "log-mel",
    "options": {"dim": 16, "sample_rate": 8000, "n_mels": 20, "layers": 1, "heads": 2},
}
RECOMMENDER: dict[str, Any] = {
    "name": "run",
    "data": {"card": "data", "features": "features"},
    "protocol": {"seeds": [0], "metrics": ["ndcg@5", "recall@5"]},
    "encoders": {"image": IMAGE, "text": TEXT},
    "fusion": {"dim": 32, "heads": 2},
    "training": {"epochs": 2, "steps_per_epoch": 2, "users_per_batch": 50},
    "evaluation": {"ablations": [], "subsets": False, "index_dim": 0},
}
TASKS: dict[str, Any] = {
    "name": "run",
    "data": {"card": "data", "features": "features"},
    "encoders": {"image": IMAGE, "text": TEXT},
    "fusion": {"dim": 32, "heads": 2},
    "training": {"epochs": 2, "steps_per_epoch": 3},
    "protocol": {"seeds": [0]},
    "single_task_baselines": False,
    "evaluation": {"ablations": [], "subsets": False, "noise_levels": [], "attack_radii": []},
}
DIGIT: dict[str, Any] = {"head": {"name": "classification"}, "target": "digit"}
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "data"
    datasets.create("digits").prepare(None, folder, items=150, users=60)
    return folder


@pytest.fixture
def here(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(digits, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(config: dict[str, Any], name: str = "run") -> dict[str, Any]:
    Path("fit.yaml").write_text(yaml.safe_dump({**config, "name": name}))
    assert main(["fit", "--config", "fit.yaml", "--quiet"]) == 0
    metrics: dict[str, Any] = json.loads(Path(f"runs/{name}/metrics.json").read_text())
    return metrics


def edit_card(**changes: Any) -> None:
    card = yaml.safe_load(Path("data/card.yaml").read_text())
    for section, values in changes.items():
        card[section].update(values)
    Path("data/card.yaml").write_text(yaml.safe_dump(card))


@pytest.mark.parametrize("split", ["leave-one-out", "cold-users"])
def test_a_run_follows_the_split_that_it_is_given(here: Path, split: str) -> None:
    card = yaml.safe_load(Path("data/card.yaml").read_text())
    del card["items"]["split"], card["interactions"]["split"]
    Path("data/card.yaml").write_text(yaml.safe_dump(card))
    protocol = {**RECOMMENDER["protocol"], "split": split}
    metrics = fit({**RECOMMENDER, "protocol": protocol})
    assert metrics["protocol"]["split"] == split
    recall = metrics["systems"]["mmattn"]["recall@5"]["mean"]
    assert 0 < recall < 1
    if split == "leave-one-out":  # one positive for each of the 60 users, who is hit or not
        assert recall * 60 == pytest.approx(round(recall * 60))


def test_items_are_ranked_by_predicted_ratings(here: Path) -> None:
    """The levels come from the head's options, the ratings from the card's column of values."""
    table = pd.read_parquet("data/interactions.parquet")
    table["stars"] = 1.0 + (table["item"] % 5)
    table.to_parquet("data/interactions.parquet")
    edit_card(interactions={"value": "stars"})
    metrics = fit({**RECOMMENDER, "head": {"name": "rating"}, "baselines": {}})
    assert 0 < metrics["systems"]["mmattn"]["ndcg@5"]["mean"] <= 1
    head = next(iter(Model.from_pretrained("runs/run/seed-0/model").heads.values()))
    assert head.levels.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_pairs_of_samples_are_mixed(here: Path) -> None:
    config = {**TASKS, "encoders": {"audio": AUDIO}}
    fit({**config, "tasks": {"digit": DIGIT}}, "plain")
    metrics = fit({**config, "tasks": {"digit": {**DIGIT, "mixup": 0.4}}}, "mixed")
    assert 0 <= metrics["tasks"]["digit"]["metrics"]["accuracy"]["mean"] <= 1
    plain, mixed = (Model.from_pretrained(f"runs/{name}/seed-0/model") for name in ("plain", "mixed"))
    changes = [
        (parameter - other).abs().max().item()
        for parameter, other in zip(plain.parameters(), mixed.parameters(), strict=True)
    ]
    assert max(changes) > 1e-4


def test_a_small_model_learns_from_a_trained_one(here: Path) -> None:
    """The teacher's program needs its task; the student's does not."""
    program = "Program(score=dot() >> temperature(dynamic('t', on='task')))"
    both = {"digit": DIGIT, "language": {**DIGIT, "target": "language"}}
    fit({**TASKS, "tasks": both, "fusion": {"dim": 32, "heads": 2, "program": program}}, "teacher")
    distillation = {"teacher": "runs/teacher/seed-0/model", "hint_weight": 0.1}
    student = {**TASKS, "fusion": {"dim": 16, "heads": 2}}
    metrics = fit({**student, "tasks": {"digit": {**DIGIT, "distillation": distillation}}}, "student")
    assert 0 <= metrics["tasks"]["digit"]["metrics"]["accuracy"]["mean"] <= 1
    assert Model.from_pretrained("runs/student/seed-0/model").core.dim == 16


def test_a_beam_search_with_a_lexicon_writes_known_words_only(here: Path) -> None:
    items = pd.read_parquet("data/items.parquet")
    items["said"] = [NAMES[digit] for digit in items["digit"]]
    items.to_parquet("data/items.parquet")
    card = yaml.safe_load(Path("data/card.yaml").read_text())
    card["items"]["columns"]["said"] = "transcript"
    Path("data/card.yaml").write_text(yaml.safe_dump(card))
    beam = {"size": 8, "ngram": "symbol", "order": 3, "lexicon": True}
    word = {"head": {"name": "ctc", "options": {"beam": beam}}, "target": "said"}
    fit({**TASKS, "encoders": {"audio": AUDIO}, "tasks": {"word": word}})
    head = Model.from_pretrained("runs/run/seed-0/model").head("word")
    decoder = head.build_decoder()
    random = np.random.default_rng(0).standard_normal((40, len(head.tokenizer)))
    decoder.feed(np.log(np.exp(random) / np.exp(random).sum(1, keepdims=True)))
    words = decoder.finish().split()
    assert words
    assert set(words) <= set(NAMES)
