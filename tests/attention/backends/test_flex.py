"""FlexAttention: refused on the CPU with the reason; its block masks against single pairs; parity."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention as torch_flex

from mmattn import attention as A
from mmattn.attention.backends import flex
from mmattn.attention.backends.base import Conditions
from mmattn.attention.backends.flex import FlexKernelLimitWarning, _block_indices, _block_sparsity, _round_up
from mmattn.attention.backends.flex_edges import build_edge_table
from mmattn.attention.backends.flex_pairs import capture_tensors, flex_pairs
from mmattn.attention.backends.selection import get_backend
from mmattn.attention.execution.attention_call import AttentionCall
from mmattn.attention.execution.context_tensors import ContextTensors, build_context_tensors
from mmattn.attention.execution.layout import Layout
from mmattn.attention.testing.random_programs import RELATIONS, random_context, random_mask, random_tokens
from mmattn.errors import InputError
from mmattn.types import Tokens

ON_CUDA = Conditions("cuda", torch.float32, heads=2, width=16)

odd_apart = A.register_mask("odd_apart", lambda pairs: (pairs.query.position - pairs.key.position) % 2 == 1)

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
    A.Program(
        score=A.bilinear("w", A.learned("s", 0.3)) >> A.graph_bias("kg", RELATIONS) >> A.head_gate("g"),
        mask=A.present,
        norm=A.softmax("sink"),
    ),
]
NAMES = ["route", "geometry", "graph and sink"]


def one_sentence() -> Layout:
    tokens = Tokens.from_sequences([torch.randn(5, 32)], "text")
    return Layout.from_tokens(tokens, tokens)


def refusal(program: A.Program, layout: Layout, conditions: Conditions) -> str | None:
    return get_backend("flex").unsupported_reason(program, layout, conditions, ContextTensors())


@pytest.fixture
def dense_flex(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """FlexAttention on the CPU, traced for real and then run dense: what programs mean in it, no kernel.

    The counter says how often PyTorch would have compiled a kernel.
    """
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(flex._attend, backend=counter, dynamic=False, fullgraph=True)
    flex._compiled()  # raises PyTorch's own limits
    monkeypatch.setattr(flex, "_compiled", lambda: compiled)
    monkeypatch.setattr(flex.FlexAttention, "allow_cpu", True)
    monkeypatch.setattr(get_backend("flex"), "kernels", set())
    yield counter
    torch._dynamo.reset()


def test_on_the_cpu_the_plan_says_why_not() -> None:
    layer = A.Attention(A.Program(mask=A.window(2)), dim=32, heads=2)
    tokens = Tokens.from_sequences([torch.randn(5, 32)], "text")
    assert "parity target" in layer.plan(tokens).parts[0].unsupported["flex"]
    assert "needs CUDA, these tokens are on cpu" in layer.plan(tokens).parts[0].unsupported["varlen"]
    layer.backend = "flex"
    with pytest.raises(InputError, match="'flex' cannot run this: FlexAttention on the CPU"):
        layer(tokens)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (A.Program(norm=A.sparsemax), "FlexAttention has no norm sparsemax"),
        (A.Program(score=A.additive(3)), "FlexAttention has no score additive(3)"),
        (A.Program(mask=odd_apart), "odd_apart is an extension, which nobody promised to be traceable"),
    ],
)
def test_programs_that_it_cannot_run(program: A.Program, why: str) -> None:
    layout = one_sentence()
    assert str(refusal(program, layout, ON_CUDA)).startswith(why)
    assert refusal(A.Program(), layout, ON_CUDA) is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"device": "cpu"}, "FlexAttention on the CPU is a parity target for tests only"),
        ({"dtype": torch.float64}, "FlexAttention does not compute in float64"),
        ({"dropout": True}, "FlexAttention drops no weights: they exist inside of its kernel only"),
    ],
)
def test_conditions_that_it_cannot_run_under(changed: dict[str, Any], why: str) -> None:
    assert str(refusal(A.Program(), one_sentence(), ON_CUDA._replace(**changed))).startswith(why)


def test_without_pairs_there_is_nothing_to_compile() -> None:
    nobody = Tokens.empty(2, 32, ["text"])
    assert refusal(A.Program(), Layout.from_tokens(nobody, nobody), ON_CUDA) == "there are no pairs to score"


# --- the budget of kernels ---------------------------------------------------------------------------


def test_past_its_budget_it_refuses_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, backend = one_sentence(), flex.FlexAttention()
    flex._warn_once.cache_clear()
    monkeypatch.setattr(flex, "MAX_KERNELS", 1)
    backend.kernels.add(backend._kernel_key(A.Program(), layout, ON_CUDA, ContextTensors()))
    assert (
        backend.unsupported_reason(A.Program(), layout, ON_CUDA, ContextTensors()) is None
    )  # this one is compiled
    other = A.Program(mask=A.causal)
    with pytest.warns(
        FlexKernelLimitWarning, match="has compiled 1 kernels and takes no new program or length"
    ):
        assert "budget of 1 compiled kernels is spent" in str(
            backend.unsupported_reason(other, layout, ON_CUDA, ContextTensors())
        )
    assert backend.unsupported_reason(other, layout, ON_CUDA, ContextTensors())  # and warns no second time


def test_past_its_budget_the_layer_takes_another_backend_or_raises(dense_flex: CompileCounter) -> None:
    """With `auto` the named alternative runs, with `flex` nothing does; dense flex never does."""
    layers = [attention(A.Program(mask=A.window(n)), backend="flex") for n in (1, 2, 3)]
    tokens = Tokens.from_sequences([torch.randn(5, 64), torch.randn(0, 64)], "text")
    flex._warn_once.cache_clear()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(flex, "MAX_KERNELS", 2)
        first = [layer(tokens).values for layer in layers[:2]]
        assert dense_flex.frame_count == 2
        with (
            pytest.warns(FlexKernelLimitWarning),
            pytest.raises(
                InputError, match="'flex' cannot run this: its budget of 2 .* able: .*blocks, eager"
            ),
        ):
            layers[2](tokens)
        layers[2].backend = "auto"
        assert layers[2].plan(tokens).backend == "blocks"
        assert "is spent" in layers[2].plan(tokens).parts[0].unsupported["flex"]
        layers[2](tokens)
        # What was compiled goes on running, compiled.
        for layer, expected in zip(layers[:2], first, strict=True):
            torch.testing.assert_close(layer(tokens).values, expected)
        assert dense_flex.frame_count == 2


def test_pytorch_never_falls_back_to_dense_by_itself(dense_flex: CompileCounter) -> None:
    """Our budget is below PyTorch's limits; and past those a whole graph raises instead of running dense."""
    flex._compiled()
    assert torch._dynamo.config.recompile_limit >= 2 * flex.MAX_KERNELS
    assert torch._dynamo.config.accumulated_recompile_limit >= 4 * flex.MAX_KERNELS
    tokens = Tokens.from_sequences([torch.randn(5, 64)], "text")
    with torch.no_grad(), torch._dynamo.config.patch(recompile_limit=1):
        attention(A.Program(mask=A.window(1)), backend="flex")(tokens)
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            attention(A.Program(mask=A.window(2)), backend="flex")(tokens)


