"""RecBole 1.2.1 itself, on the ml-100k that it brings, in an environment of its own: `make test-hosts`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("recbole", reason="RecBole has an environment of its own: make test-hosts")

import recbole
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import GRU4RecKG
from recbole.trainer import Trainer
from recbole.utils import init_seed

from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.testing.plugin_checks import check_adapter
from mmattn.types import Tokens
from mmattn_adapters.recbole import TowerRecommender, dataset_contents, item_ids, write_preload

ML100K = Path(recbole.__file__).parent / "dataset_example/ml-100k"
BUILT_IN = {
    "use_gpu": False,
    "eval_batch_size": 2_000_000,
    "metrics": ["NDCG", "MRR"],
    "valid_metric": "NDCG@10",
    "show_progress": False,
}
OURS = {
    **BUILT_IN,
    "train_neg_sample_args": None,
    "train_batch_size": 40_000,
    "learning_rate": 0.01,
    "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "movie_title", "class"]},
    "mmattn": {"text_fields": ["movie_title"], "categorical_fields": ["class"]},
}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # RecBole's own use of pandas


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole writes checkpoints and logs where it stands, and reads pytest's arguments as its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["pytest"])
    torch.set_num_threads(1)


@pytest.fixture
def prepare() -> Callable[..., tuple[Any, Any, Any, Any]]:
    def prepare(
        model: type, dataset: str = "ml-100k", read: Callable[[Config], Any] = create_dataset, **settings: Any
    ) -> tuple[Any, Any, Any, Any]:
        config = Config(model=model, dataset=dataset, config_dict=settings)
        init_seed(config["seed"], reproducibility=True)
        return (config, *data_preparation(config, read(config)))

    return prepare


def popularity(train: Any, valid: Any, trainer: Trainer) -> float:
    """NDCG@10 of the most popular items, by RecBole's own evaluation."""

    class Popular(torch.nn.Module):
        def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
            counts = torch.from_numpy(train.dataset.inter_matrix(form="csr").getnnz(axis=0)).float()
            return counts.repeat(len(interaction))

    model, trainer.model = trainer.model, Popular()
    actual = trainer.evaluate(valid, load_best_model=False)["ndcg@10"]
    trainer.model = model
    return actual


