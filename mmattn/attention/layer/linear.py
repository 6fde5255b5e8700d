"""`nn.Linear` with an option, off by default, to multiply by oneDNN on the CPU.

PyTorch multiplies float32 matrices on the CPU with MKL, which keeps processors of other makers than Intel on
its AVX2 kernels. oneDNN, which every PyTorch for x86 carries, uses AVX-512 there. Measured on one core of an
AMD EPYC (Zen 5), width 256 to 1024: 220 GFLOP/s against 100. On Intel's processors there is nothing to gain.

    MMATTN_ONEDNN_LINEAR=1 mmattn fit ...          # for a process
    use_onednn(True)                               # from Python
"""

from __future__ import annotations

import os
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Linear", "is_onednn_available", "use_onednn"]

# Multiplications below which starting oneDNN's kernel costs more than the kernel saves.
_MIN_MULTIPLICATIONS = 1 << 22
# Rows from which a weight's gradient is added up piece by piece: what oneDNN copies then stays in the cache.
_GRADIENT_CHUNK_ROWS = 2048


_enabled = os.environ.get("MMATTN_ONEDNN_LINEAR", "0") not in ("", "0")


def use_onednn(enabled: bool) -> None:
    """Let all `Linear` layers of this process multiply large float32 matrices by oneDNN, or not.

    Args:
        enabled: on or off.
    """
    global _enabled
    _enabled = enabled


class Linear(nn.Linear):
    """`nn.Linear`, with oneDNN's product for large float32 matrices on the CPU if `use_onednn` is on.

    Names, shapes and results are those of `nn.Linear`, to rounding.

    Example:
        >>> import torch
        >>> layer, x = Linear(256, 256), torch.randn(67, 256)
        >>> torch.allclose(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias), atol=1e-5)
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features].

        Args:
            input: [..., in_features].
        """
        if _use_onednn(input, self.weight):
            result: Tensor = _OneDNNLinear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
            return result
        return super().forward(input)


class _OneDNNLinear(torch.autograd.Function):
    """x [N, I], weight [O, I], bias [O] -> [N, O]; its gradients are such products again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = _OneDNNLinear.apply(gradient, weight.t(), None)  # type: ignore[no-untyped-call]
        if ctx.needs_input_grad[1]:
            pieces = zip(x.split(_GRADIENT_CHUNK_ROWS), gradient.split(_GRADIENT_CHUNK_ROWS), strict=True)
            of_weight = reduce(torch.add, (_weight_gradient(*piece) for piece in pieces))
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(0)
        return of_x, of_weight, of_bias


def _weight_gradient(x_NI: Tensor, gradient_NO: Tensor) -> Tensor:
    """[O, I]. oneDNN copies its first operand into rows: let that be the narrower one."""
    product: Tensor
    if x_NI.shape[1] <= gradient_NO.shape[1]:
        product = _OneDNNLinear.apply(x_NI.t(), gradient_NO.t(), None).t()  # type: ignore[no-untyped-call]
    else:
        product = _OneDNNLinear.apply(gradient_NO.t(), x_NI.t(), None)  # type: ignore[no-untyped-call]
    return product


def _use_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        _enabled
        and x.device.type == "cpu"
        and x.dim() == 2
        and x.dtype == weight.dtype == torch.float32
        and x.shape[0] * weight.numel() >= _MIN_MULTIPLICATIONS
        and is_onednn_available()
        and not torch.is_autocast_enabled("cpu")
        # Compilers and function transforms know `nn.Linear`, and would meet a closed box here.
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def is_onednn_available() -> bool:
    """Return whether this PyTorch has oneDNN's matrix product, and it is not disabled."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and bool(torch.backends.mkldnn.enabled)
    )
