"""What the pool says of itself is what it does."""

from __future__ import annotations

import torch

from mmattn.fusion.pool import AttentionPool
from mmattn.types import Tokens


def test_shares_make_the_joint_vector() -> None:
    torch.manual_seed(0)
    parts = [
        Tokens.from_lengths(torch.randn(sum(sizes), 6), torch.tensor(sizes), name)
        for name, sizes in (("text", [3, 0, 5]), ("image", [2, 0, 0]))
    ]
    tokens = Tokens.cat(parts)
    pool = AttentionPool(6, modalities=2, heads=3, gains=[0.5, 2.0])
    torch.nn.init.normal_(pool.score.weight)
    shares_NH = pool.shares(tokens)
    counted_ND = (tokens.values.unflatten(1, (3, 2)) * shares_NH[..., None]).flatten(1)
    expected = torch.stack([part.sum(0) for part in counted_ND.split(tokens.sizes)])
    torch.testing.assert_close(pool(tokens).pooled, expected)


def test_shares_by_hand() -> None:
    """Equal weights within a modality: 1/3 each of three words, times root 3; 1/2 of two patches, times root 2
    and the gain 2."""
    tokens = Tokens.cat(
        [Tokens.from_sequences([torch.ones(n, 2)], m) for m, n in (("text", 3), ("image", 2))]
    )
    shares = AttentionPool(2, modalities=2, heads=1, gains=[1.0, 2.0]).shares(tokens)[:, 0]
    torch.testing.assert_close(shares, torch.tensor([3**-0.5] * 3 + [2**0.5] * 2))
