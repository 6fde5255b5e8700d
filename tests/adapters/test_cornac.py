"""Cornac itself trains, evaluates, clones and saves our recommender; what is absent stays absent there."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("cornac", reason="needs pip install 'mmattn[cornac]'")

from cornac import Experiment
from cornac.data import Dataset, FeatureModality, ImageModality, TextModality
from cornac.eval_methods import BaseMethod, RatioSplit
from cornac.metrics import NDCG
from cornac.models import MostPop
from cornac.models.recommender import is_ann_supported

from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.testing.plugin_checks import check_adapter
from mmattn_adapters.cornac import TowerRecommender, dataset_contents

TOPICS = ("war", "love", "space", "crime", "song")
ITEMS = [f"i{number}" for number in range(97)]
TEXTS = {item: f"{TOPICS[number % 5]} story {number}" for number, item in enumerate(ITEMS)}


def ratings(seed: int = 0) -> list[tuple[str, str, float]]:
    """Users who watch one topic nine times in ten."""
    rng = np.random.default_rng(seed)
    actual = []
    for user in range(151):
        liked = [item for number, item in enumerate(ITEMS) if number % 5 == user % 5]
        chosen = {str(rng.choice(liked if rng.random() < 0.9 else ITEMS)) for _ in range(13)}
        actual += [(f"u{user}", item, 1.0) for item in sorted(chosen)]
    return actual


def recommender(**changes: Any) -> TowerRecommender:
    settings = {"dim": 8, "epochs": 12, "contents": {"text": TEXTS}, "encoders": {"text": TinyText(dim=16)}}
    return TowerRecommender(**{**settings, **changes})


def cold_split(**modalities: Any) -> BaseMethod:
    """The last fifteen items are in the test only: three of each topic."""
    everything = ratings()
    cold = set(ITEMS[-15:])
    train = [row for row in everything if row[1] not in cold]
    test = [row for row in everything if row[1] in cold]
    return BaseMethod.from_splits(
        train, test, exclude_unknowns=False, rating_threshold=1.0, seed=1, **modalities
    )


@pytest.fixture(autouse=True)
def quiet_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)  # an Experiment leaves its log where it stands
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="cornac")
        yield


def results(experiment: Experiment) -> dict[str, float]:
    experiment.run()
    return {actual.model_name: actual.metric_avg_results["NDCG@10"] for actual in experiment.result}


def test_an_experiment_of_cornac_trains_and_evaluates_it() -> None:
    split = RatioSplit(ratings(), test_size=0.2, exclude_unknowns=True, rating_threshold=1.0, seed=3)
    actual = results(Experiment(split, [MostPop(), recommender()], [NDCG(k=10)]))
    assert actual["mmattn"] > 2 * actual["MostPop"]


def test_cold_items_are_ranked_by_their_content() -> None:
    split = cold_split()
    order = np.random.default_rng(7).permutation(len(ITEMS))
    exchanged = {item: TEXTS[ITEMS[index]] for item, index in zip(ITEMS, order, strict=True)}
    others = recommender(name="exchanged", epochs=25, contents={"text": exchanged})
    actual = results(Experiment(split, [MostPop(), recommender(epochs=25), others], [NDCG(k=10)]))
    assert actual["MostPop"] == 0, "every item that was rated comes before them"
    assert actual["mmattn"] > 2 * actual["exchanged"]

    model = recommender(epochs=25).fit(split.train_set)
    scores = model.score(0)
    assert scores.shape == (model.total_items,)
    assert model.num_items == 82
    # User u0 likes topic 0: the cold items of that topic come before every other cold one.
    user = model.uid_map["u0"]
    cold = sorted(ITEMS[-15:], key=lambda item: -model.score(user, model.iid_map[item]))
    assert {int(item[1:]) % 5 for item in cold[:3]} == {0}


def test_absent_pictures_stay_absent_where_cornac_gives_another_item_s() -> None:
    """Pictures of every second item. In Cornac the others end up with rows of items that are not theirs."""
    rng = np.random.default_rng(5)
    with_picture = ITEMS[::2]
    pictures = {item: rng.standard_normal(11).astype(np.float32) for item in with_picture}
    spare = [f"spare{number}" for number in range(len(ITEMS) - len(pictures))]
    rows = np.stack([*pictures.values(), *rng.standard_normal((len(spare), 11)).astype(np.float32)])
    modality = ImageModality(features=rows, ids=[*with_picture, *spare])
    split = cold_split(item_image=modality)

    other = split.global_iid_map["i1"]  # has none; Cornac hands out a vector all the same
    assert split.train_set.item_image.features[other].any()

    actual = dataset_contents(split.train_set)["image"]
    assert set(actual) == set(with_picture)
    assert all(np.array_equal(actual[item], pictures[item]) for item in with_picture)
    model = TowerRecommender(dim=4, use_item_embeddings=False, epochs=1).fit(split.train_set)
    present = np.array([item in pictures for item in model.item_ids])
    vectors = np.linalg.norm(model.get_item_vectors(), axis=1)
    assert (vectors > 0).tolist() == present.tolist()
    scores = model.score(0)
    assert np.all(scores[~present] == scores.min())


def test_cornac_s_own_texts_and_features_are_read() -> None:
    text = TextModality(corpus=list(TEXTS.values()), ids=list(TEXTS), max_vocab=50)
    feature = FeatureModality(features=np.eye(len(ITEMS), 5)[np.arange(97) % 5], ids=list(ITEMS))
    split = cold_split(item_text=text, item_feature=feature)
    actual = dataset_contents(split.train_set)
    assert actual["text"] == TEXTS
    assert actual["feature"]["i12"].tolist() == [0, 0, 1, 0, 0]
    model = TowerRecommender(dim=4, epochs=2).fit(split.train_set)
    assert set(model.model.tower.core.input_projection.input_dims) == {"text", "feature"}  # type: ignore[union-attr]


def test_scores_are_inner_products_for_approximate_search() -> None:
    model = recommender(epochs=2).fit(Dataset.from_uir(ratings()))
    assert is_ann_supported(model)
    users, items = model.get_user_vectors(), model.get_item_vectors()
    assert users.shape == (151, 8)
    assert np.allclose(model.score(7), items @ users[7], atol=1e-5)
    assert model.score(7, 11) == pytest.approx(float(items[11] @ users[7]), abs=1e-5)


def test_a_user_who_is_new_gets_what_nobody_in_particular_likes() -> None:
    model = recommender(epochs=1).fit(Dataset.from_uir(ratings()))
    assert np.array_equal(model.score(10_000), model.score(-1))
    assert np.isfinite(model.score(10_000)).all()


def test_clone_keeps_every_setting_and_gives_the_same_numbers() -> None:
    data = Dataset.from_uir(ratings())
    model = recommender(epochs=2, hidden_fraction=0.3, seed=17)
    again = model.clone({"learning_rate": 0.02})
    assert again.learning_rate == 0.02
    assert (again.hidden_fraction, again.seed, again.contents) == (0.3, 17, model.contents)
    first, second = model.fit(data).score(3), model.clone().fit(data).score(3)
    assert np.array_equal(first, second)
    state = torch.get_rng_state()
    model.clone().fit(data)
    assert torch.equal(torch.get_rng_state(), state), "fitting leaves other people's random numbers alone"


def test_save_and_load(tmp_path: Path) -> None:
    model = recommender(epochs=1).fit(Dataset.from_uir(ratings()))
    loaded = TowerRecommender.load(model.save(str(tmp_path)))
    assert np.array_equal(loaded.score(5), model.score(5))
    assert loaded.recommend("u5", k=3) == model.recommend("u5", k=3)
    with pytest.warns(UserWarning, match="already fitted"):
        loaded.fit(Dataset.from_uir(ratings()[:-40]))  # the same items, shorter histories; it is not trained
    assert np.array_equal(loaded.score(5), model.score(5))
    with (
        pytest.warns(UserWarning, match="already fitted"),
        pytest.raises(InputError, match="expected the 97 of the training, in their order"),
    ):
        loaded.fit(Dataset.from_uir(ratings()[::-1]))


def test_validation_stops_early_and_keeps_the_best_weights() -> None:
    split = RatioSplit(
        ratings(), test_size=0.2, val_size=0.2, exclude_unknowns=True, rating_threshold=1.0, seed=3
    )
    model = recommender(epochs=60, patience=2, learning_rate=0.05)
    model.fit(split.train_set, split.val_set)
    assert model.current_epoch < 60
    assert model.monitor_value(split.train_set, split.val_set) == pytest.approx(model.best_value)


def test_bad_input_is_named() -> None:
    data = Dataset.from_uir(ratings())
    with pytest.raises(InputError, match="got no content of any item"):
        TowerRecommender().fit(data)
    with pytest.raises(InputError, match="got an encoder of 'txt'. Did you mean 'text'?"):
        recommender(encoders={"txt": TinyText(dim=8)}).fit(data)
    with pytest.raises(InputError, match=r"got 'image' of shapes \[\(1, 3\), \(1, 4\)\]"):
        TowerRecommender(contents={"image": {"i1": np.ones(3), "i2": np.ones(4)}}).fit(data)


def test_the_public_check() -> None:
    check_adapter("cornac")
