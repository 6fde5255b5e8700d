"""LoRA on the network inside an encoder: small trained matrices beside weights that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmattn.encoders.base import Encoder
from mmattn.encoders.pretrained import PretrainedEncoder, import_optional
from mmattn.errors import InputError

__all__ = ["add_lora"]


def add_lora(encoder: Encoder, options: Mapping[str, Any] | None = None) -> None:
    """Put LoRA beside the layers of an encoder's network, which then trains nothing else.

    What the encoder says does not change until it is trained. The adapters are peft's; the encoder's
    `trained` keeps its type, and the names of its weights get `base_layer` where an adapter stands.

    Paper: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

    Args:
        encoder: around a pretrained network, made with `frozen=False`.
        options: of `peft.LoraConfig`; by default rank 8 beside every linear layer, or beside every
            convolution over single pixels where there is none.

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
