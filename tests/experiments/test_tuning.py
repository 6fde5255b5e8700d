"""Choices on validation alone: what a system is given cannot lead to the test part; budgets are equal."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmattn.errors import InputError
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.tuning import Choice, FloatRange, IntRange, TunableSystem, ValidationData, tune


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    pairs = np.argwhere(rng.random((53, 37)) < 0.3)
    return strategies.random_split(pairs[:, 0], pairs[:, 1], seed=0, user_count=53, item_count=37)


def reachable(root: Any) -> list[np.ndarray]:
    """Every array that can be reached from an object through its data."""
    seen, actual, left = {id(root)}, [], [root]
    while left:
        entry = left.pop()
        if isinstance(entry, np.ndarray):
            actual.append(entry)
        for other in (*gc.get_referents(entry), getattr(entry, "base", None)):
            if id(other) not in seen and not isinstance(other, type) and type(other).__name__ != "module":
                seen.add(id(other))
                left.append(other)
    return actual


def test_the_test_part_cannot_be_reached(split: Split) -> None:
    view = ValidationData(split)
    arrays = reachable(view)
    assert any(array is view.train.indices for array in arrays)  # the walk finds what is there
    for array in arrays:
        for name in ("users", "items", "train", "validation", "test"):
            assert not np.shares_memory(array, getattr(split, name)), name
    known = (view.train + view.histories + view._positives).tocoo()
    test = split.matrix("test")
    assert not known.multiply(test).nnz


def test_the_best_value_is_found_and_every_system_has_the_same_budget(split: Split) -> None:
    calls = {"popular": 0, "other": 0, "fixed": 0}

    def popular(view: ValidationData, *, power: float, sign: int) -> Any:
        calls["popular"] += 1
        counts = np.asarray(view.train.sum(0)) ** power * sign
        return lambda users, items: np.tile(counts[items], (len(users), 1))

    def other(view: ValidationData, *, scale: int) -> Any:
        calls["other"] += 1
        return lambda users, items: np.full((len(users), len(items)), float(scale))

    def fixed(view: ValidationData) -> Any:
        calls["fixed"] += 1
        return lambda users, items: np.zeros((len(users), len(items)))

    systems = {
        "popular": TunableSystem(popular, {"power": FloatRange(0.1, 2.0, log=True), "sign": Choice((-1, 1))}),
        "other": TunableSystem(other, {"scale": IntRange(1, 9)}),
        "fixed": TunableSystem(fixed, {}),
    }
    actual = tune(systems, split, metric="recall@5", trials=7, seed=3)
    assert calls == {"popular": 7, "other": 7, "fixed": 1}
    best = actual.systems["popular"]
    assert best.value == max(trial["value"] for trial in best.trials)
    view = ValidationData(split)
    assert view.mean_metric(popular(view, **best.parameters), "recall@5") == best.value
    again = tune(systems, split, metric="recall@5", trials=7, seed=3)
    assert again.manifest == actual.manifest


def test_the_manifest_says_everything_and_is_json(split: Split, tmp_path: Path) -> None:
    system = TunableSystem(lambda view, **_: lambda u, i: np.zeros((len(u), len(i))), {"x": FloatRange(0, 1)})
    actual = tune({"flat": system}, split, metric="ndcg@3", trials=2)
    actual.save(tmp_path / "tuning.json")
    manifest = json.loads((tmp_path / "tuning.json").read_text())
    assert manifest["protocol"]["split"] == "random"
    assert manifest["systems"]["flat"]["space"] == {"x": {"FloatRange": {"low": 0, "high": 1, "log": False}}}
    assert len(manifest["systems"]["flat"]["trials"]) == 2
    assert manifest["data_sha256"] == ValidationData(split).fingerprint()
    assert {"python", "numpy", "optuna"} <= set(manifest["versions"])


def test_metrics_of_the_whole_ranking(split: Split) -> None:
    """What is right at validation, as the score: nothing can stand before it."""
    right = split.matrix("validation").toarray()
    view = ValidationData(split)
    for metric in ("auc", "rprec"):
        assert view.mean_metric(lambda users, items: right[np.ix_(users, items)], metric) == 1.0


def test_other_data_has_another_fingerprint(split: Split) -> None:
    other = strategies.random_split(split.users, split.items, seed=1, user_count=53, item_count=37)
    assert ValidationData(split).fingerprint() != ValidationData(other).fingerprint()


def test_refusals(split: Split) -> None:
    system = TunableSystem(lambda view: lambda u, i: np.zeros((len(u), len(i))), {})
    with pytest.raises(InputError, match="got 0 systems and 20 trials"):
        tune({}, split)
    with pytest.raises(InputError, match="1 systems and 0 trials"):
        tune({"a": system}, split, trials=0)
    with pytest.raises(InputError, match="Did you mean 'recall'"):
        tune({"a": system}, split, metric="recal@5")
    whole = strategies.random_split(split.users, split.items, seed=0, validation=0.0)
    with pytest.raises(InputError, match="has no validation part"):
        tune({"a": system}, whole)
