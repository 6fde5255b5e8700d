"""The composition root: the one place where configuration meets constructors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mmattn import attention
from mmattn.config import EncoderConfig, FusionConfig, HeadConfig
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
    configs: Mapping[str, EncoderConfig], contents: Mapping[str, list[Any]]
) -> dict[str, Encoder]:
    """One encoder a modality, through the registry.

    Args:
        configs: modality -> which encoder, with which options.
        contents: modality -> raw contents of the training items, for encoders that learn a vocabulary
            or a scale from them (those with a `fit` of their own) before anything else.
    """
    built = {}
    for modality, config in configs.items():
        factory = encoder_registry.load(config.name)
        options = {**config.options, "modality": modality}
        if hasattr(factory, "fit"):
            built[modality] = factory.fit(contents[modality], **options)
        else:
            built[modality] = encoder_registry.create(config.name, **options)
    return built


def build_core(inputs: Mapping[str, int], config: FusionConfig, weights: Mapping[str, float]) -> FusionCore:
    """The fusion core for modalities of the given token widths."""
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
    return FusionCore(Entry(inputs, config.dim), blocks, AttentionPool(config.dim, config.heads))


def build_model(
    encoders: Mapping[str, Encoder],
    fusion: FusionConfig,
    heads: Mapping[str, HeadConfig],
    weights: Mapping[str, float] | None = None,
) -> Model:
    """Encoders, core and heads put together."""
    inputs = {name: encoder.dim for name, encoder in encoders.items()}
    core = build_core(inputs, fusion, weights or {})
    built = {
        name: head_registry.create(config.name, fusion.dim, **config.options)
        for name, config in heads.items()
    }
    return Model(encoders, core, built)
