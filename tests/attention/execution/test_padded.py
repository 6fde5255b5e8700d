"""Programs over padded tokens: word for word what the reference gives over jagged ones."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.attention.execution.padded import PaddedTokens, attend_padded
from mmattn.attention.language.biases import BoxBias, GraphBias
from mmattn.attention.testing.random_programs import random_batch, random_context, random_program


@given(st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_any_program_gives_what_the_reference_gives(seed: int) -> None:
    rng = random.Random(seed)
    program = random_program(rng)
    assume(not any(isinstance(term, GraphBias) for term in program.walk()))
    q, kv = random_batch(rng, program, dim=20)
    context = random_context(program, q, kv, rng)
    context.pop("presence", None)
    torch.manual_seed(seed)
    layer = A.Attention(program, dim=20, heads=4, backend="reference").double().eval()
    with torch.no_grad():
        for parameter in layer.program_parameters().values():
            parameter.add_(0.5 * torch.randn_like(parameter))
    expected = layer(q, kv, context)
    padded = _with_padding(PaddedTokens.from_tokens(q))
    keys = None if kv is q else _with_padding(PaddedTokens.from_tokens(kv))
    for term in program.walk():
        if isinstance(term, BoxBias):
            context[term.name] = tuple(
                _boxes(boxes, tokens, side)
                for boxes, tokens, side in zip(
                    context[term.name], (q, kv), (padded, keys or padded), strict=True
                )
            )
    actual = attend_padded(layer, padded, keys, context)
    torch.testing.assert_close(actual[padded.mask], expected.values, atol=1e-9, rtol=1e-9)


def _with_padding(padded: PaddedTokens) -> PaddedTokens:
    """With two more places than there have to be: norms expect at least one."""
    pad = torch.nn.functional.pad
    return PaddedTokens(
        pad(padded.values, (0, 0, 0, 2), value=3.0),
        pad(padded.mask, (0, 2)),
        pad(padded.modality, (0, 2)),
        pad(padded.position, (0, 2), value=1),
        padded.modalities,
        None if padded.time is None else pad(padded.time, (0, 2), value=5.0),
    )


def _boxes(boxes: torch.Tensor, tokens: Tokens, side: PaddedTokens) -> torch.Tensor:
    return tokens.with_values(boxes).to_padded(side.mask.shape[1], padding_value=float("nan"))[0]


def test_a_word_that_needs_the_entities_is_named() -> None:
    layer = A.Attention(A.Program(A.dot() >> A.graph_bias("kg", relations=3)), dim=8, heads=2)
    tokens = PaddedTokens.from_tokens(Tokens.from_sequences([torch.randn(3, 8)], "text"))
    with pytest.raises(InputError, match=r'graph_bias\("kg", relations=3\) cannot run over padded tokens'):
        attend_padded(layer, tokens)