def test_recbole_s_trainer_trains_our_tower(
    prepare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # RecBole's checkpoints hold its configuration object, which torch.load refuses by default.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    config, train, valid, test = prepare(TowerRecommender, **OURS, epochs=20, eval_step=10)
    model = TowerRecommender(config, train.dataset).to(config["device"])
    trainer = Trainer(config, model)
    floor = popularity(train, valid, trainer)
    best, result = trainer.fit(train, valid, saved=True, verbose=False)
    assert best == result["ndcg@10"] > 1.3 * floor > 0.1
    assert trainer.evaluate(valid)["ndcg@10"] == best, "RecBole's checkpoint brings the same model back"
    tested = trainer.evaluate(test)
    assert tested["ndcg@10"] > 1.3 * floor

    check_the_two_ways_to_score_agree(model)
    check_an_item_nobody_met_is_scored_by_content(model)


def check_the_two_ways_to_score_agree(model: TowerRecommender) -> None:
    model.eval()
    users, items = torch.tensor([3, 17, 3]), torch.tensor([29, 2, 1009])
    pairs = model.predict(Interaction({"user_id": users, "item_id": items}))
    everything = model.full_sort_predict(Interaction({"user_id": users}))
    assert everything.shape == (3 * model.n_items,)
    assert torch.allclose(everything.view(3, -1)[torch.arange(3), items], pairs, atol=1e-4)


def check_an_item_nobody_met_is_scored_by_content(model: TowerRecommender) -> None:
    met = set(model.known.tolist())
    cold = [number for number in range(1, model.n_items) if number not in met]
    assert cold, "some films of ml-100k have one rating, which may fall into the test"
    vectors = model.model.tower.vectors(model.items)
    assert torch.allclose(model._item_vectors()[cold], vectors[cold])
    assert vectors[cold].norm(dim=1).min() > 0
    assert not vectors[0].any(), "the padding has no content"
    warm = model.known[:7]
    assert not torch.isclose(model._item_vectors()[warm], vectors[warm]).any(dim=1).all()


def test_contents_are_the_titles_and_genres_of_the_file(prepare: Callable[..., Any]) -> None:
    _, train, _, _ = prepare(TowerRecommender, **OURS)
    items, sources = dataset_contents(train.dataset, ["movie_title"], ["class"])
    ids = item_ids(train.dataset)
    lines = (ML100K / "ml-100k.item").read_text(encoding="utf-8").splitlines()[1:]
    film = {line.split("\t")[0]: line.split("\t") for line in lines}
    index = ids.index("1")  # Toy Story
    title, genres = film["1"][1], film["1"][3].split()
    text, table = sources["text"], sources["tags"]
    assert items.contents["text"][index] == text.read([title])
    assert items.contents["tags"][index] == table.read({"class": genres})
    assert [items.contents[name][0] for name in ("text", "tags")] == [None, None]


def test_stored_tokens_in_recbole_s_order(prepare: Callable[..., Any]) -> None:
    """A picture encoder's tokens: items without a picture have no token, and vectors of zeros here."""
    config, train, _, _ = prepare(
        TowerRecommender, **{**OURS, "mmattn": {"use_item_embeddings": False, "dim": 8}}
    )
    count = len(item_ids(train.dataset))
    present = torch.arange(count) % 3 == 1
    pictures = Tokens.from_lengths(torch.randn(int(present.sum()), 19), present.long(), "image")
    model = TowerRecommender(config, train.dataset, ModelInputs({"image": pictures}), {"image": 19}).eval()
    norm = model._item_vectors().norm(dim=1)
    assert bool((norm[present] > 0).all())
    assert not norm[~present].any()


def test_bad_input_is_named(prepare: Callable[..., Any]) -> None:
    def fails(**changes: Any) -> str:
        config, train, _, _ = prepare(TowerRecommender, **{**OURS, **changes})
        with pytest.raises(InputError) as error:
            TowerRecommender(config, train.dataset).calculate_loss(next(iter(train)))
        return str(error.value)

    assert "no token field 'movie_titel'. Did you mean 'movie_title'?" in fails(
        mmattn={"text_fields": ["movie_titel"]}
    )
    assert "got no item field" in fails(mmattn={})
    assert "unknown key 'text_field'. Did you mean 'text_fields'?" in fails(
        mmattn={"text_field": ["movie_title"]}
    )
    assert "leaves no history; expected a train_batch_size of at most 40404" in fails(train_batch_size=10**6)


def test_our_vectors_feed_a_model_of_recbole_through_preload(
    prepare: Callable[..., Any], tmp_path: Path
) -> None:
    config, train, _, _ = prepare(TowerRecommender, **OURS)
    tower = TowerRecommender(config, train.dataset).model.tower
    items, _ = dataset_contents(train.dataset, ["movie_title"], ["class"])
    vectors, ids = tower.vectors(items)[1:], item_ids(train.dataset)[1:]

    # Under another name: RecBole reads ml-100k from inside its own package, whatever the data_path.
    (tmp_path / "films").mkdir()
    shutil.copy(ML100K / "ml-100k.inter", tmp_path / "films/films.inter")
    settings = {**BUILT_IN, **write_preload(tmp_path / "films", "films", ids, vectors)}
    settings |= {"data_path": str(tmp_path), "epochs": 1, "train_neg_sample_args": None}
    settings |= {"user_inter_num_interval": "[0,35]"}  # a smaller part: the GRU is slow on a CPU
    settings |= {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}, "repeatable": True}
    # Its own data set wants a knowledge graph, which this model then does not look at.
    config, train, valid, _ = prepare(GRU4RecKG, "films", SequentialDataset, **settings)
    model = GRU4RecKG(config, train.dataset)
    ours = dict(zip(ids, vectors, strict=True))
    expected = torch.stack([ours[name] for name in item_ids(train.dataset)[1:]])
    assert torch.allclose(model.entity_embedding.weight[1 : 1 + len(expected)], expected, atol=1e-5)
    best, _ = Trainer(config, model).fit(train, valid, saved=False, verbose=False)
    assert best > 0


def test_preload_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 3 ids and vectors"):
        write_preload(tmp_path, "x", ["a", "b", "c"], torch.zeros(2, 5))
    assert not list(tmp_path.iterdir())


def test_the_public_check() -> None:
    check_adapter("recbole")
