"""The speaker head: pooling by hand, losses by name, voices told apart, absence."""

from __future__ import annotations

import pytest
import torch

from mmattn.errors import InputError
from mmattn.heads.speech.speaker import AttentiveStatisticsPooling, SpeakerHead
from mmattn.testing.plugin_checks import check_head
from mmattn.types import Fused, Tokens


def fused(lengths: list[int], dim: int = 7, seed: int = 0) -> Fused:
    generator = torch.Generator().manual_seed(seed)
    tokens = Tokens.from_lengths(
        torch.randn(sum(lengths), dim, generator=generator), torch.tensor(lengths), "audio"
    )
    count = len(lengths)
    return Fused(tokens, torch.zeros(count, dim), torch.zeros(count, 1, dim), tokens.presence)


def test_the_contract() -> None:
    check_head("speaker")


def test_statistics_by_hand_with_weights_that_prefer_a_token() -> None:
    pool = AttentiveStatisticsPooling(1, hidden_dim=1)
    with torch.no_grad():
        pool.score[0].weight.fill_(100.0)  # tanh says -1 or 1
        pool.score[0].bias.zero_()
        pool.score[2].weight.fill_(0.5 * float(torch.log(torch.tensor(3.0))))
    tokens = Tokens.from_sequences([torch.tensor([[-1.0], [3.0]]), torch.tensor([[5.0]])], "audio")
    # Weights 1/4 and 3/4: mean 2, variance 1/4 * 9 + 3/4 * 1 = 3.
    expected = torch.tensor([[2.0, 3.0**0.5], [5.0, 0.0]])
    torch.testing.assert_close(pool(tokens), expected, atol=1e-5, rtol=0)


def test_a_lone_token_has_finite_gradients() -> None:
    head = SpeakerHead(7, ["ann", "bob"], embedding_dim=5)
    head.loss(fused([1, 1, 3, 2]), ["ann", "bob", "ann", "bob"]).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.pool.parameters())


def test_vectors_have_length_one_and_what_is_absent_has_none() -> None:
    head = SpeakerHead(7, ["ann", "bob"], embedding_dim=5).eval()
    given = fused([3, 0, 2])
    torch.testing.assert_close(head(given).norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))
    actual = head.predict(given)
    assert actual[1] is None
    assert actual[0] is not None
    assert actual[0].shape == (5,)
    assert not actual[0].requires_grad


def test_samples_without_sound_or_speaker_take_no_part() -> None:
    torch.manual_seed(0)
    head = SpeakerHead(7, ["ann", "bob"], embedding_dim=5)
    lengths = [3, 2, 4, 3]
    alone = head.loss(fused(lengths), ["ann", "bob", "ann", "bob"])
    more = fused([*lengths, 0, 5])
    more.tokens.values[:12] = fused(lengths).tokens.values
    torch.testing.assert_close(head.loss(more, ["ann", "bob", "ann", "bob", "ann", None]), alone)
    nothing = head.loss(fused([0, 0]), ["ann", "bob"])
    nothing.backward()
    assert nothing.item() == 0


@pytest.mark.parametrize(
    "loss",
    ["SupConLoss", "ArcFaceLoss", {"name": "TripletMarginLoss", "options": {"margin": 0.2}}],
    ids=["pairs", "classes", "triplets"],
)
def test_it_learns_to_tell_voices_apart(loss: object) -> None:
    torch.manual_seed(1)
    voices = torch.randn(2, 7)
    names = ["ann", "bob"] * 11
    values = torch.cat([voices[number % 2] + 1.5 * torch.randn(3, 7) for number in range(22)])
    tokens = Tokens.from_lengths(values, torch.full((22,), 3), "audio")
    given = Fused(tokens, torch.zeros(22, 7), torch.zeros(22, 1, 7), tokens.presence)
    head = SpeakerHead(7, ["ann", "bob"], embedding_dim=5, loss=loss)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        head.loss(given, names).backward()
        optimizer.step()
    vectors = head(given)
    likeness = vectors @ vectors.T
    same = torch.tensor([[name == other for other in names] for name in names])
    assert likeness[same].mean() > 0.8 > 0.5 > likeness[~same].mean()


def test_refused() -> None:
    head = SpeakerHead(7, ["ann", "bob"])
    with pytest.raises(InputError, match=r"speaker head: no speaker 'anne'.*'ann'"):
        head.loss(fused([1, 2]), ["anne", "bob"])
    with pytest.raises(InputError, match="got 1 targets, expected 2"):
        head.loss(fused([1, 2]), ["ann"])
    with pytest.raises(InputError, match=r"no loss 'ArcFace'.*'ArcFaceLoss'"):
        SpeakerHead(7, ["ann"], loss="ArcFace")
    with pytest.raises(InputError, match="at least one speaker"):
        SpeakerHead(7, [])
