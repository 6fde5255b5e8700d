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
    pool = AttentionPool(6, num_modalities=2, heads=3, initial_gains=[0.5, 2.0])
    torch.nn.init.normal_(pool.score.weight)
    shares_NH = pool.token_weights(tokens)
    counted_ND = (tokens.values.unflatten(1, (3, 2)) * shares_NH[..., None]).flatten(1)
    expected = torch.stack([part.sum(0) for part in counted_ND.split(tokens.length_list)])
    torch.testing.assert_close(pool(tokens).pooled, expected)


def test_shares_by_hand() -> None:
    """Three words at 1/3 each, times root 3; two patches at 1/2 each, times root 2 and the gain 2."""
    parts = [Tokens.from_sequences([torch.ones(n, 2)], name) for name, n in (("text", 3), ("image", 2))]
    pool = AttentionPool(2, num_modalities=2, heads=1, initial_gains=[1.0, 2.0])
    shares = pool.token_weights(Tokens.cat(parts))[:, 0]
    torch.testing.assert_close(shares, torch.tensor([3**-0.5] * 3 + [2**0.5] * 2))
