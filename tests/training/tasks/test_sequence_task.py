"""Training on histories: cycles are learned, ids or content; odd users and odd items get an answer."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.data.histories import Histories
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.model.build import build_model
from mmattn.recommenders.newcomers import WithColdUserFallback
from mmattn.recommenders.recent_popularity import RecentPopularity
from mmattn.recommenders.sasrec import SASRec
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.sequence import SequenceTask

RING, USERS = 11, 43  # item i is followed by item i + 1, round the ring
DAY = 86_400.0


def ring(users: int = USERS, steps: int = 7, seed: int = 0) -> Histories:
    """Users who enter the ring somewhere and take some items in turn."""
    start_U = np.random.default_rng(seed).integers(0, RING, users)
    items_UT = (start_U[:, None] + np.arange(steps)) % RING
    time_UT = np.arange(users)[:, None] * DAY + np.arange(steps) * 3600.0
    return Histories.from_events(
        np.repeat(np.arange(users), steps), items_UT.ravel(), time_UT.ravel(), num_users=users
    )


def world(histories: Histories | None = None, extra: int = 2, **options: Any) -> SequenceTask:
    """Items of the ring, told apart by their tokens; the last `extra` ones nobody met."""
    items = RING + extra
    torch.manual_seed(0)
    values = torch.randn(items, 13)
    values[RING:] = values[:extra] + 0.05 * torch.randn(extra, 13)  # new ones that are like the first ones
    tokens = Tokens.from_lengths(values, torch.ones(items, dtype=torch.int64), "text")
    head = {"width": 16, "layers": 1, "heads": 1, "dropout": 0.0, **options.pop("head", {})}
    config = ModelConfig(
        {"text": EncoderConfig("tiny-text", {"dim": 13, "layers": 1}, dim_fraction=1.0)},
        FusionConfig(dim=16, layers=0, heads=2, dropout=0.0),
        {"sequence": HeadConfig("sequence", head)},
    )
    model = build_model({"text": TinyText(dim=13, layers=1)}, config)
    model.core.input_projection.calibrate({"text": tokens})
    inputs = ModelInputs({"text": tokens})
    judge = options.pop("judge", lambda recommender: {})
    return SequenceTask(
        model, inputs, histories or ring(), judge, **{"steps_per_epoch": 10, "drop_modality": 0.0, **options}
    )


def follows(recommender: Any) -> dict[str, float]:
    """How often the item that follows ranks first, for histories that were not trained on."""
    new = ring(users=29, steps=4, seed=1)
    right_U = (new.items.reshape(29, 4)[:, -1] + 1) % RING
    scores = recommender.fit(new).score(np.arange(29), np.arange(RING))
    scores[new.to_sparse(RING).toarray() > 0] = -np.inf  # what was met is not recommended again
    return {"right": float((scores.argmax(1) == right_U).mean())}


CONTENT = {
    "content only": {},
    "num_ids": {"num_ids": 13, "id_dropout": 0.3},
    "ids only": {"num_ids": 13, "use_content": False},
}
SAMPLED = {
    "uniform": {"loss": "uniform", "num_negatives": 64},
    "popularity_half_lives": {"loss": "popularity", "num_negatives": 64},
}


HEADS: dict[str, dict[str, Any]] = {**CONTENT, **SAMPLED}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_ring_is_learned(head: dict[str, Any]) -> None:
    task = world(head={**head, "positional_encoding": True}, judge=follows, users_per_batch=0)
    before = task.eval().validate()["right"]
    history = train(task, LoopConfig(epochs=8, learning_rate=0.02, weight_decay=0.0), progress=False)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    assert before < 0.5
    assert history.best_score > 0.9


def test_the_bag_learns_what_belongs_together() -> None:
    task = world(head={"tower": "bag"}, judge=follows, users_per_batch=0)
    history = train(task, LoopConfig(epochs=8, learning_rate=0.02, weight_decay=0.0), progress=False)
    assert history.best_score > 0.5  # order says nothing here: of four in a row the next is guessed


def test_sasrec_learns_the_ring_and_stops_where_it_was_best() -> None:
    met = ring()
    next_U = (met.items.reshape(USERS, 7)[:, -1] + 1) % RING

    def judge(score: Any) -> float:
        return float((score(np.arange(USERS), np.arange(RING)).argmax(1) == next_U).mean())

    baseline = SASRec(
        dim=16, layers=1, dropout=0.0, epochs=20, learning_rate=0.03, validate_fn=judge, batch_size=17
    )
    baseline.fit(met.to_sparse(RING + 2), met)
    assert judge(baseline.score) > 0.9
    assert baseline.best_epoch <= 20
    scores = baseline.score([0, 3], np.arange(RING + 2))
    assert (
        scores[:, RING:] < scores[:, :RING].min(1, keepdims=True)
    ).all()  # items that nobody chose come last
    again = SASRec(
        dim=16, layers=1, dropout=0.0, epochs=20, learning_rate=0.03, validate_fn=judge, batch_size=17
    )
    np.testing.assert_array_equal(
        again.fit(met.to_sparse(RING + 2), met).score([0, 3], np.arange(RING + 2)), scores
    )


def test_new_items_rank_by_content() -> None:
    task = world(users_per_batch=0)
    train(task, LoopConfig(epochs=8, learning_rate=0.02, weight_decay=0.0), progress=False)
    vectors = task.recommender().item_vectors
    # Items 11 and 12 were never met; they look like 0 and 1, and end beside them.
    near = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)) @ vectors.T
    assert near[:RING, RING].argmax() == 0
    assert near[:RING, RING + 1].argmax() == 1


def odd() -> Histories:
    """No history, one item, ten thousand items (each met many times), beside users of the ring."""
    met = ring()
    users = np.repeat(np.arange(USERS), met.lengths)
    long = np.arange(10_000) % RING
    return Histories.from_events(
        [*users, USERS + 1, *[USERS + 2] * 10_000],
        [*met.items, 5, *long],
        [*met.time, 9.0, *np.arange(10_000.0)],
        num_users=USERS + 3,
    )


def test_a_user_without_a_history_with_one_item_and_with_ten_thousand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        task = world(odd(), users_per_batch=0, steps_per_epoch=1, head={"max_length": 50})
    assert "1 of 46 histories are longer than 50 events" in caplog.text
    train(task, LoopConfig(epochs=1, learning_rate=0.01), progress=False)
    recommender = task.recommender()
    scores = recommender.score([USERS, USERS + 1, USERS + 2], np.arange(RING + 2))
    assert np.isfinite(scores).all()
    # The last fifty events are what counts of the longest history.
    short = odd().slice_events([USERS + 2], [9_950], [10_000])
    np.testing.assert_allclose(
        recommender.fit(short).score([0], np.arange(RING + 2))[0], scores[2], atol=1e-5
    )


def test_nothing_known_of_a_user_is_answered_without_popularity() -> None:
    """The answer is the start's, the same for all of them, and counts do not enter it."""
    lopsided = Histories.from_events([0] * 5 + [1], [0, 1, 2, 3, 4, 0], np.arange(6.0), num_users=4)
    task = world(lopsided).eval()
    scores = task.recommender().score([2, 3], np.arange(RING))
    np.testing.assert_array_equal(scores[0], scores[1])
    more = Histories.from_events([0] * 5 + [1] * 3, [0, 1, 2, 3, 4, 0, 1, 2], np.arange(8.0), num_users=4)
    task.set_test_histories(more)
    np.testing.assert_allclose(task.recommender().score([2], np.arange(RING))[0], scores[0], atol=1e-6)


