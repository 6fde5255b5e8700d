"""The recommendation head: its score worked out by hand, histories of any length, learned ids."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import Fused, InputError, Tokens
from mmattn.heads.recommendation import RecommendationHead


def fused_items(vectors: torch.Tensor) -> Fused:
    tokens = Tokens.from_lengths(vectors, torch.ones(len(vectors), dtype=torch.int64), "text")
    return Fused(tokens, vectors, vectors[:, None], tokens.presence)


def test_score_by_hand() -> None:
    head = RecommendationHead(dim=2, attention_dim=2, dropout=0.0)
    with torch.no_grad():
        for projection in (head.value, head.target, head.key, head.query):
            projection.weight.copy_(torch.eye(2))
        head.appeal.weight.copy_(torch.tensor([[0.0, 0.1]]))
        head.appeal.bias.fill_(0.5)
        head.temperature.fill_(math.log(2.0))
        head.sharpness.fill_(math.log(1.5))
        head.smoothing.fill_(0.5)
    known = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    candidate = torch.tensor([[1.0, 1.0]])
    # Both known items are at 45 degrees to the candidate: cosine 1 / sqrt 2, weight exp(1.5 / sqrt 2).
    weight = math.exp(1.5 / math.sqrt(2))
    both = 2.0 * (weight * 3 + weight * 2) / math.sqrt(2) / math.sqrt(2) + 0.5 + 0.1
    first = 2.0 * (weight * 3) / math.sqrt(2) / 1 + 0.6
    scores = head.score(torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), known, candidate)
    torch.testing.assert_close(scores[:, 0], torch.tensor([both, first, 0.6]))


def test_score_is_attention_over_the_history_one_user_at_a_time() -> None:
    torch.manual_seed(0)
    head = RecommendationHead(dim=11, attention_dim=3, dropout=0.0)
    known, candidates = torch.randn(7, 11), torch.randn(5, 11)
    history = (torch.rand(13, 7) < 0.4).float()
    scores = head.score(history, known, candidates)
    for user in range(13):
        met = known[history[user] > 0]
        for place, candidate in enumerate(candidates):
            key = head.key(met) / head.key(met).norm(dim=1, keepdim=True)
            query = head.query(candidate) / head.query(candidate).norm()
            attention = (head.sharpness.exp() * key @ query).exp()
            says = head.value(met) @ head.target(candidate) / math.sqrt(11)
            heard = (attention * says).sum() / max(len(met), 1) ** head.smoothing
            expected = head.temperature.exp() * heard + head.appeal(candidate)[0]
            torch.testing.assert_close(scores[user, place], expected, rtol=1e-4, atol=1e-5)


def test_loss_by_hand() -> None:
    head = RecommendationHead(dim=2, dropout=0.0)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)  # all scores are 0: each of 3 candidates has probability 1/3
    fused = fused_items(torch.randn(5, 2))
    history = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    positives = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert head.loss(fused, history, positives).item() == pytest.approx(math.log(3))
    seen = torch.tensor([[False, True, False], [False, False, False]])
    assert head.loss(fused, history, positives, seen=seen).item() == pytest.approx(math.log(2))


def test_a_user_with_many_positives_weighs_less_than_their_number() -> None:
    torch.manual_seed(1)
    head = RecommendationHead(dim=3, dropout=0.0)
    fused, history = fused_items(torch.randn(7, 3)), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    positives = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    one, other = (
        head.loss(fused, history, positives * torch.tensor([[first], [1 - first]])) for first in (1.0, 0.0)
    )
    # Weights per positive are n^-1/2: user one counts 4 * 1/2 = 2, user two 1.
    torch.testing.assert_close(head.loss(fused, history, positives), (2 * one + other) / 3)


def test_learned_ids_are_added_to_warm_items_and_dropped_in_training() -> None:
    head = RecommendationHead(dim=3, dropout=0.0, ids=5, id_dropout=1.0)
    fused = fused_items(torch.randn(2, 3))
    assert head.ids is not None
    content = head(fused)
    with torch.no_grad():
        head.ids.weight.fill_(7.0)
    numbers = torch.tensor([4, -1])
    assert torch.equal(head(fused, numbers), content)  # training: every id is dropped
    moved = head.eval()(fused, numbers) - content
    torch.testing.assert_close(moved, torch.tensor([[7.0, 7.0, 7.0], [0.0, 0.0, 0.0]]))


def test_a_history_over_other_items_is_refused() -> None:
    head = RecommendationHead(dim=3)
    with pytest.raises(InputError, match="history: got 4 items, expected 2"):
        head.score(torch.zeros(1, 4), torch.randn(2, 3), torch.randn(5, 3))
