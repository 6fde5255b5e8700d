"""Our linear layer is PyTorch's to rounding, whichever library multiplies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mmattn.attention.layer import linear
from mmattn.attention.layer.linear import Linear

needs_onednn = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch comes without oneDNN"
)


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use oneDNN's product whatever the size."""
    monkeypatch.setattr(linear, "_enabled", True)
    monkeypatch.setattr(linear, "_MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(linear, "_GRADIENT_CHUNK_ROWS", 53)


def results(layer: nn.Linear, x: Tensor, gradient: Tensor) -> list[Tensor]:
    x = x.detach().to(layer.weight.dtype).requires_grad_()
    out = layer(x)
    out.backward(gradient.to(out.dtype))
    actual = [out.detach(), x.grad, layer.weight.grad, *([] if layer.bias is None else [layer.bias.grad])]
    return [tensor for tensor in actual if tensor is not None]


@needs_onednn
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rows", "into", "out"), [(1, 3, 5), (67, 131, 257), (251, 257, 61), (13, 1, 1)])
def test_it_is_the_float64_layer_to_rounding(rows: int, into: int, out: int, bias: bool) -> None:
    torch.manual_seed(rows)
    layer = Linear(into, out, bias=bias)
    exact = copy.deepcopy(layer).double()
    x, gradient = torch.randn(rows, into), torch.randn(rows, out)
    assert linear._use_onednn(x, layer.weight)
    assert not linear._use_onednn(x.double(), exact.weight)
    for ours, theirs in zip(results(layer, x, gradient), results(exact, x, gradient), strict=True):
        assert ours.shape == theirs.shape
        # Sums of at most 257 products: a few roundings of 6e-8 of the largest entry.
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@needs_onednn
@pytest.mark.usefixtures("everywhere")
def test_a_broadcast_gradient_and_the_gradient_of_a_gradient() -> None:
    torch.manual_seed(0)
    layer, plain = Linear(7, 5), nn.Linear(7, 5)
    plain.load_state_dict(layer.state_dict())
    penalties = []
    for entry in (layer, plain):
        x = torch.ones(11, 7, requires_grad=True)
        (slope,) = torch.autograd.grad(entry(x).pow(2).sum(), x, create_graph=True)
        slope.pow(2).sum().backward()  # a gradient penalty
        entry(torch.ones(11, 7)).sum().backward()  # its gradient is one number, expanded
        penalties.append([entry.weight.grad, entry.bias.grad])
    for ours, theirs in zip(*penalties, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_onednn
@pytest.mark.usefixtures("everywhere")
def test_it_leaves_to_pytorch_what_is_not_its_case() -> None:
    layer, x = Linear(7, 5), torch.randn(3, 7)
    assert layer(x[None]).shape == (1, 3, 5)
    assert not linear._use_onednn(x[None], layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    each = torch.func.vmap(torch.func.grad(lambda row: layer(row[None]).sum()))(x)
    torch.testing.assert_close(each, layer.weight.sum(0).expand(3, 7))
    torch.backends.mkldnn.enabled = False
    try:
        assert not linear._use_onednn(x, layer.weight)
    finally:
        torch.backends.mkldnn.enabled = True


def test_it_is_off_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_MIN_MULTIPLICATIONS", 0)
    monkeypatch.setattr(linear, "_enabled", False)
    layer, x = Linear(7, 5), torch.randn(3, 7)
    assert not linear._use_onednn(x, layer.weight)
    linear.use_onednn(True)
    assert linear._use_onednn(x, layer.weight) == linear.is_onednn_available()
    linear.use_onednn(False)
    assert not linear._use_onednn(x, layer.weight)


def test_small_products_stay_with_pytorch() -> None:
    layer = Linear(7, 5)
    assert not linear._use_onednn(torch.randn(3, 7), layer.weight)
    assert layer(torch.randn(0, 7)).shape == (0, 5)