def test_popularity_is_that_of_the_moment_of_asking() -> None:
    met = Histories.from_events([0, 0, 1], [0, 1, 1], np.array([0.0, 10.0, 20.0]) * DAY, num_users=3)
    task = world(met, head={"popularity_half_lives": [0]}, query_time=400 * DAY).eval()
    recommender = task.recommender()
    np.testing.assert_allclose(recommender.item_vectors[:3, -1], np.log1p([1, 2, 0]), rtol=1e-5)
    np.testing.assert_allclose(
        recommender.user_vectors[:, -1], 1.0
    )  # untrained, it counts once for everybody
    scores = recommender.score([2], [0, 1])
    plain = recommender.user_vectors[2, :-1] @ recommender.item_vectors[[0, 1], :-1].T
    np.testing.assert_allclose(scores[0], plain + np.log1p([1, 2]), rtol=1e-4)


def test_what_cannot_be_learned_from() -> None:
    none = Histories.from_events([], [], [], num_users=3)
    with pytest.raises(InputError, match="got no event to learn from"):
        world(none)
    unknown = Histories.from_events([0], [99], [0.0], num_users=1)
    with pytest.raises(InputError, match="got items 99 to 99, expected 0 to 12"):
        world(unknown)
    with pytest.raises(InputError, match="choices at 86400 or later"):
        world(ring(), head={"popularity_half_lives": [0]}, query_time=DAY)


def test_newcomers_are_answered_by_what_is_popular_of_late() -> None:
    met = Histories.from_events([0, 1, 1], [0, 0, 2], np.array([0.0, 0.0, 900.0]) * DAY, num_users=3)
    known = met.to_sparse(3)
    popular = RecentPopularity(half_life=30.0).fit(known, met)
    assert popular.score([0], [0, 1, 2])[0].argsort().tolist() == [1, 0, 2]

    class Same:
        def score(self, users: Any, items: Any) -> np.ndarray:
            return np.zeros((len(users), len(items)), np.float32)

    scores = WithColdUserFallback(Same(), popular, known).score([0, 2], [0, 1, 2])
    assert not scores[0].any()
    np.testing.assert_array_equal(scores[1], popular.score([2], [0, 1, 2])[0])
