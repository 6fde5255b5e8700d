"""What a fit leaves: it recommends as the model does, takes new items, and refuses what is not its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import mmattn
from mmattn import InputError, RecommenderService, Sample
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.data.roles import ItemTable
from mmattn.experiments.config import DataConfig, FitConfig, ProtocolConfig
from mmattn.experiments.recommendation.experiment import RecommendationExperiment
from mmattn.experiments.recommendation.protocol import make_split
from mmattn.serving import build_service as build_service_module
from mmattn.serving.build_service import build_service
from mmattn.serving.item_metadata import item_columns
from mmattn.serving.run_encoder import RunEncoder
from mmattn.training.tasks.recommendation import Recommender, item_vectors


def rebuilt(run: Path, dataset: Dataset) -> RecommenderService | None:
    """The service of a run, built anew from the model on the disk."""
    encoder = RunEncoder.from_run(run)
    inputs = encoder.read_inputs(dataset.items, run.parent / "features", progress=False)
    return build_service(run, dataset, encoder, inputs)


def exact_scores(run: Path, data: Path, history: list[int]) -> np.ndarray:
    """[I] what the model's head itself says, all items that somebody met being known."""
    dataset = read_dataset(data)
    encoder = RunEncoder.from_run(run)
    inputs = encoder.read_inputs(dataset.items, data.parent / "features", progress=False)
    known = np.unique(dataset.interactions.items)
    recommender = Recommender(
        encoder.model.head("recommendation"), item_vectors(encoder.model, inputs, "recommendation"), known
    )
    weights = recommender.weights(np.arange(len(dataset.items))).numpy()
    index_of = {int(item): row for row, item in enumerate(known)}
    return np.asarray(weights[[index_of[item] for item in history]].sum(0))


def test_it_recommends_as_the_model_does(finished: Path, data: Path) -> None:
    service = RecommenderService.open(finished)
    assert service.attributes["seed"] == 3
    assert service.attributes["agreement"] > 0.9
    dataset = read_dataset(data)
    history = dataset.interactions.items[dataset.interactions.users == 5][:9].tolist()
    scores = exact_scores(finished, data, history)
    scores[history] = -np.inf
    best = [int(dataset.item_ids[row]) for row in np.argsort(-scores)[:10]]
    actual = service.recommend([dataset.item_ids[row] for row in history], k=10)
    assert len(set(best) & set(actual.ids)) >= 8
    assert actual.scores == pytest.approx(
        scores[[service.rows_of([name])[0] for name in actual.ids]], abs=0.02
    )
    assert mmattn.recommend(finished, [int(dataset.item_ids[row]) for row in history], 10) == actual


def test_at_full_width_the_scores_are_the_model_s(
    run: Path, data: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_service_module, "WIDTHS", (512,))
    service = rebuilt(run, read_dataset(data))
    assert service is not None
    scores = exact_scores(finished, data, [2, 3, 5])
    actual = service.recommend([str(service.index.ids[row]) for row in (2, 3, 5)], k=110)
    assert len(actual.ids) == 110
    rows = service.rows_of(actual.ids)
    np.testing.assert_allclose(actual.scores, scores[rows], atol=2e-3 * np.abs(scores).max())


