"""Parity on a GPU, the whole of it: `pytest -m gpu`. Every able backend against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mmattn import attention as A
from mmattn.attention.backends import flex
from mmattn.attention.backends.selection import get_backend
from mmattn.attention.testing.random_programs import RELATIONS
from mmattn.types import Tokens

pytestmark = pytest.mark.gpu

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
PROGRAMS = {
    "plain": A.Program(),
    "causal": A.Program(mask=A.causal),
    "window": A.Program(mask=A.window(4)),
    "modality bias": A.Program(
        score=A.dot() >> A.modality_bias("pair") >> A.temperature(A.learned("t", 0.7))
    ),
    "route": A.Program(
        score=A.dot() >> A.relative("r", 8, 20) >> A.softcap(A.learned("cap", 9.0)),
        mask=A.route({"text": ["text", "image"], "*": ["*"]}) & (A.window(4) | A.global_tokens("audio")),
    ),
    "geometry": A.Program(
        score=A.cosine >> A.alibi >> A.time_bias("t", 6) >> A.box_bias("b") >> A.temperature(A.dynamic("u")),
        mask=A.where("image", A.blocks(3), A.causal) | A.dilated(12, 5),
    ),
    "graph and sink": A.Program(
        score=A.bilinear("w") >> A.graph_bias("kg", RELATIONS), mask=A.present, norm=A.softmax("sink")
    ),
    "sparsemax": A.Program(norm=A.sparsemax),
    "other heads": A.heads({(0, 1): A.Program(mask=A.causal), (1, 4): A.Program(norm=A.sigmoid)}),
}


@pytest.fixture(autouse=True)
def _a_gpu_in_full_precision() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("width", [16, 64, 5])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_every_able_backend(program: A.Program, dtype: torch.dtype, width: int) -> None:
    A.check(program, heads=4, width=width, batches=2, dtypes=[dtype], device="cuda", seed=width)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["plain", "causal", "modality bias"])
def test_varlen_with_empty_samples_and_odd_lengths(name: str, dtype: torch.dtype) -> None:
    """Also heads whose width, with the columns of a bias, is no multiple of eight."""
    layer = A.Attention(PROGRAMS[name], dim=64, heads=4).to("cuda", dtype)
    values = torch.randn(171, 64, device="cuda", dtype=dtype)
    tokens = Tokens.from_lengths(values, torch.tensor([101, 0, 1, 7, 62], device="cuda"), "text")
    kv = tokens
    if name != "causal":  # keys of other lengths, and samples that lack one side
        lengths = torch.tensor([3, 5, 0, 131, 17], device="cuda")
        kv = Tokens.from_lengths(torch.randn(156, 64, device="cuda", dtype=dtype), lengths, "text")
    results = {}
    for backend in ("varlen", "reference"):
        layer.backend = backend
        q_values = tokens.values.clone().requires_grad_()
        new_q = tokens.with_values(q_values)
        out = layer(new_q, None if kv is tokens else kv).values
        out.float().square().sum().backward()
        results[backend] = (out, q_values.grad)
    for got, expected in zip(results["varlen"], results["reference"], strict=True):
        assert got is not None
        assert expected is not None
        scale = 1 + expected.abs().max().item()
        torch.testing.assert_close(got, expected, rtol=0.0, atol=0.05 * scale)


def test_flex_compiles_as_often_as_its_budget_counts() -> None:
    backend = get_backend("flex")
    assert isinstance(backend, flex.FlexAttention)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    backend.kernels.clear()
    layer = A.Attention(PROGRAMS["window"], dim=64, heads=4, backend="flex").to("cuda").eval()
    with torch.no_grad():
        for lengths in ([101, 7], [3, 62, 11], [300, 19]):
            values = torch.randn(sum(lengths), 64, device="cuda")
            layer(Tokens.from_lengths(values, torch.tensor(lengths, device="cuda"), "text"))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == len(backend.kernels)
