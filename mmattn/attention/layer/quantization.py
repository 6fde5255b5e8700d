"""Linear layers in eight bits, for a trained model that has to be smaller and faster on the CPU.

Weights are stored as int8 with one scale an output; inputs become int8 when they come, with one scale a
row, so that what a token gives does not depend on the tokens beside it in the batch. A quantised layer's
state says that it is one (`weight_scale`), so that a whole model takes its structure from what was saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.attention.layer.linear import Linear
from mmattn.errors import InputError

__all__ = ["QuantizedLinear", "quantize", "quantize_to_match"]

_INT8_MAX = 127
_SCALE_NAME = "weight_scale"


class QuantizedLinear(nn.Module):
    """What `nn.Linear` computes, with int8 weights and inputs; for inference only.

    Paper: Dettmers et al., "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", 2022 (a
    scale a row and a scale an output; without its outlier columns).

    Args:
        linear: the trained layer.

    Example:
        >>> linear = nn.Linear(64, 32)
        >>> x = torch.randn(5, 64)
        >>> small = QuantizedLinear(linear).eval()
        >>> bool((small(x) - linear(x)).norm() < 0.02 * linear(x).norm())
        True
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_OI = linear.weight.detach().float()
        scale_O = weight_OI.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        self.weight: Tensor
        self.weight_scale: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", (weight_OI / scale_O[:, None]).round().to(torch.int8))
        self.register_buffer(_SCALE_NAME, scale_O)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features], of the input's type.

        Args:
            input: [..., in_features].

        Raises:
            InputError: in training mode; rounding has no gradient.
        """
        if self.training:
            raise InputError("a quantised layer cannot be trained; call eval(), or quantise after training")
        x_NI = input.reshape(-1, self.in_features).float()
        y_NO = (
            self._int8_matmul(x_NI)
            if _has_int8_kernel(x_NI, self.weight)
            else F.linear(x_NI, self._dequantized_weight())
        )
        if self.bias is not None:
            y_NO += self.bias
        return y_NO.view(*input.shape[:-1], self.out_features).to(input.dtype)

    def _int8_matmul(self, x_NI: Tensor) -> Tensor:
        """[N, O], in whole numbers until the end."""
        scale_N1 = x_NI.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _INT8_MAX
        rounded_NI = (x_NI / scale_N1).round_().to(torch.int8)
        return torch._int_mm(rounded_NI, self.weight.t()).float().mul_(scale_N1).mul_(self.weight_scale)

    def _dequantized_weight(self) -> Tensor:
        return self.weight * self.weight_scale[:, None]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, int8"


def _has_int8_kernel(x_NI: Tensor, weight_OI: Tensor) -> bool:
    """On the CPU the product in whole numbers is wrong where rows have a single number (torch 2.11); on a GPU
    it wants more than 16 rows, and multiples of eight."""
    if x_NI.device.type == "cpu":
        return weight_OI.shape[1] > 1
    return x_NI.device.type == "cuda" and len(x_NI) > 16 and all(size % 8 == 0 for size in weight_OI.shape)


def quantize(module: nn.Module) -> tuple[str, ...]:
    """Turn the linear layers of a trained module to int8, in place; the module is then for inference.

    `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` are left as they are: PyTorch reads their
    weights past their layers. So are layers that share their weight with something else.

    Args:
        module: trained module, changed in place.

    Returns:
        Names of the layers that were turned.

    Raises:
        InputError: the module has none.

    Example:
        >>> module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).eval()
        >>> quantize(module), module[2].weight.dtype
        (('0', '2'), torch.int8)
    """
    turned = list(_replaceable_linears(module))
    if not turned:
        raise InputError(f"quantise: {type(module).__name__} has no linear layer to turn to int8")
    for parent, key, _ in turned:
        setattr(parent, key, QuantizedLinear(getattr(parent, key)))
    return tuple(name for _, _, name in turned)


def quantize_to_match(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Turn the layers to int8 that are so in the state dict of another module of the same making.

    Args:
        module: module to change in place.
        state: state dict of a quantized module.

    Raises:
        InputError: the state has whole layers that are quantised here.
    """
    for parent, key, name in _replaceable_linears(module):
        if f"{name}.{_SCALE_NAME}" in state:
            setattr(parent, key, QuantizedLinear(getattr(parent, key)))
    for name, layer in module.named_modules():
        if isinstance(layer, QuantizedLinear) and f"{name}.{_SCALE_NAME}" not in state:
            raise InputError(f"the state of {name} is of a whole layer, but the layer here is quantised")


def _replaceable_linears(
    module: nn.Module, prefix: str = "", shared_weights: set[int] | None = None
) -> Iterator[tuple[nn.Module, str, str]]:
    """(parent, name in it, whole name) of every layer that may be replaced."""
    if isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.MultiheadAttention)):
        return
    shared_weights = _find_shared_weights(module) if shared_weights is None else shared_weights
    for key, child in list(module.named_children()):
        name = f"{prefix}{key}"
        if type(child) in (nn.Linear, Linear):
            if id(child.weight) not in shared_weights:
                yield module, key, name
        else:
            yield from _replaceable_linears(child, f"{name}.", shared_weights)


def _find_shared_weights(module: nn.Module) -> set[int]:
    """Weights that several modules have: tied embeddings."""
    seen: set[int] = set()
    twice: set[int] = set()
    for child in module.modules():
        for parameter in child.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice
