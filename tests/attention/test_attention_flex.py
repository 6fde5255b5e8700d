"""FlexAttention: refused on the CPU with the reason; its block masks against single pairs; parity."""

from __future__ import annotations

import random

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.backends import flex
from mmattn.attention.backends.base import Conditions
from mmattn.attention.backends.flex import _blocks, _ordered, _round
from mmattn.attention.call import Call
from mmattn.attention.draw import context_for, draw_mask, draw_tokens
from mmattn.attention.flexpairs import capture, flex_pairs
from mmattn.attention.layout import Layout
from mmattn.attention.plan import find
from mmattn.errors import InputError
from mmattn.types import Tokens

ON_CUDA = Conditions("cuda", torch.float32, heads=2, width=16)

PROGRAMS = [
    A.Program(
        score=A.dot()
        >> A.modality_bias("pair")
        >> A.relative("r", 8, 20)
        >> A.softcap(A.learned("cap", 9.0)),
        mask=A.route({"text": ["text", "image"], "*": ["*"]}) & (A.window(4) | A.global_tokens("audio")),
    ),
    A.Program(
        score=A.cosine >> A.alibi >> A.time_bias("t", 6) >> A.box_bias("b") >> A.temperature(A.dynamic("u")),
        mask=A.where("image", A.blocks(3), A.causal) | A.dilated(12, 5),
    ),
]


def test_on_the_cpu_the_plan_says_why_not() -> None:
    layer = A.Attention(A.Program(mask=A.window(2)), dim=32, heads=2)
    tokens = Tokens.from_sequences([torch.randn(5, 32)], "text")
    assert "parity target" in layer.plan(tokens).parts[0].refused["flex"]
    assert "needs CUDA, these tokens are on cpu" in layer.plan(tokens).parts[0].refused["varlen"]
    layer.backend = "flex"
    with pytest.raises(InputError, match="'flex' cannot run this: FlexAttention on the CPU"):
        layer(tokens)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (A.Program(norm=A.sparsemax), "FlexAttention has no norm sparsemax"),
        (A.Program(score=A.additive(3)), "FlexAttention has no score additive(3)"),
        (A.Program(score=A.dot() >> A.graph_bias("kg")), 'graph_bias("kg") adds up sparse edges'),
    ],
)
def test_programs_that_it_cannot_run(program: A.Program, why: str) -> None:
    tokens = Tokens.from_sequences([torch.randn(5, 32)], "text")
    layout = Layout.of(tokens, tokens)
    assert str(find("flex").refuses(program, layout, ON_CUDA)).startswith(why)
    assert find("flex").refuses(A.Program(), layout, ON_CUDA) is None
    narrow = Conditions("cuda", torch.float32, heads=2, width=8)
    assert "heads of width 16 or more" in str(find("flex").refuses(A.Program(), layout, narrow))


def test_past_its_budget_it_refuses_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens.from_sequences([torch.randn(5, 32)], "text")
    layout = Layout.of(tokens, tokens)
    backend = flex.Flex()
    flex._say_once.cache_clear()
    monkeypatch.setattr(flex, "BUDGET", 1)
    backend.kernels.add(backend._kernel(A.Program(), layout, ON_CUDA))
    assert backend.refuses(A.Program(), layout, ON_CUDA) is None  # this one is compiled
    with pytest.warns(UserWarning, match="has compiled 1 kernels and takes no new program or length"):
        assert "budget of 1 compiled kernels is spent" in str(
            backend.refuses(A.Program(mask=A.causal), layout, ON_CUDA)
        )
    assert backend.refuses(A.Program(mask=A.causal), layout, ON_CUDA)  # and warns no second time


def test_lengths_are_rounded_to_few_values() -> None:
    assert [_round(n) for n in (0, 1, 128, 129, 1024, 1025, 1300, 40_000)] == [
        128,
        128,
        128,
        256,
        1024,
        1280,
        1536,
        40960,
    ]
    assert len({_round(n) for n in range(1, 200_000)}) < 45
    assert all(n <= _round(n) <= 1.25 * n + 128 for n in range(1, 5000))


