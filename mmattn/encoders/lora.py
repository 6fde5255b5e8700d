"""LoRA for the network of an encoder: small trained matrices beside frozen weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmattn.encoders.base import Encoder
from mmattn.encoders.pretrained import PretrainedEncoder, import_optional
from mmattn.errors import InputError

__all__ = ["add_lora"]


def add_lora(encoder: Encoder, options: Mapping[str, Any] | None = None) -> None:
    """Add LoRA adapters to the layers of an encoder's network; only the adapters are then trained.

    The encoder's output does not change until it is trained. The adapters are peft's: `encoder.trained` keeps
    its type, and the names of adapted weights get the part `base_layer`.

    Paper: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685.

    Args:
        encoder: a pretrained encoder, created with `frozen=False`.
        options: keyword arguments of `peft.LoraConfig`; by default rank 8 for every linear layer, or for
            every 1 x 1 convolution where there is no linear layer.

    Raises:
        InputError: the encoder has no network to adapt, or peft refuses the options.
        MissingDependency: peft is not installed.

    Example:
        >>> from mmattn.registry import encoders
        >>> encoder = encoders.create("timm", model_name="resnet18", frozen=False)
        >>> add_lora(encoder, {"r": 2})
        >>> sum(value.numel() for value in encoder.parameters() if value.requires_grad)
        2688
    """
    if not isinstance(encoder, PretrainedEncoder) or encoder.frozen:
        raise InputError(
            f"encoder {encoder.name!r}: has no network that LoRA could adapt, expected a pretrained one "
            "that is not frozen"
        )
    peft = import_optional("peft", "hf")
    settings = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": _target_modules(encoder.trained),
        **dict(options or {}),
    }
    try:
        peft.inject_adapter_in_model(peft.LoraConfig(**settings), encoder.trained)
    except (TypeError, ValueError) as error:
        raise InputError(f"encoder {encoder.name!r}, lora: {' '.join(str(error).split())[:300]}") from error


def _target_modules(network: nn.Module) -> list[str]:
    modules = list(network.named_modules())
    linear = [name for name, part in modules if isinstance(part, nn.Linear) and name]
    return linear or [
        name
        for name, part in modules
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1
    ]
