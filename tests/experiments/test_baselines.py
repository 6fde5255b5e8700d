"""Baselines from their configuration: they get the content that is named, and what is missing is said."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy import sparse

from mmattn import InputError, Sample, Tokens
from mmattn.data.dataset import Interactions
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.config import BaselineConfig, ProtocolConfig
from mmattn.experiments.recommendation.baseline_registry import (
    BASELINES,
    baseline_arguments,
    search_space,
    with_settings,
)
from mmattn.experiments.recommendation.baselines import BaselineContent, fit_baseline, tune_baselines
from mmattn.experiments.tuning import TunableSystem, TuningResult, ValidationData, tune


@pytest.fixture
def content() -> BaselineContent:
    rows = [
        {"genres": ["Drama"], "year": 1990},
        {"genres": ["Drama", "War"], "year": 1995},
        {"year": 1990},
    ]
    samples = [Sample(str(index), {"table": row}) for index, row in enumerate(rows)]
    values = torch.tensor([[3.0, 4.0], [4.0, 3.0], [0.0, 5.0]])
    tokens = Tokens.from_lengths(values, torch.tensor([2, 1, 0]), "text")
    return BaselineContent(samples, ModelInputs({"text": tokens}))


def test_the_kernel_is_the_weighted_sum_of_what_is_named(content: BaselineContent) -> None:
    config = BaselineConfig(
        "kernel-ridge", vectors={"text": 2.0}, tags={"genres": 1.0}, gaussian={"year": 5.0}
    )
    mean = np.array([3.5, 3.5]) / np.linalg.norm([3.5, 3.5])
    text = 2.0 * float(mean @ np.array([0.0, 1.0]))
    expected = [
        [2 + 1 + 1, text + 1 / np.sqrt(2) + np.exp(-0.5), 0 + 0 + 1],
        [text + 1 / np.sqrt(2) + np.exp(-0.5), 2 + 1 + 1, np.exp(-0.5)],
        [1, np.exp(-0.5), 1],  # no text, no genres: only the year is alike
    ]
    np.testing.assert_allclose(content.kernel(config), expected, rtol=1e-6)
    exponential = BaselineConfig(**{**vars(config), "exponent": 0.5})
    np.testing.assert_allclose(content.kernel(exponential), np.exp(0.5 * np.array(expected)), rtol=1e-6)


def test_linear_features_have_the_linear_kernel(content: BaselineContent) -> None:
    config = BaselineConfig(
        "content-ridge", vectors={"text": 0.25}, tags={"genres": 1.0}, tfidf={"genres+year": 2.0}
    )
    features = content.features(config)
    np.testing.assert_allclose(features @ features.T, content.kernel(config), atol=1e-6)


SMALL: dict[str, dict[str, Any]] = {
    "als": {"dim": 2, "num_threads": 1},
    "bpr": {"dim": 2, "epochs": 2},
    "lightgcn": {"dim": 2, "epochs": 2},
    "vbpr": {"dim": 2, "epochs": 2},
    "sasrec": {"dim": 2, "epochs": 2},
}


def small(kind: str, **others: Any) -> BaselineConfig:
    reads_items = BASELINES[kind].content in ("features", "kernel")
    content = {"vectors": {"text": 1.0}, "tags": {"genres": 1.0}} if reads_items else {}
    return BaselineConfig(kind, **{"options": SMALL.get(kind, {}), **content, **others})  # type: ignore[arg-type]


def test_every_kind_that_a_file_may_name_is_there() -> None:
    assert set(BASELINES) == set(get_args(get_type_hints(BaselineConfig)["kind"]))


@pytest.mark.parametrize("kind", BASELINES)
def test_every_kind_can_be_fitted(content: BaselineContent, kind: str) -> None:
    seen = sparse.csr_array(np.array([[1, 0, 0], [1, 1, 0]], np.float32))
    users, items = seen.nonzero()
    content.events = Interactions(users, items, time=np.arange(3.0))
    scores = fit_baseline(small(kind), content, seen, np.array([0, 1])).score([0, 1], [0, 1, 2])
    assert scores.shape == (2, 3)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", BASELINES)
def test_what_may_be_tuned_is_an_argument_and_begins_with_the_file_s_own(kind: str) -> None:
    options = {"dim": 7} if "dim" in BASELINES[kind].tuning_space else {}
    config = small(
        kind, options=options, regularization=9e4 if "regularization" in BASELINES[kind].tuning_space else 0.0
    )
    space, start = search_space(config)
    assert set(start) == set(space)
    for name, value in start.items():
        assert space[name].low <= value <= space[name].high, name  # even a value beyond the usual range
    assert start.get("dim", 7) == 7
    assert start.get("regularization", 9e4) == 9e4
    fully = baseline_arguments(with_settings(config, start))
    for name in BASELINES[kind].tuning_space:
        assert fully[name] == start[name]


def test_what_is_switched_off_stays_off() -> None:
    space, start = search_space(BaselineConfig("bpr", options={"regularization": 0.0}))
    assert "regularization" not in space
    assert "regularization" not in start


def test_contents_are_weighed_by_tuning_where_there_are_several(content: BaselineContent) -> None:
    config = BaselineConfig(
        "kernel-ridge", vectors={"text": 2.0}, tags={"genres": 0.0}, gaussian={"year": 5.0}, exponent=0.5
    )
    _, start = search_space(config)
    assert start == {"regularization": 3.0, "exponent": 0.5, "vectors.text": 2.0, "gaussian.year": 5.0}
    actual = with_settings(config, {"regularization": 1.0, "exponent": 0.25, "vectors.text": 1.0})
    assert (actual.exponent, actual.vectors, actual.gaussian) == (0.25, {"text": 1.0}, {"year": 5.0})
    assert baseline_arguments(actual) == {"regularization": 1.0}
    alone, _ = search_space(BaselineConfig("content-ridge", vectors={"text": 1.0}))
    assert set(alone) == {"regularization"}  # the weight of the only content is one over the strength


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            BaselineConfig("bpr", options={"dims": 3}),
            "baseline 'bpr': dims: no such option. Did you mean 'dim'",
        ),
        (BaselineConfig("bpr", options={"seed": 3}), "baseline 'bpr': seed: no such option"),
        (BaselineConfig("bpr", options={"dim": 2.5}), "dim: got 2.5, expected a number like 64"),
        (BaselineConfig("lightgcn", options={"layers": "two"}), "got 'two', expected a number like 3"),
        (
            BaselineConfig("popularity", regularization=1.0),
            "baseline 'popularity': regularization: got 1, expected none",
        ),
    ],
)
def test_options_are_checked(config: BaselineConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        baseline_arguments(config)


@pytest.fixture(scope="module")
def split() -> Split:
    """Two tastes, each with items of its own, and noise; a test part that is all but the noise."""
    rng = np.random.default_rng(0)
    taste, kind = rng.integers(0, 2, 67), rng.integers(0, 2, 31)
    pairs = np.argwhere(rng.random((67, 31)) < np.where(taste[:, None] == kind, 0.5, 0.05))
    return strategies.random_split(pairs[:, 0], pairs[:, 1], seed=0, user_count=67, item_count=31)


@pytest.fixture
def pictured() -> BaselineContent:
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(31, 5)).astype(np.float32))
    samples = [Sample(str(index), {"table": {"genres": ["Drama"]}}) for index in range(31)]
    tokens = Tokens.from_lengths(values, torch.ones(31, dtype=torch.int64), "text")
    return BaselineContent(samples, ModelInputs({"text": tokens}))


def test_every_baseline_has_the_same_budget_and_is_no_worse_on_validation(
    pictured: BaselineContent, split: Split
) -> None:
    configs = {
        "popularity": BaselineConfig("popularity"),
        "ease": BaselineConfig("ease", regularization=30.0),
        "item-knn": BaselineConfig("item-knn"),
        "bpr": BaselineConfig(
            "bpr", options={"dim": 8, "epochs": 12, "validate_every": 4, "learning_rate": 0.02}
        ),
        "vbpr": BaselineConfig("vbpr", options={"epochs": 4, "validate_every": 2}, vectors={"text": 1.0}),
    }
    actual, tuning = tune_baselines(configs, pictured, split, metric="ndcg@5", trials=3, seed=5)
    systems = tuning.manifest["systems"]
    assert {name: len(system["trials"]) for name, system in systems.items()} == {
        "popularity": 1, "ease": 3, "item-knn": 3, "bpr": 3, "vbpr": 3,
    }  # fmt: skip
    view = ValidationData(split)
    for name, entry in systems.items():
        values = [trial["value"] for trial in entry["trials"]]
        first = entry["trials"][0]["parameters"]
        assert first.items() >= entry["start"].items()
        assert entry["value"] == max(values)
        # The configuration that comes out gives the figure again, without a judge to stop it.
        fitted = fit_baseline(actual[name], pictured, view.train, view.items, seed=5)
        assert view.mean_metric(fitted.score, "ndcg@5") == pytest.approx(entry["value"], abs=1e-9)
    assert systems["ease"]["start"] == {"regularization": 30.0}
    assert actual["bpr"].options["epochs"] in (4, 8, 12)
    assert systems["bpr"]["best"]["epochs"] == actual["bpr"].options["epochs"]
    json.dumps(tuning.manifest)


def timed(content: BaselineContent, split: Split) -> BaselineContent:
    """The same with all events of a split, the test part's among them, in the order they have."""
    events = Interactions(split.users, split.items, time=np.arange(len(split.users), dtype=float))
    return BaselineContent(content.samples, content.inputs, events)