@pytest.mark.parametrize("seed", range(40))
def test_block_masks_hold_every_allowed_pair(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "_BLOCK", 8)
    rng = random.Random(seed)
    q = draw_tokens(rng, 5, 4)
    kv = q if seed % 2 else draw_tokens(rng, 5, 4)
    layout, mask = Layout.of(q, kv), draw_mask(rng)
    if not layout.pairs:
        pytest.skip("the drawn batch has no pairs")
    call = Call(A.Program(mask=mask), q.values[:, None], kv.values[:, None], kv.values[:, None], layout)
    captured = capture(call, len(q.values), len(kv.values))
    query, key = torch.meshgrid(torch.arange(len(q.values)), torch.arange(len(kv.values)), indexing="ij")
    seen = mask.allow(flex_pairs(captured, torch.tensor(0), query, key))
    seen = seen.expand_as(query) & (q.sample[:, None] == kv.sample[None])
    blocks = _blocks(layout, mask)
    for i, rows in enumerate(seen.split(8)):
        for j, block in enumerate(rows.split(8, dim=1)):
            assert bool(blocks.partial[i, j] | blocks.full[i, j]) or not block.any()
            assert not bool(blocks.full[i, j]) or (bool(block.all()) and block.shape == (8, 8))
    # And the pairs that FlexAttention would look at are those of the reference.
    for sample in range(5):
        rows, columns = (
            slice(side.starts[sample], side.starts[sample + 1]) for side in (layout.query, layout.key)
        )
        expected = mask.allow(call.sample_pairs(sample)).expand(
            rows.stop - rows.start, columns.stop - columns.start
        )
        assert torch.equal(seen[rows, columns], expected)


def test_block_indices_put_the_marked_blocks_first() -> None:
    number, index = _ordered(torch.tensor([[False, True, True], [False, False, True]]), (3, 3))
    assert number.tolist() == [[[2, 1, 0]]]
    assert index[0, 0, 0].tolist() == [1, 2, 0]
    assert index[0, 0, 1].tolist() == [2, 0, 1]


def layer_for(program: A.Program, dtype: torch.dtype, device: str) -> A.Attention:
    torch.manual_seed(0)
    layer = A.Attention(program, dim=64, heads=4).to(device, dtype).eval()
    for parameter in layer.program_parameters().values():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return layer


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=["route", "geometry"])
def test_parity_on_the_cpu_forward(program: A.Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex.Flex, "allow_cpu", True)
    rng = random.Random(3)
    q = draw_tokens(rng, 5, 64).to(dtype=torch.float32)
    layer, context = layer_for(program, torch.float32, "cpu"), context_for(program, q, q, rng)
    with torch.no_grad():
        layer.backend = "reference"
        expected = layer(q, context=context).values
        layer.backend = "flex"
        torch.testing.assert_close(layer(q, context=context).values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("program", PROGRAMS, ids=["route", "geometry"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parity_on_a_gpu_with_gradients(program: A.Program, dtype: torch.dtype) -> None:
    A.check(program, heads=4, width=16, dtypes=[dtype], device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("mask", [A.full, A.causal])
def test_varlen_on_a_gpu(mask: A.Mask) -> None:
    tokens = Tokens.from_lengths(torch.randn(171, 64), torch.tensor([101, 1, 7, 62]), "text").to(
        "cuda", torch.bfloat16
    )
    layer = A.Attention(A.Program(mask=mask), dim=64, heads=4).to("cuda", torch.bfloat16)
    assert "varlen" in layer.plan(tokens).parts[0].estimates
    layer.backend = "varlen"
    got = layer(tokens).values
    layer.backend = "reference"
    torch.testing.assert_close(got, layer(tokens).values, rtol=0.05, atol=0.05)
