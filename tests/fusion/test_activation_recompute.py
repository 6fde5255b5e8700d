"""A function computed again gives the gradients that its kept result would give."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn.fusion.activation_recompute import recompute_in_backward


def gradients(again: bool, second: bool) -> list[Tensor]:
    torch.manual_seed(0)
    narrow = nn.Linear(7, 3).double()
    x = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    if again:
        with recompute_in_backward(F.gelu, x) as active:
            out = narrow(active) * active[:, :3]
    else:
        active = F.gelu(x)
        out = narrow(active) * active[:, :3]
    loss = out.pow(2).sum()
    if second:
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        loss = slope.pow(2).sum()
    return list(torch.autograd.grad(loss, [x, narrow.weight, narrow.bias]))


def test_first_and_second_gradients_are_exact() -> None:
    for second in (False, True):
        for gradient, other in zip(gradients(True, second), gradients(False, second), strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-12, atol=1e-12)


def test_the_result_is_computed_once_more_on_the_way_back() -> None:
    calls = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return F.gelu(x)

    narrow, x = nn.Linear(7, 3), torch.randn(5, 7, requires_grad=True)
    with recompute_in_backward(counted, x) as active:
        out = narrow(active)
    assert calls == 1
    out.sum().backward()
    assert calls == 2


def test_without_gradients_and_under_transforms_it_is_the_function_itself() -> None:
    x = torch.randn(5, 7)
    with torch.no_grad(), recompute_in_backward(F.gelu, x) as active:
        assert torch.equal(active, F.gelu(x))

    def total(row: Tensor) -> Tensor:
        with recompute_in_backward(torch.exp, row) as active:
            return active.square().sum()

    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(x), 2 * (2 * x).exp())


def test_no_tokens() -> None:
    x = torch.zeros(0, 7, requires_grad=True)
    with recompute_in_backward(F.gelu, x) as active:
        out = nn.Linear(7, 3)(active)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 7)