def test_one_kernel_serves_many_batches(dense_flex: CompileCounter) -> None:
    """Other values, lengths, numbers of samples, edges and closures in the same rounded lengths."""
    score = (
        A.dot() >> A.graph_bias("kg", RELATIONS) >> A.softcap(A.dynamic("cap", start=4.0)) >> A.relative("r")
    )
    layer = attention(A.Program(score, A.window(3) & A.present, A.softmax("sink")), backend="flex")
    for seed, lengths in enumerate(([17, 5, 1], [7, 30, 0, 11], [2, 3, 19])):
        generator = torch.Generator().manual_seed(seed)
        tokens = Tokens.from_lengths(
            torch.randn(sum(lengths), 64, generator=generator),
            torch.tensor(lengths),
            "text",
            entity=torch.randint(0, 5, (sum(lengths),), generator=generator),
        )
        pairs = torch.tensor([[0, 1, 2, 0, 3], [1, 2, 0, 1, 3], [0, 1, 2, 0, seed % 3]])
        presence = torch.ones(len(lengths), 1, dtype=torch.bool)
        with torch.no_grad():
            layer(tokens, context={"kg": pairs, "presence": presence})
        # PyTorch compiles exactly as often as the budget counts.
        assert dense_flex.frame_count == len(get_backend("flex").kernels)  # type: ignore[attr-defined]


