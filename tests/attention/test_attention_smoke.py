"""The layer over jagged tokens: every able backend agrees with the reference."""

from __future__ import annotations

import pytest
import torch

from mmattn import attention as A
from mmattn.types import Tokens


def batch(lengths: list[int], dim: int, seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens.from_sequences(
        [torch.randn(length, dim, generator=generator, dtype=torch.float64) for length in lengths], "text"
    )


@pytest.mark.parametrize("mask", [A.full, A.causal, A.window(2), ~A.full])
@pytest.mark.parametrize("lengths", [[5, 0, 3, 1, 11], [7, 7], [0], [13]])
def test_backends_agree_with_reference(mask: object, lengths: list[int]) -> None:
    torch.manual_seed(0)
    tokens = batch(lengths, 6)
    layer = A.Attention(A.Program(mask=mask), dim=6, heads=3).double()
    layer.backend = "reference"
    expected = layer(tokens).values
    layer.backend = "auto"
    able = [name for name in A.backends() if name not in layer.plan(tokens).parts[0].refused]
    for name in able:
        layer.backend = name
        torch.testing.assert_close(layer(tokens).values, expected, rtol=1e-9, atol=1e-12)


def test_a_query_without_keys_gives_zeros_and_zero_gradients() -> None:
    tokens = batch([3], 4)
    tokens = tokens.with_values(tokens.values.requires_grad_())
    layer = A.Attention(A.Program(mask=~A.full), dim=4, heads=2, bias=False).double()
    out = layer(tokens).values
    out.sum().backward()
    assert (out == 0).all()
    assert (tokens.values.grad == 0).all()
