"""Ranking, ratings and genres of items on one core; the rating head by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional as F

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.heads.recommendation.rating import RatingHead
from mmattn.model.build import build_model
from mmattn.model.model import Model
from mmattn.testing.plugin_checks import check_head
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.multitask import MultiTask
from mmattn.training.tasks.rating import RatingRecommender, RatingTask, dense_ratings
from mmattn.training.tasks.recommendation import RecommendationTask, Recommender
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.training.tasks.task_weighting import UncertaintyWeights
from mmattn.training.tasks.with_alignment import with_alignment

ITEMS, KNOWN, USERS = 61, 47, 53
NAN = float("nan")


class World:
    """Items of two hidden tastes; users meet what they like, rate by it, and genres say it with noise."""

    def __init__(self, kind: str = "regression"):
        rng = np.random.default_rng(0)
        taste_I2, taste_U2 = rng.standard_normal((ITEMS, 2)), rng.standard_normal((USERS, 2))
        like_UI = taste_U2 @ taste_I2.T
        ratings = np.clip(np.round(3 + like_UI + 0.3 * rng.standard_normal(like_UI.shape)), 1, 5)
        seen = rng.random(like_UI.shape) < 0.4
        self.genres = torch.from_numpy((taste_I2 + 0.2 * rng.standard_normal((ITEMS, 2)) > 0) * 1.0)
        self.ratings = ratings
        self.known = np.arange(KNOWN)
        values = torch.from_numpy(np.c_[taste_I2, rng.standard_normal((ITEMS, 3))]).float()
        tokens = Tokens.from_lengths(values, torch.ones(ITEMS, dtype=torch.int64), "text")
        config = ModelConfig(
            {"text": EncoderConfig("tiny-text", {"dim": 5, "layers": 1}, dim_fraction=1.0)},
            FusionConfig(dim=8, layers=1, heads=2, dropout=0.0),
            {
                "recommendation": HeadConfig("recommendation", {"dropout": 0.0}),
                "rating": HeadConfig("rating", {"kind": kind}),
                "labels": HeadConfig("labels", {"labels": ["first", "second"]}),
            },
        )
        torch.manual_seed(0)
        self.model = build_model({"text": TinyText(dim=5, layers=1)}, config)
        self.model.core.input_projection.calibrate({"text": tokens})
        inputs = ModelInputs({"text": tokens})
        picks = sparse.csr_array(((seen & (like_UI > 0.3)) * 1.0).astype(np.float32))
        marks = sparse.csr_array((seen * ratings).astype(np.float32))
        self.like = like_UI
        self.inputs = inputs
        self.click = RecommendationTask(
            self.model,
            inputs,
            picks,
            self.known,
            self._ranks,
            steps_per_epoch=5,
            users_per_batch=0,
            drop_modality=0.0,
        )
        self.rating = RatingTask(self.model, inputs, marks, self.known, self._rates, steps_per_epoch=5)
        answer = [
            [name for name, present in zip(("first", "second"), row, strict=True) if present]
            for row in self.genres
        ]
        self.genre = SupervisedTask(
            self.model, inputs, answer, self.known, self._names, head="labels", batch_size=13
        )

    def _fused(self, model: Model) -> torch.Tensor:
        return model.fuse(model.tokens(self.inputs, torch.arange(ITEMS)))

    def _ranks(self, recommender: Recommender) -> dict[str, float]:
        scores = recommender.score(np.arange(USERS), np.arange(KNOWN, ITEMS))
        alike = [
            np.corrcoef(score, other)[0, 1] for score, other in zip(scores, self.like[:, KNOWN:], strict=True)
        ]
        return {"ranks": float(np.nanmean(alike))}

    def _rates(self, recommender: RatingRecommender) -> dict[str, float]:
        answer = recommender.score(np.arange(USERS), np.arange(KNOWN, ITEMS))
        wrong = answer - self.ratings[:, KNOWN:]
        return {"minus rmse": -float(np.sqrt((wrong**2).mean()))}

    def _names(self, model: Model) -> dict[str, float]:
        right = (model.head("labels")(self._fused(model)) > 0) == (self.genres > 0.5)
        return {"accuracy": right[KNOWN:].float().mean().item()}


@pytest.mark.parametrize("kind", ["regression", "ordinal"])
def test_ranking_ratings_and_genres_of_new_items_all_improve(kind: str) -> None:
    world = World(kind)
    tasks = {"click": world.click, "rating": world.rating, "genre": world.genre}
    squared = ["rating"] if kind == "regression" else []
    together = MultiTask(tasks, UncertaintyWeights(tasks, regression_tasks=squared))
    together.eval()
    with torch.no_grad():
        before = together.validate()
    history = train(
        together,
        LoopConfig(
            epochs=12, learning_rate=0.01, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0
        ),
        progress=False,
    )
    with torch.no_grad():
        after = together.eval().validate()
    assert list(after) == ["ranks", "rating minus rmse", "genre accuracy"]
    assert after["ranks"] > max(before["ranks"], 0.4)
    assert after["rating minus rmse"] > before["rating minus rmse"] + 0.1
    assert after["genre accuracy"] > max(before["genre accuracy"], 0.75)
    for name in tasks:
        assert history.rows[-1][f"loss {name}"] < history.rows[0][f"loss {name}"]


def test_a_rating_by_hand() -> None:
    head = RatingHead(dim=2)
    with torch.no_grad():
        head.query.weight.copy_(torch.eye(2))
        head.log_shrinkage.fill_(math.log(1.0))  # k = 1, m = 3, g = 1, t = 1/2
        head.item_bias.weight.copy_(torch.tensor([[0.0, 0.1]]))
    known, candidate = torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    actual = head.predict_ratings(torch.tensor([[5.0, 1.0, NAN], [NAN, NAN, NAN]]), known, candidate)
    # base = (3 + 5 + 1) / 3 = 3; residuals 2 and -2 at cosines 1 and 0.
    expected = 3 + 0.5 * (2 * math.e - 2) / (math.e + 1)
    assert actual[:, 0].tolist() == pytest.approx([expected, 3.0], rel=1e-5)
    assert head.predict_ratings(
        torch.full((1, 3), NAN), known, torch.tensor([[0.0, 1.0]])
    ).item() == pytest.approx(3.1)


def test_ordinal_probabilities_by_hand() -> None:
    head = RatingHead(dim=2, levels=(1.0, 2.0, 4.0), kind="ordinal")
    sigmoid = torch.sigmoid(torch.tensor([1.5 - 2.0, 3.0 - 2.0]))  # thresholds between the levels
    actual = head._probabilities(torch.tensor([[2.0]]))[0, 0]
    expected = [sigmoid[0].item(), (sigmoid[1] - sigmoid[0]).item(), 1 - sigmoid[1].item()]
    assert actual.tolist() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match=r"got 3, expected one of \[1.0, 2.0, 4.0\]"):
        head._level_indices(torch.tensor([[3.0]]), torch.tensor([[True]]))


def test_alignment_beside_the_ranking_draws_modalities_together() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(ITEMS, 3)
    parts = {
        name: Tokens.from_lengths(hidden @ torch.randn(3, width), torch.ones(ITEMS, dtype=torch.int64), name)
        for name, width in (("text", 5), ("image", 7))
    }
    encoders = {name: TinyText(dim=part.dim, layers=0, modality=name) for name, part in parts.items()}
    config = ModelConfig(
        {name: EncoderConfig("tiny-text") for name in parts},
        FusionConfig(dim=16, layers=1, heads=2, dropout=0.0),
        {"recommendation": HeadConfig(), "alignment": HeadConfig("alignment", {"embedding_dim": 6})},
    )

    def finds_its_picture(weight: float) -> tuple[float, list[str]]:
        torch.manual_seed(1)
        model = build_model(encoders, config)
        model.core.input_projection.calibrate(parts)
        picks = sparse.csr_array((torch.rand(USERS, ITEMS) < 0.3).float().numpy())
        judge = lambda _: {"x": 0.0}  # noqa: E731
        click = RecommendationTask(
            model, ModelInputs(parts), picks, np.arange(KNOWN), judge, steps_per_epoch=4
        )
        task = with_alignment(click, weight, batch_size=40) if weight else click
        history = train(
            task,
            LoopConfig(
                epochs=10, learning_rate=0.01, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0
            ),
            progress=False,
        )
        with torch.no_grad():
            answer = [model.fuse({name: part}).pooled for name, part in parts.items()]
            text, image = (model.head("alignment").project(pooled)[KNOWN:] for pooled in answer)
        text, image = F.normalize(text - text.mean(0)), F.normalize(image - image.mean(0))
        actual = (text @ image.T).argmax(1) == torch.arange(ITEMS - KNOWN)
        return actual.float().mean().item(), list(history.rows[0])

    (apart, plain), (near, names) = finds_its_picture(0.0), finds_its_picture(1.0)
    assert near > 0.3 > 0.1 > apart  # of items that it never saw, 14 of them
    assert set(names) - set(plain) == {"loss ranking", "loss alignment"}
    with pytest.raises(InputError, match="no head 'alignment'"):
        with_alignment(World().click, 1.0)
    with pytest.raises(InputError, match="got weight 0, expected one above 0"):
        with_alignment(World().click, 0)


def test_the_head_keeps_its_contract() -> None:
    check_head("rating")


def test_what_is_to_be_rated_is_in_no_history() -> None:
    world = World()
    for step in world.rating.batches(1, torch.Generator().manual_seed(0)):
        assert not set(step.candidates.tolist()) & set(step.history_items.tolist())
        assert set(step.candidates.tolist()) | set(step.history_items.tolist()) == set(range(KNOWN))
    assert dense_ratings(sparse.csr_array(([0.0, 4.0], ([0, 0], [1, 2])), shape=(1, 3))).isnan().tolist() == [
        [True, False, False]
    ]


def test_what_they_refuse() -> None:
    world = World()
    none = sparse.csr_array((USERS, ITEMS))
    with pytest.raises(InputError, match="got no rating"):
        RatingTask(world.model, world.inputs, none, world.known)
    with pytest.raises(InputError, match="got targets 1.5"):
        RatingTask(world.model, world.inputs, world.rating.ratings, world.known, candidate_fraction=1.5)
    with pytest.raises(InputError, match=r"got levels \(1.0, 1.0\)"):
        RatingHead(3, levels=(1.0, 1.0))
    with pytest.raises(InputError, match="got kind 'count'"):
        RatingHead(3, kind="count")  # type: ignore[arg-type]
