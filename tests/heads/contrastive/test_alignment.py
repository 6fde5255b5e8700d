"""The alignment head: views without leaks, unit vectors, and a loss that falls as pairs align."""

from __future__ import annotations

import pytest
import torch

from mmattn import Fused, InputError, Tokens
from mmattn.heads.contrastive.alignment import AlignmentHead, single_modality_views


def fused_of(vectors: torch.Tensor) -> Fused:
    tokens = Tokens.from_lengths(vectors, torch.ones(len(vectors), dtype=torch.int64), "text")
    return Fused(tokens, vectors, vectors[:, None], tokens.presence)


def test_each_view_holds_one_modality_of_one_sample() -> None:
    text = Tokens.from_sequences(
        [torch.full((2, 3), 1.0), torch.zeros(0, 3), torch.full((1, 3), 3.0)], "text"
    )
    image = Tokens.from_sequences([torch.full((5, 7), 10.0), torch.zeros(0, 7), torch.zeros(0, 7)], "image")
    views, sample = single_modality_views({"text": text, "image": image})
    assert sample.tolist() == [0, 0, 2]  # sample 1 has nothing to show
    assert views["text"].length_list == [2, 0, 1]
    assert views["image"].length_list == [0, 5, 0]
    assert views["text"].values[:, 0].tolist() == [1, 1, 3]


def test_vectors_have_length_one() -> None:
    head = AlignmentHead(dim=11, embedding_dim=5)
    torch.testing.assert_close(head(fused_of(torch.randn(7, 11))).norm(dim=1), torch.ones(7))


def test_aligned_pairs_cost_less_than_crossed_ones() -> None:
    head = AlignmentHead(dim=3, embedding_dim=3)
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(3))
        head.project.bias.zero_()
    group = torch.tensor([0, 1, 2, 0, 1, 2])
    aligned = head.loss(fused_of(torch.eye(3).repeat(2, 1)), group)
    crossed = head.loss(fused_of(torch.cat([torch.eye(3), torch.eye(3)[[1, 2, 0]]])), group)
    # Temperature 0.1, by hand: the partner at cosine 1 against four others at 0.
    expected = torch.log(1 + 4 * torch.exp(torch.tensor(-10.0)))
    torch.testing.assert_close(aligned, expected, rtol=1e-3, atol=1e-6)
    assert crossed > 5


def test_a_loss_that_does_not_exist_suggests_the_nearest() -> None:
    with pytest.raises(
        InputError, match="no loss 'NTXentLos' in pytorch-metric-learning. Did you mean 'NTXentLoss'"
    ):
        AlignmentHead(dim=3, loss="NTXentLos")
