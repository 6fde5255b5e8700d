"""The recommendation head: its score worked out by hand, ridge regression done twice, learned ids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmattn import Fused, InputError, Tokens
from mmattn.heads.recommendation.recommendation import RecommendationHead


def fused_items(vectors: torch.Tensor) -> Fused:
    tokens = Tokens.from_lengths(vectors, torch.ones(len(vectors), dtype=torch.int64), "text")
    return Fused(tokens, vectors, vectors[:, None], tokens.presence)


def set_scalars(head: RecommendationHead, **values: float) -> None:
    with torch.no_grad():
        for name, value in values.items():
            getattr(head, name).fill_(value)


def test_plain_attention_by_hand() -> None:
    head = RecommendationHead(dim=2, dropout=0.0, decorrelate=False)
    set_scalars(head, log_kernel_scale=math.log(0.5), log_score_scale=math.log(0.2), length_exponent=0.5)
    known = torch.tensor([[2.0, 0.0], [0.0, 4.0]])
    candidate = torch.tensor([[1.0, 1.0]])
    # exp(0.5 * 2) and exp(0.5 * 4); scale 0.2 * 10 = 2; a history of n is divided by sqrt(n / 50).
    both = 2 * (math.e + math.e**2) / math.sqrt(2 / 50)
    first = 2 * math.e / math.sqrt(1 / 50)
    history = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    scores = head.score(history, head.weights(known, candidate))
    torch.testing.assert_close(scores[:, 0], torch.tensor([both, first, 0.0]))


def test_decorrelated_attention_is_kernel_ridge_regression() -> None:
    torch.manual_seed(0)
    head = RecommendationHead(dim=11, dropout=0.0)
    set_scalars(head, log_regularization=math.log(1.7))
    known, candidates = torch.randn(7, 11) / 3, torch.randn(5, 11) / 3
    kernel = np.exp(0.5 * (known @ known.T).double().numpy()) + 1.7 * np.eye(7)
    expected = np.linalg.inv(kernel) @ np.exp(0.5 * (known @ candidates.T).double().numpy())
    weights = head.weights(known, candidates)
    np.testing.assert_allclose(weights.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_known_candidate_is_judged_as_if_it_were_new() -> None:
    torch.manual_seed(1)
    head = RecommendationHead(dim=11, dropout=0.0)
    known, new = torch.randn(7, 11) / 3, torch.randn(1, 11) / 3
    mixed = head.weights(known, torch.cat([new, known[[4]]]), known_rows=torch.tensor([-1, 4]))
    torch.testing.assert_close(mixed[:, :1], head.weights(known, new))
    others = [0, 1, 2, 3, 5, 6]
    torch.testing.assert_close(
        mixed[others, 1:], head.weights(known[others], known[[4]]), rtol=1e-4, atol=1e-5
    )
    assert mixed[4, 1] == 0


def test_two_alike_items_say_together_what_one_says() -> None:
    head = RecommendationHead(dim=2, dropout=0.0)
    set_scalars(head, log_regularization=math.log(1e-3))
    entry, candidate = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.8, 0.2]])
    alone = head.weights(entry, candidate).sum()
    twice = head.weights(entry.repeat(2, 1), candidate).sum()
    torch.testing.assert_close(twice, alone, rtol=1e-2, atol=1e-2)
    plain = RecommendationHead(dim=2, dropout=0.0, decorrelate=False)
    torch.testing.assert_close(
        plain.weights(entry.repeat(2, 1), candidate).sum(), 2 * plain.weights(entry, candidate).sum()
    )


def test_completed_histories_speak_through_the_items_that_go_with_them() -> None:
    head = RecommendationHead(
        dim=2, dropout=0.0, decorrelate=False, completion_dropout=0.5, completion_ridge=1.0
    )
    set_scalars(head, log_kernel_scale=0.0, log_score_scale=math.log(0.1), length_exponent=0.0)
    known, candidate = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    together = torch.tensor([[3.0, 3.0], [3.0, 3.0]])  # the same three users met both
    # Each item becomes 3/10 of both (see `completed`), which say e^2 and 1 of the candidate.
    scores = head.score(torch.eye(2), head.weights(known, candidate, cooccurrence=together))
    torch.testing.assert_close(scores, torch.full((2, 1), 0.3 * (math.e**2 + 1)))
    plain = head.score(torch.eye(2), head.weights(known, candidate))
    torch.testing.assert_close(plain, torch.tensor([[math.e**2], [1.0]]))


def test_the_loss_completes_histories_by_the_known_items() -> None:
    torch.manual_seed(3)
    head = RecommendationHead(dim=3, dropout=0.0, completion_dropout=0.7)
    fused, history = fused_items(torch.randn(5, 3)), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    positives, together = torch.eye(2, 3), torch.tensor([[7.0, 2.0], [2.0, 5.0]])
    items = head(fused)
    scores = head.score(history, head.weights(items[3:], items[:3], cooccurrence=together))
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1]))
    torch.testing.assert_close(head.loss(fused, history, positives, cooccurrence=together), expected)


def test_what_the_scalars_start_at() -> None:
    head = RecommendationHead(dim=3, kernel_scale=0.4, regularization=0.7)
    assert head.log_kernel_scale.exp().item() == pytest.approx(0.4)
    assert head.log_regularization.exp().item() == pytest.approx(0.7)


def test_loss_by_hand() -> None:
    head = RecommendationHead(dim=2, dropout=0.0)
    fused = fused_items(torch.zeros(5, 2))  # all items alike: each of 3 candidates has probability 1/3
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
    entry, other = (
        head.loss(fused, history, positives * torch.tensor([[first], [1 - first]])) for first in (1.0, 0.0)
    )
    # Weights per positive are n^-1/2: user one counts 4 * 1/2 = 2, user two 1.
    torch.testing.assert_close(head.loss(fused, history, positives), (2 * entry + other) / 3)


def test_learned_ids_are_added_to_warm_items_and_dropped_in_training() -> None:
    head = RecommendationHead(dim=3, dropout=0.0, num_ids=5, id_dropout=1.0)
    fused = fused_items(torch.randn(2, 3))
    assert head.id_embedding is not None
    content = head(fused)
    with torch.no_grad():
        head.id_embedding.weight.fill_(7.0)
    numbers = torch.tensor([4, -1])
    assert torch.equal(head(fused, numbers), content)  # training: every id is dropped
    moved = head.eval()(fused, numbers) - content
    torch.testing.assert_close(moved, torch.tensor([[7.0, 7.0, 7.0], [0.0, 0.0, 0.0]]))


def test_a_history_over_other_items_is_refused() -> None:
    head = RecommendationHead(dim=3)
    with pytest.raises(InputError, match="history: got 4 items, expected 2"):
        head.score(torch.zeros(1, 4), head.weights(torch.randn(2, 3), torch.randn(5, 3)))


@pytest.mark.parametrize(
    ("length", "message"), [(100.0, "it is not finite"), (6.5, r"it reaches \d\.\d+e\+")]
)
def test_vectors_that_training_drove_too_far_are_said_to_be(length: float, message: str) -> None:
    torch.manual_seed(0)
    known = length * F.normalize(torch.randn(2, 5)).repeat(20, 1)  # each item twenty times
    head = RecommendationHead(5)
    assert head.weights(known / length, known[:3] / length).isfinite().all()
    with pytest.raises(InputError, match=f"cannot be inverted: {message}.*a lower learning rate"):
        head.weights(known, known[:3])