def test_lengths_are_rounded_to_few_values() -> None:
    assert [_round_up(n) for n in (0, 1, 128, 129, 1024, 1025, 1300, 40_000)] == [
        128,
        128,
        128,
        256,
        1024,
        1280,
        1536,
        40960,
    ]
    assert len({_round_up(n) for n in range(1, 200_000)}) < 45
    assert all(n <= _round_up(n) <= 1.25 * n + 128 for n in range(1, 5000))


@pytest.mark.parametrize("seed", range(40))
def test_block_masks_hold_every_allowed_pair(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "_BLOCK", 8)
    rng = random.Random(seed)
    q = random_tokens(rng, 5, 4)
    kv = q if seed % 2 else random_tokens(rng, 5, 4)
    layout, mask = Layout.from_tokens(q, kv), random_mask(rng)
    if not layout.num_pairs:
        pytest.skip("the drawn batch has no pairs")
    call = AttentionCall(
        A.Program(mask=mask), q.values[:, None], kv.values[:, None], kv.values[:, None], layout
    )
    captured = capture_tensors(call, len(q.values), len(kv.values))
    query, key = torch.meshgrid(torch.arange(len(q.values)), torch.arange(len(kv.values)), indexing="ij")
    seen = mask.allow(flex_pairs(captured, torch.tensor(0), query, key))
    seen = seen.expand_as(query) & (q.sample[:, None] == kv.sample[None])
    blocks = _block_sparsity(layout, mask)
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
    number, index = _block_indices(torch.tensor([[False, True, True], [False, False, True]]), (3, 3))
    assert number.tolist() == [[[2, 1, 0]]]
    assert index[0, 0, 0].tolist() == [1, 2, 0]
    assert index[0, 0, 1].tolist() == [2, 0, 1]


# --- parity ------------------------------------------------------------------------------------------


def attention(program: A.Program, backend: str = "auto", heads: int = 4, dim: int = 64) -> A.Attention:
    torch.manual_seed(0)
    layer = A.Attention(program, dim=dim, heads=heads, backend=backend).eval()
    for parameter in layer.program_parameters().values():
        parameter.data += 0.5 / (dim**0.5 if parameter.shape[-1] == dim else 1) * torch.randn_like(parameter)
    return layer


def batch(program: A.Program, seed: int, dim: int = 64) -> tuple[Tokens, Tokens, dict[str, Any]]:
    """Queries and keys of other lengths, where no token has the date 1970."""
    rng = random.Random(seed)
    q, kv = (random_tokens(rng, 5, dim) for _ in range(2))
    q, kv = (replace(x, values=x.values.float(), time=x.time + 1.7e9) for x in (q, kv) if x.time is not None)
    context = random_context(program, q, kv, rng)
    return q, kv, {**context, "presence": torch.rand(5, len(kv.modalities)) < 0.7}


@pytest.mark.parametrize("itself", [True, False], ids=["self", "cross"])
@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_a_traced_program_means_the_same(
    program: A.Program, itself: bool, dense_flex: CompileCounter
) -> None:
    layer = attention(program)
    q, kv, context = batch(program, seed=3)
    if itself:
        kv, context = q, random_context(program, q, q, random.Random(1))
    with torch.no_grad():
        layer.backend = "reference"
        expected = layer(q, kv, context).values
        layer.backend = "flex"
        got = layer(q, kv, context).values
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert dense_flex.frame_count == 1


