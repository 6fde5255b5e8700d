"""Training episodes mimic the test: nothing of a candidate is known but its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from mmattn import InputError, Tokens
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig, ModelConfig
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.heads.recommendation.history_completion import cooccurrence_counts
from mmattn.model.build import build_model
from mmattn.model.model import Model
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.alignment import AlignmentTask
from mmattn.training.tasks.recommendation import RecommendationTask, Recommender, item_vectors

ITEMS, USERS = 37, 53


def world(**options: Any) -> RecommendationTask:
    """Items of two kinds, users who like one of them; the tokens say the kind, with noise."""
    rng = np.random.default_rng(0)
    kind = np.arange(ITEMS) % 2
    likes = (rng.random((USERS, ITEMS)) < 0.4) & (kind[None] == np.arange(USERS)[:, None] % 2)
    torch.manual_seed(0)
    values = torch.randn(ITEMS, 5)  # four components say nothing
    values[:, 0] = values[:, 0] * 0.2 + torch.from_numpy(kind * 2.0 - 1.0).float()
    tokens = Tokens.from_lengths(values, torch.ones(ITEMS, dtype=torch.int64), "text")
    config = ModelConfig(
        {"text": EncoderConfig("tiny-text", {"dim": 5, "layers": 1}, dim_fraction=1.0)},
        FusionConfig(dim=8, layers=1, heads=2),
        {"recommendation": HeadConfig("recommendation", options.pop("head", {}))},
    )
    model = build_model({"text": TinyText(dim=5, layers=1)}, config)
    model.core.input_projection.calibrate({"text": tokens})
    interactions = sparse.csr_array(likes.astype(np.float32))
    known = np.arange(31)  # the last six are new
    judge = options.pop("judge", lambda recommender: {})
    return RecommendationTask(model, ModelInputs({"text": tokens}), interactions, known, judge, **options)


def test_what_is_ranked_is_not_in_the_histories() -> None:
    task = world(
        steps_per_epoch=7, users_per_batch=11, candidate_fraction=0.3, history_fraction=0.5, drop_modality=0.0
    )
    matrix = task.interactions.toarray()
    for episode in task.batches(1, torch.Generator().manual_seed(3)):
        candidates, known = set(episode.candidates.tolist()), set(episode.known_items.tolist())
        assert not candidates & known
        assert candidates | known <= set(range(31))  # items that are new to the task take no part
        assert (len(candidates), len(known)) == (9, 15)
        rows = [row.tolist() for row in torch.cat([episode.history, episode.positives], 1)]
        columns = [*episode.known_items.tolist(), *episode.candidates.tolist()]
        possible = [matrix[user, columns].tolist() for user in range(USERS)]
        assert all(row in possible for row in rows)


def test_completion_never_sees_items_that_are_pretended_to_be_new() -> None:
    drawn: list[list[Any]] = []
    for everybody_likes in (False, True):
        task = world(
            steps_per_epoch=2,
            users_per_batch=11,
            candidate_fraction=0.3,
            history_fraction=0.5,
            head={"completion_dropout": 0.7},
        )
        episodes = list(task.batches(1, torch.Generator().manual_seed(3)))
        if everybody_likes:  # now with other choices of what is to be predicted, and of all that is left out
            changed = task.interactions.toarray()
            hidden = np.setdiff1d(np.arange(ITEMS), episodes[0].known_items.numpy())
            changed[:, hidden] = 1 - changed[:, hidden]
            task.interactions = sparse.csr_array(changed)
            episodes = list(task.batches(1, torch.Generator().manual_seed(3)))
        drawn.append(episodes)
    before, after = (episodes[0] for episodes in drawn)
    assert torch.equal(before.known_items, after.known_items)
    assert not torch.equal(before.positives, after.positives)
    assert torch.equal(before.cooccurrence, after.cooccurrence)
    known = drawn[0][0].known_items.numpy()
    chosen = world().interactions.toarray()[:, known]  # of all users, not only of the step's
    np.testing.assert_array_equal(before.cooccurrence, chosen.T @ chosen)


def test_a_recommender_completes_by_training_and_serves_new_users(tmp_path: Path) -> None:
    task = world(head={"completion_dropout": 0.7, "completion_ridge": 2.0}).eval()
    head, new = task.model.head("recommendation"), np.arange(31, ITEMS)
    vectors = item_vectors(task.model, task.inputs, "recommendation")
    with torch.no_grad():
        content = head.weights(vectors[:31], vectors[31:]).double().numpy()
    chosen = task.interactions.toarray()[:, :31].astype(np.float64)
    gram = chosen.T @ chosen
    filled_in = np.linalg.inv(gram + np.diag(7 / 3 * chosen.sum(0) + 2)) @ gram
    recommender = task.recommender()
    newcomer = np.zeros((2, ITEMS), np.float32)
    newcomer[0, 4] = 1  # a history of one item; the other has none
    scores = recommender.fit(sparse.csr_array(newcomer)).score([0, 1], new)
    factor = 1.5 * 10 * (1 / 50) ** -0.5
    np.testing.assert_allclose(scores[0], factor * filled_in[4] @ content, rtol=2e-4, atol=1e-4)
    assert not scores[1].any()
    task.model.save_pretrained(tmp_path / "model")
    loaded = Model.from_pretrained(tmp_path / "model").head("recommendation")
    assert (loaded.completion_dropout, loaded.completion_ridge) == (0.7, 2.0)
    again = Recommender(loaded, vectors, task.items, cooccurrence_counts(task.interactions[:, task.items]))
    np.testing.assert_array_equal(again.fit(sparse.csr_array(newcomer)).score([0, 1], new), scores)
    with pytest.raises(InputError, match="recommender: got no co-occurrence counts"):
        Recommender(loaded, vectors, task.items)


def test_histories_that_training_completes_are_refused_where_pairs_are_hidden() -> None:
    with pytest.raises(InputError, match="completion would see the pairs that a step hides"):
        world(hide="pairs", head={"completion_dropout": 0.7})


def test_hidden_pairs_are_looked_for_and_kept_ones_are_masked() -> None:
    task = world(
        hide="pairs", steps_per_epoch=3, users_per_batch=0, candidate_fraction=1.0, history_fraction=0.5
    )
    matrix = torch.from_numpy(task.interactions.toarray())
    for episode in task.batches(1, torch.Generator().manual_seed(3)):
        assert torch.equal(episode.candidates, episode.known_items)
        assert torch.equal(episode.history + episode.positives, matrix[:, episode.known_items])
        assert not (episode.history * episode.positives).any()
        assert episode.seen is not None
        assert torch.equal(episode.seen, episode.history > 0)


def test_an_epoch_is_drawn_from_its_generator_alone() -> None:
    first, again = (list(world().batches(1, torch.Generator().manual_seed(5))) for _ in range(2))
    for entry, other in zip(first, again, strict=True):
        assert torch.equal(entry.candidates, other.candidates)
        assert torch.equal(entry.history, other.history)


@pytest.mark.parametrize("hide", ["items", "pairs"])
def test_it_learns_to_rank_new_items(hide: str) -> None:
    new = np.arange(31, ITEMS)

    def judge(recommender: Any) -> dict[str, float]:
        scores = recommender.score(np.arange(USERS), new)
        kinds = [scores[:, new % 2 == kind] for kind in (0, 1)]
        right = [
            (
                kinds[group][group::2, :, None] > kinds[1 - group][group::2, None]
            ).mean()  # users who like this kind
            for group in (0, 1)
        ]
        return {"right order": float(np.mean(right))}

    task = world(hide=hide, steps_per_epoch=10, users_per_batch=0, judge=judge, drop_modality=0.0)
    before = task.eval().validate()["right order"]
    history = train(task, LoopConfig(epochs=6, learning_rate=0.005), progress=False)
    assert history.rows[-1]["loss"] < history.rows[0]["loss"]
    assert history.best_score > max(before, 0.9)


def test_the_recommender_scores_as_the_head_does() -> None:
    task = world().eval()
    recommender = task.recommender()
    vectors = item_vectors(task.model, task.inputs, "recommendation")
    head = task.model.head("recommendation")
    with torch.no_grad():
        weights = head.weights(vectors[:31], vectors[31:])
        history = torch.from_numpy(task.interactions.toarray()[[4, 7], :31])
        expected = head.score(history, weights).numpy()
    np.testing.assert_allclose(recommender.score([4, 7], np.arange(31, ITEMS)), expected, rtol=1e-5)
    # A new user is only a new history.
    newcomer = sparse.csr_array(task.interactions.toarray()[[7]])
    scores = recommender.fit(newcomer).score([0], np.arange(31, ITEMS))
    np.testing.assert_allclose(scores[0], expected[1], rtol=1e-5)


def test_learned_ids_are_for_known_items_only() -> None:
    task = world(head={"num_ids": ITEMS}, use_item_embeddings=True).eval()
    with torch.no_grad():
        task.model.head("recommendation").id_embedding.weight.fill_(3.0)
    with_ids = task.recommender().vectors
    content = item_vectors(task.model, task.inputs, "recommendation")
    torch.testing.assert_close(with_ids[:31] - content[:31], torch.full((31, 8), 3.0))
    torch.testing.assert_close(with_ids[31:], content[31:])


def test_shares_that_do_not_fit_and_nothing_to_learn_from() -> None:
    with pytest.raises(InputError, match="got targets 0.5 and history 0.6"):
        world(candidate_fraction=0.5, history_fraction=0.6)
    task = world()
    with pytest.raises(InputError, match="got no interaction to learn from"):
        RecommendationTask(
            task.model,
            task.inputs,
            sparse.csr_array((USERS, ITEMS), dtype=np.float32),
            task.items,
            task.validate_fn,
        )


def test_alignment_batches_hold_each_training_sample_once() -> None:
    task = world()
    samples = torch.tensor([2, 3, 5, 7, 11, 13, 17])
    aligned = AlignmentTask(
        task.model, task.inputs, torch.arange(ITEMS), lambda _: {"x": 0.0}, samples=samples, batch_size=3
    )
    batches = list(aligned.batches(1, torch.Generator().manual_seed(1)))
    assert [len(batch) for batch in batches] == [3, 3]
    drawn = torch.cat(batches).tolist()
    assert len(set(drawn)) == 6
    assert set(drawn) <= set(samples.tolist())


def test_components_of_tokens_are_left_out_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    task = world()
    aligned = AlignmentTask(
        task.model, task.inputs, torch.arange(ITEMS), lambda _: {}, head="recommendation", dropout=0.75
    )
    seen: list[torch.Tensor] = []

    def fuse(parts: dict[str, Tokens], context: object) -> None:
        seen.append(torch.cat([tokens.values.flatten() for tokens in parts.values()]))
        raise InterruptedError

    monkeypatch.setattr(task.model, "fuse", fuse)
    for mode in (True, False):
        with pytest.raises(InterruptedError):
            aligned.train(mode)(torch.arange(ITEMS))
    dropped, whole = seen
    left = dropped != 0
    assert 0.15 < left.double().mean() < 0.35
    torch.testing.assert_close(dropped[left], 4 * whole[left])
    with pytest.raises(InputError, match="alignment task: got dropout 1.0, expected a share from 0"):
        AlignmentTask(task.model, task.inputs, torch.arange(ITEMS), lambda _: {}, dropout=1.0)


def test_batches_grow_with_the_epochs() -> None:
    task = world(users_per_batch={0: 7, 2: 19, 3: 0}, steps_per_epoch=3)
    users = [len(next(iter(task.batches(epoch, torch.Generator()))).history) for epoch in (1, 2, 3, 4)]
    assert users == [7, 7, 19, USERS]
    aligned = AlignmentTask(
        task.model, task.inputs, torch.arange(ITEMS), lambda _: {}, batch_size={0: 5, 1: 11, 2: 0}
    )
    for epoch, sizes in ((1, [5] * 7), (2, [11] * 3), (3, [37])):
        batches = list(aligned.batches(epoch, torch.Generator()))
        assert [len(batch) for batch in batches] == sizes
        assert aligned.num_batches(epoch) == len(sizes)
    assert [task.num_batches(epoch) for epoch in (1, 4)] == [3, 3]
    with pytest.raises(InputError, match="batch sizes: got {1: 5}"):
        world(users_per_batch={1: 5})


def test_items_of_one_modality_only_are_learned_and_recommended_across_modalities() -> None:
    """Every item has a text or a picture, never both, and some have neither."""
    rng = np.random.default_rng(1)
    kind, form = (
        np.arange(ITEMS) // 3 % 2,
        np.arange(ITEMS) % 3,
    )
    form[form == 2] = rng.integers(0, 2, (form == 2).sum())
    form[35] = 2
    likes = (rng.random((USERS, ITEMS)) < 0.4) & (kind[None] == np.arange(USERS)[:, None] % 2)
    torch.manual_seed(0)
    parts = {}
    for code, name in enumerate(("text", "image")):
        values = torch.randn(int((form == code).sum()), 5)
        values[:, code] = torch.from_numpy(kind[form == code] * 4.0 - 2.0).float()
        parts[name] = Tokens.from_lengths(values, torch.from_numpy((form == code).astype(np.int64)), name)
    config = ModelConfig(
        {"text": EncoderConfig("tiny-text", {"dim": 5}), "image": EncoderConfig("tiny-image", {"dim": 5})},
        FusionConfig(dim=8, layers=1, heads=2),
        {"recommendation": HeadConfig("recommendation")},
    )
    model = build_model({"text": TinyText(dim=5), "image": TinyImage(dim=5)}, config)
    model.core.input_projection.calibrate(parts)
    interactions = sparse.csr_array(likes.astype(np.float32))
    known = np.arange(25)
    task = RecommendationTask(
        model,
        ModelInputs(parts),
        interactions,
        known,
        lambda recommender: {},
        steps_per_epoch=8,
        users_per_batch=0,
        drop_modality=0.0,
    )
    train(task, LoopConfig(epochs=12, learning_rate=3e-3), seed=0, progress=False)
    task.eval()
    new = np.setdiff1d(np.arange(25, ITEMS), [35])
    scores = task.recommender().score(np.arange(USERS), new)
    wanted = kind[new][None] == np.arange(USERS)[:, None] % 2
    for code in (0, 1):  # a new text by what was met as pictures too, and the other way round
        assert np.mean(scores[:, form[new] == code][wanted[:, form[new] == code]]) > np.mean(
            scores[:, form[new] == code][~wanted[:, form[new] == code]]
        )
    assert np.isfinite(task.recommender().score([0], [35])).all()