def test_tuning_is_blind_to_the_test_part(pictured: BaselineContent, split: Split) -> None:
    """With the test part's items dealt anew, every trial, figure and choice is the same to the last bit."""
    configs = {name: small(name) for name in ("ease", "bpr", "recent-popularity", "sasrec")}
    configs["vbpr"] = BaselineConfig("vbpr", options=SMALL["vbpr"], vectors={"text": 1.0})
    items = split.items.copy()
    free = ~(split.matrix("train") + split.matrix("validation")).toarray().astype(bool)
    rng = np.random.default_rng(7)
    for index in split.test:
        items[index] = rng.choice(np.flatnonzero(free[split.users[index]]))
    other = dataclasses.replace(split, items=items)
    assert (other.matrix("test") != split.matrix("test")).nnz > 50
    manifests = [
        tune_baselines(configs, timed(pictured, entry), entry, metric="ndcg@5", trials=2, seed=1)[1].manifest
        for entry in (split, other)
    ]
    assert manifests[0] == manifests[1]


def test_no_event_of_the_test_part_is_in_reach_while_baselines_are_tuned(
    pictured: BaselineContent, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, TunableSystem] = {}

    def watched(systems: dict[str, TunableSystem], *arguments: Any, **options: Any) -> TuningResult:
        given.update(systems)
        return tune(systems, *arguments, **options)

    monkeypatch.setattr("mmattn.experiments.recommendation.baselines.tune", watched)
    content = timed(pictured, split)
    tune_baselines({"recent": small("recent-popularity")}, content, split, metric="ndcg@5", trials=1)
    events = inspect.getclosurevars(given["recent"].fit).nonlocals["content"].events
    assert len(events) == len(split.train) + len(split.validation)
    assert split.known("test").toarray()[events.users, events.items].all()
    assert content.events is not None
    assert len(content.events) == len(split.users)  # whoever gave them still has them all


def test_a_budget_below_none_is_refused() -> None:
    with pytest.raises(InputError, match="tuning_trials: got -1, expected trials, or 0 for none"):
        ProtocolConfig(tuning_trials=-1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            BaselineConfig("content-ridge", vectors={"txt": 1.0}),
            "no stored modality 'txt'. Did you mean 'text'",
        ),
        (BaselineConfig("content-ridge", tags={"genre": 1.0}), "no column 'genre'. Did you mean 'genres'"),
        (BaselineConfig("content-ridge"), "got no content, expected vectors, tags or tfidf"),
    ],
)
def test_what_is_missing_is_named(content: BaselineContent, config: BaselineConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        content.features(config)