@pytest.mark.parametrize("program", PROGRAMS, ids=NAMES)
def test_a_traced_program_has_the_same_gradients(
    program: A.Program, dense_flex: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradients that PyTorch derives for score functions and captured tensors, without the kernel."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *tensors: None)  # it refuses all gradients
    monkeypatch.setattr(flex.FlexAttention, "_conditions_unsupported_reason", lambda *arguments: None)
    layer = attention(program)
    q, kv, context = batch(program, seed=5)
    results = {}
    for backend in ("reference", "flex"):
        layer.backend = backend
        values = [x.values.clone().requires_grad_() for x in (q, kv)]
        out = layer(q.with_values(values[0]), kv.with_values(values[1]), context).values
        parameters = [value for value in layer.parameters() if value.requires_grad]
        weight = torch.linspace(-1, 1, out.numel()).view_as(out)
        results[backend] = [
            out,
            *torch.autograd.grad(
                (out * weight).sum(), [*values, *parameters], allow_unused=True, materialize_grads=True
            ),
        ]
    for got, expected in zip(results["flex"], results["reference"], strict=True):
        scale = 1 + expected.abs().max().item()
        torch.testing.assert_close(got, expected, rtol=0.0, atol=2e-4 * scale)


def test_a_sink_alone_takes_everything_from_rows_without_keys(dense_flex: CompileCounter) -> None:
    layer = attention(A.Program(mask=A.route({"*": []}), norm=A.softmax("sink")), backend="flex")
    tokens = Tokens.from_sequences([torch.randn(5, 64)], "text")
    with torch.no_grad():
        assert torch.equal(layer(tokens).values, layer.o_proj.bias.expand(5, -1))


def test_narrow_heads_are_widened(dense_flex: CompileCounter) -> None:
    layer = attention(A.Program(mask=A.causal), dim=10, heads=2)
    tokens = Tokens.from_sequences([torch.randn(5, 10), torch.randn(7, 10)], "text")
    with torch.no_grad():
        expected = layer(tokens).values
        layer.backend = "flex"
        torch.testing.assert_close(layer(tokens).values, expected)


@pytest.mark.parametrize("seed", range(10))
def test_edges_are_found_by_search(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def tokens(lengths: list[int]) -> Tokens:
        entity = torch.randint(-1, 4, (sum(lengths),), generator=generator)
        return Tokens.from_lengths(torch.zeros(sum(lengths), 1), torch.tensor(lengths), "text", entity=entity)

    q, kv = tokens([3, 0, 7, 2]), tokens([5, 2, 11, 0])
    layout = Layout.from_tokens(q, kv)
    edges = torch.stack([torch.randint(0, top, (13 * (seed > 0),), generator=generator) for top in (4, 4, 3)])
    program = A.Program(A.dot() >> A.graph_bias("kg", 3))
    joined = build_context_tensors(program, q, kv, layout, {"kg": edges}).edges["kg"]
    weight = torch.tensor([[1.0, 10.0, 100.0]])
    actual = build_edge_table(joined, 3, layout, 16)
    query, key = torch.meshgrid(torch.arange(12), torch.arange(18), indexing="ij")
    bias = actual.with_weight(weight).edge_bias(torch.tensor(0), query, key)
    assert (actual.key.numel() & (actual.key.numel() - 1)) == 0  # a power of two: few kernels
    expected = torch.zeros(12, 18)
    for head, tail, relation in edges.T.tolist():
        for i in (q.entity == head).nonzero()[:, 0].tolist():  # type: ignore[union-attr]
            for j in (kv.entity == tail).nonzero()[:, 0].tolist():  # type: ignore[union-attr]
                expected[i, j] += weight[0, relation] * bool(q.sample[i] == kv.sample[j])
    assert torch.equal(bias, expected)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS[:2], ids=NAMES[:2])
def test_parity_of_the_compiled_kernel_on_the_cpu(
    program: A.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex.FlexAttention, "allow_cpu", True)
    layer = attention(program)
    q, kv, context = batch(program, seed=3)
    with torch.no_grad():
        layer.backend = "reference"
        expected = layer(q, kv, context).values
        layer.backend = "flex"
        torch.testing.assert_close(layer(q, kv, context).values, expected, rtol=1e-4, atol=1e-4)