def test_who_is_known_is_who_was_met(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset(data)
    met = np.unique(dataset.interactions.items)
    assert RecommenderService.open(run).known_rows.tolist() == met.tolist()
    monkeypatch.setattr(build_service_module, "MAX_KNOWN_ITEMS", 17)
    service = rebuilt(run, dataset)
    assert service is not None
    assert len(service.known_rows) == 17
    assert len(service.index) == len(dataset.items)  # the others can be recommended, and met, all the same
    counts = np.bincount(dataset.interactions.items)
    assert counts[service.known_rows].min() >= np.delete(counts, service.known_rows).max()
    assert service.recommend([int(service.index.ids[0])], k=5).basis == "history"


def test_a_new_item_is_recommended_and_met(run: Path, data: Path) -> None:
    service = RecommenderService.open(run)
    pictured = next(item for item in read_dataset(data).items if len(item.content) > 1)
    known = int(pictured.id)
    added = service.add_items([Sample("90001", dict(pictured.content)), pictured, Sample("90002")])
    assert (added.ids, added.existing, added.skipped_no_content) == ([90001], 1, [90002])
    opened = RecommenderService.open(run)
    # The same content as an item that is there: the same neighbours, as a candidate and in a history.
    assert known in opened.recommend([90001], k=5).ids
    like = service.recommend([known], k=110)
    assert 90001 in like.ids[:5]
    cosine = np.corrcoef(opened.index.vectors([known, 90001]))[0, 1]
    assert cosine > 0.9
    assert opened.index.metadata.iloc[-1].equals(opened.index.metadata.iloc[service.rows_of([known])[0]]) or (
        opened.index.metadata.iloc[-1]["text"]
        == opened.index.metadata.iloc[service.rows_of([known])[0]]["text"]
    )
    for array in (opened.item_to_user, opened.index.matrix):
        assert len(array) == 114


def test_a_table_with_a_title_and_a_picture(run: Path, data: Path, tmp_path: Path) -> None:
    picture = next(item.content["image"] for item in read_dataset(data).items if "image" in item.content)
    shutil.copy(picture, tmp_path / "new.png")
    (tmp_path / "new.csv").write_text("item,text,image\n801,seven,new.png\n802,,new.png\n803,eight,\n804,,\n")
    service = RecommenderService.open(run)
    added = service.add_items(tmp_path / "new.csv")
    assert (added.ids, added.skipped_no_content) == ([801, 802, 803], [804])
    assert service.index.metadata.iloc[-3:]["text"].tolist()[0] == "seven"
    assert set(service.recommend([801, 803], k=200).ids) >= {802}
    assert service.recommend([5], k=5, where="text == 'eight'").ids == [803]


def test_a_catalogue_that_grew(run: Path, data: Path, tmp_path: Path) -> None:
    grown = shutil.copytree(data, tmp_path / "grown")
    items = pd.read_parquet(grown / "items.parquet")
    more = items.head(7).assign(item=lambda table: table["item"] + 5000)
    pd.concat([items, more]).to_parquet(grown / "items.parquet", index=False)
    service = RecommenderService.open(run)
    added = service.add_items(grown)
    assert (len(added.ids) + len(added.skipped_no_content), added.existing) == (7, 113)
    assert RecommenderService.open(run).add_items(grown).existing == 113 + len(
        added.ids
    )  # again, nothing is new
    assert RecommenderService.open(run).index.metadata["digit"].tail(1).notna().all()


def test_what_is_not_its_own_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    card = (data / "card.yaml").read_text()
    other = shutil.copytree(data, tmp_path / "other")
    (other / "card.yaml").write_text(card.replace("name: digits", "name: letters"))
    service = RecommenderService.open(run)
    with pytest.raises(InputError, match="the card of 'letters', but the run's catalogue is 'digits'"):
        service.add_items(other)
    (tmp_path / "t.csv").write_text("item,txet\n1,x\n")
    with pytest.raises(InputError, match="has none of the catalogue's columns image, text"):
        service.add_items(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("itm,text\n1,x\n")
    with pytest.raises(InputError, match="no column 'item' for the ids. Did you mean 'itm'"):
        service.add_items(tmp_path / "t.csv")
    with pytest.raises(InputError, match="got id 'x', expected whole numbers as in the catalogue"):
        service.add_items([Sample("x", {"text": "x"})])
    with pytest.raises(InputError, match="id 700 comes twice"):
        service.add_items([Sample("700", {"text": "x"}), Sample("700", {"text": "y"})])
    assert len(RecommenderService.open(run).index) == 113


def test_a_checkpoint_of_another_program_is_refused(run: Path) -> None:
    model = run / "seed-3" / "model"
    config = (model / "config.json").read_text()
    made = RecommenderService.open(run).index.provenance
    assert made is not None
    (model / "config.json").write_text(config.replace(made["program"], "0123456789abcdef"))
    with pytest.raises(InputError, match=f"another program, 0123456789abcdef; .* with {made['program']}"):
        RecommenderService.open(run)
    (model / "config.json").write_text(config)
    weights = (model / "model.safetensors").read_bytes()
    state = load_file(model / "model.safetensors")
    state["heads.recommendation.log_kernel_scale"] += 0.5
    save_file(state, model / "model.safetensors")
    with pytest.raises(InputError, match=rf"a model of another weights, \w+; .* made with {made['weights']}"):
        RecommenderService.open(run)
    (model / "model.safetensors").write_bytes(weights)
    assert RecommenderService.open(run).recommend([], k=3).basis == "catalogue"
    shutil.rmtree(model)  # a bundle goes to production without its model, but takes no new items there
    assert RecommenderService.open(run).recommend([], k=3).basis == "catalogue"


def test_histories_that_are_completed(data: Path, tmp_path: Path) -> None:
    """The head fills histories in: counts of common choices travel with the bundle, new items use them."""
    encoders = {"text": EncoderConfig("tiny-text", {"dim": 16, "layers": 1}, standardise=True)}
    config = FitConfig(
        name="completed", data=DataConfig(data, data.parent / "features"),
        encoders=encoders, fusion=FusionConfig(dim=32, heads=2), out=tmp_path, baselines={},
        protocol=ProtocolConfig(seeds=(0,)), head=HeadConfig(options={"completion_dropout": 0.7}),
    )  # fmt: skip
    experiment = RecommendationExperiment(config, progress=False)
    task, _ = experiment._build_task(make_split(experiment.dataset, config.protocol, 0), "test", 0)
    task.model.save_pretrained(experiment.folder / "seed-0" / "model")
    service = rebuilt(experiment.folder, experiment.dataset)
    assert service is not None
    opened = RecommenderService.open(experiment.folder)
    assert opened.cooccurrence.shape == (len(opened.known_rows),) * 2
    assert opened.cooccurrence.diagonal().sum() == len(experiment.dataset.interactions)
    worded = next(item for item in experiment.dataset.items if "text" in item.content)
    opened.add_items([Sample("7001", dict(worded.content))])
    assert np.corrcoef(opened.index.vectors([int(worded.id), 7001]))[0, 1] > 0.9


def test_columns_of_items() -> None:

    columns = {
        "title": ["text", "label"],
        "year": ["text", "number"],
        "poster": "image",
        "of": "entity",
        "id": "text",
    }
    spec = ItemTable("items.csv", "item", columns)
    content = {"text": ["Heat", "1995", None], "table": {"year": 1995.0, "of": 3}, "image": Path("a.png")}
    table = item_columns([Sample("1", content), Sample("2", {"text": "Alien"}), Sample("3")], spec)
    assert table["title"].tolist() == ["Heat", "Alien", None]
    assert table["poster"].tolist() == ["a.png", None, None]
    assert table["year"].isna().tolist() == [False, True, True]
    assert list(table) == ["title", "year", "poster"]
    torch.testing.assert_close(float(table["year"][0]), 1995.0)


def test_the_readme_s_lines_run(run: Path, data: Path) -> None:
    readme = (Path(__file__).parents[2] / "mmattn/serving/README.md").read_text(encoding="utf-8")
    block = readme.split("```python\n")[1].split("```")[0]
    picture = next(item.content["image"] for item in read_dataset(data).items if "image" in item.content)
    for shown, here in {
        "runs/NAME": str(run),
        "year > 1990": "digit == '7'",
        "poster.jpg": str(picture),
    }.items():
        assert shown in block
        block = block.replace(shown, here)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert 90001 in names["run"].index
