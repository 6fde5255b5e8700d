"""The composition root: the one place where configuration meets constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmattn import attention
from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.encoders.base import Encoder
from mmattn.fusion.block import FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.entry import Entry
from mmattn.fusion.pool import AttentionPool
from mmattn.model import Model
from mmattn.registry import encoders as encoder_registry
from mmattn.registry import heads as head_registry

__all__ = ["build_core", "build_encoders", "build_model", "choose_device"]


def choose_device() -> torch.device:
    """A GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build_encoders(
    configs: Mapping[str, EncoderConfig], contents: Mapping[str, list[Any]] | None = None
) -> dict[str, Encoder]:
    """One encoder a modality, through the registry.

    Args:
        configs: modality -> which encoder, with which options.
        contents: modality -> raw contents of the training items, for encoders that learn a vocabulary
            or a scale from them (those with a `fit` of their own); None where the options have it.
    """
    built = {}
    for modality, config in configs.items():
        factory = encoder_registry.load(config.name)
        options = {**config.options, "modality": modality}
        if contents is not None and hasattr(factory, "fit"):
            built[modality] = factory.fit(contents[modality], **options)
        else:
            built[modality] = encoder_registry.create(config.name, **options)
    return built


def build_core(
    inputs: Mapping[str, int], config: FusionConfig, fields: Mapping[str, int] | None = None
) -> FusionCore:
    """The fusion core for modalities of the given token widths (and numbers of fields)."""
    program = attention.parse(config.program)
    blocks = [
        FusionBlock(
            attention.Attention(program, dim=config.dim, heads=config.heads),
            dim=config.dim,
            expansion=config.expansion,
            dropout=config.dropout,
        )
        for _ in range(config.layers)
    ]
    return FusionCore(
        Entry(inputs, config.dim, fields), blocks, AttentionPool(config.dim, len(inputs), config.heads)
    )


def build_model(encoders: Mapping[str, Encoder], config: ModelConfig) -> Model:
    """Encoders that are there already, with a core and heads for them.

    Args:
        encoders: modality -> encoder, as `build_encoders` made them.
        config: the same encoders' configuration, the core's and the heads'.
    """
    inputs = {name: encoder.dim for name, encoder in encoders.items()}
    fields = {name: encoder.fields for name, encoder in config.encoders.items()}
    heads = {
        name: head_registry.create(head.name, config.fusion.dim, **head.options)
        for name, head in config.heads.items()
    }
    return Model(encoders, build_core(inputs, config.fusion, fields), heads, config)
