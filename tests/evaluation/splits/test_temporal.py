"""Histories in time through all of `mmattn fit`: what is known when, who is answered, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mmattn import InputError
from mmattn.cli import main
from mmattn.data.dataset import Interactions
from mmattn.data.reader import read_dataset
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.temporal import known_histories, part_start
from mmattn.experiments.config import BaselineConfig
from mmattn.experiments.recommendation.baselines import BaselineContent, fit_baseline
from mmattn.experiments.recommendation.system_evaluation import split_subgroups

DAY = 86_400.0


def test_what_is_known_is_all_that_came_before() -> None:
    users, items = [0, 0, 1, 1, 0, 2, 0, 2, 1, 1], [4, 1, 2, 4, 2, 0, 3, 3, 0, 1]
    split = strategies.global_time_split(users, items, np.arange(10.0) * DAY, validation=0.2, test=0.2)
    assert (part_start(split, "validation"), part_start(split, "test")) == (6 * DAY, 8 * DAY)
    at_validation, at_test = (known_histories(split, part) for part in ("validation", "test"))
    assert at_validation.items.tolist() == [4, 1, 2, 2, 4, 0]
    assert at_validation.offsets.tolist() == [0, 3, 5, 6]
    assert at_test.items.tolist() == [4, 1, 2, 3, 2, 4, 0, 3]
    assert at_test.time.max() < part_start(split, "test")
    # Item 3 was met at validation first: before, nothing is known of it, not even that nobody chose it.
    assert split.known_items("validation").tolist() == [0, 1, 2, 4]
    assert split.known_items("test").tolist() == [0, 1, 2, 3, 4]
    subgroups, _ = split_subgroups(split)
    assert not (subgroups["items: warm"] & subgroups["items: cold"]).any()
    assert (subgroups["items: warm"] | subgroups["items: cold"]).all()


def test_time_has_to_divide_the_split() -> None:
    split = strategies.random_split([0] * 10, np.arange(10), seed=0)
    with pytest.raises(InputError, match="needs protocol.split: time; got random"):
        known_histories(split, "test")


def test_baselines_get_the_known_events_alone() -> None:
    """Each pair at its first time, whatever else is in the data."""
    events = Interactions(
        np.array([0, 0, 0, 1, 1]), np.array([2, 1, 2, 0, 2]), time=np.array([5.0, 1.0, 9.0, 3.0, 99.0])
    )
    content = BaselineContent([], ModelInputs(), events)
    split = strategies.global_time_split(events.users, events.items, events.time, validation=0.0, test=0.2)
    known = split.known("test")
    met = content.histories(known)
    assert met.items.tolist() == [1, 2, 0]
    assert met.time.tolist() == [1.0, 5.0, 3.0]
    popular = fit_baseline(
        BaselineConfig("recent-popularity", regularization=1.0), content, known, np.arange(3)
    )
    # One choice of each within seconds: neither the second one of item 2 nor the one in the future counts.
    np.testing.assert_allclose(popular.score([0], [0, 1, 2]), np.log1p([[1, 1, 1]]), rtol=1e-3)
    with pytest.raises(InputError, match="got interactions without times"):
        BaselineContent([], ModelInputs()).histories(known)


ITEMS, USERS = 23, 31


@pytest.fixture
def ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Films with a title, genres or both; the last users are new to the test part."""
    rng = np.random.default_rng(0)
    titles = [f"word{item % 5} word{item % 7}" if item % 3 else None for item in range(ITEMS)]
    genres = [f"g{item % 4}" if item % 3 != 1 else None for item in range(ITEMS)]
    pd.DataFrame({"item": range(ITEMS), "title": titles, "genre": genres}).to_csv(
        tmp_path / "items.csv", index=False
    )
    rows = [
        (user, item, int(user * 10 * DAY + index * 60), float(rng.integers(1, 6)))
        for user in range(USERS)
        for index, item in enumerate(rng.permutation(ITEMS)[:13])
    ]
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "rating"])
    frame.to_csv(tmp_path / "interactions.csv", index=False)
    card = {
        "format": 1,
        "name": "rated",
        "items": {"file": "items.csv", "id": "item", "columns": {"title": "text", "genre": "category"}},
        "interactions": {
            "file": "interactions.csv", "user": "user", "item": "item", "time": "time", "value": "rating"
        },
    }  # fmt: skip
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    settings: dict[str, Any] = {
        "name": "small",
        "data": {"card": "card.yaml", "min_rating": 3.0},
        "protocol": {"split": "time", "seeds": [0], "test": 0.2, "validation": 0.2, "metrics": ["ndcg@5"]},
        "encoders": {
            "text": {"name": "tiny-text", "options": {"dim": 8, "layers": 1}, "standardise": True},
            "genre": {
                "name": "tabular",
                "options": {"columns": {"genre": "category"}, "dim": 8},
                "source": "table",
            },
        },
        "fusion": {"dim": 16, "heads": 2, "layers": 0},
        "head": {
            "name": "sequence",
            "options": {"width": 8, "heads": 1, "layers": 1, "popularity_half_lives": [90]},
        },
        "training": {"epochs": 1, "steps_per_epoch": 2, "users_per_batch": 7},
        "baselines": {
            "recent": {"kind": "recent-popularity", "regularization": 90},
            "ease": {"kind": "ease", "regularization": 10, "cold_user_half_life": 90},
            "sasrec": {"kind": "sasrec", "options": {"dim": 8, "layers": 1, "epochs": 1}},
        },
        "evaluation": {"ablations": ["drop"], "subsets": False, "subgroup_metric": "ndcg", "index_dim": 8},
    }
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ratings_from_a_value_on_count(ratings: Path) -> None:
    whole = read_dataset(ratings / "card.yaml")
    chosen = whole.with_min_rating(3.0)
    assert 0 < len(chosen.interactions) < len(whole.interactions)
    assert chosen.interactions.value.min() >= 3.0  # type: ignore[union-attr]
    assert whole.with_min_rating(None) is whole
    with pytest.raises(InputError, match="rated: no interaction has a value of 6 or more, the highest is 5"):
        whole.with_min_rating(6.0)


@pytest.mark.parametrize("refit", [True, False])
def test_a_run_over_histories(ratings: Path, refit: bool) -> None:
    arguments = ["fit", "--config", "fit.yaml", "--quiet", "--training.refit", str(refit).lower()]
    assert main(arguments) == 0
    metrics = json.loads((ratings / "runs/small/metrics.json").read_text())
    assert set(metrics["systems"]) == {"mmattn", "recent", "ease", "sasrec"}
    assert {"items: warm", "history: 0"} <= set(metrics["subgroups"])
    assert metrics["index_cost"]["vector_loss"]["mean"] == pytest.approx(0.0, abs=1e-6)  # it ends in vectors
    # Of users without a history, one popularity speaks for both.
    newcomers = metrics["subgroups"]["history: 0"]["systems"]
    assert newcomers["ease"]["mean"] == pytest.approx(newcomers["recent"]["mean"])


def test_histories_need_a_split_in_time(ratings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "fit.yaml", "--quiet", "--protocol.split", "random"]) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "needs protocol.split: time" in error
