"""The composition root: the one place where configuration meets constructors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmattn import attention
from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.encoders.base import Encoder
from mmattn.encoders.lora import add_lora
from mmattn.fusion.block import BottleneckBlock, FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool
from mmattn.fusion.task_embeddings import TaskEmbeddings
from mmattn.model.item_tower import ItemTower
from mmattn.model.model import Model
from mmattn.registry import encoders as encoder_registry
from mmattn.registry import heads as head_registry

__all__ = ["build_block", "build_core", "build_encoders", "build_item_tower", "build_model", "choose_device"]


def choose_device() -> torch.device:
    """A GPU where there is one (each process of `accelerate launch` has its own), otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


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
        if config.finetune:
            options["frozen"] = config.finetune == "frozen"
        if contents is not None and hasattr(factory, "fit"):
            built[modality] = factory.fit(contents[modality], **options)
        else:
            built[modality] = encoder_registry.create(config.name, **options)
        if config.finetune == "lora":
            add_lora(built[modality], config.lora)
    return built


def build_core(widths: Mapping[str, int], config: ModelConfig) -> FusionCore:
    """The fusion core.

    Args:
        widths: modality -> width of its encoder's tokens.
        config: of the same modalities.
    """
    fusion, encoders = config.fusion, config.encoders
    entry = InputProjection(
        widths,
        fusion.dim,
        fields={name: encoders[name].fields for name in widths},
        dim_fractions={name: encoders[name].dim_fraction for name in widths},
        standardise=[name for name in widths if encoders[name].standardise],
        without_positions=[name for name in widths if not encoders[name].positional_encoding],
    )
    pool = AttentionPool(
        fusion.dim, len(widths), fusion.heads, initial_gains=[encoders[name].initial_gain for name in widths]
    )
    blocks = [build_block(fusion, tuple(widths)) for _ in range(fusion.layers)]
    tasks = TaskEmbeddings(fusion.tasks, fusion.dim) if fusion.tasks else None
    return FusionCore(entry, blocks, pool, tasks)


def build_block(config: FusionConfig, modalities: Sequence[str]) -> FusionBlock | BottleneckBlock:
    """One layer of the core; parameters over modalities have their rows in the order given."""
    width = config.width or config.dim
    layer = attention.Attention(attention.parse(config.program), dim=width, heads=config.heads)
    layer.register_modalities(modalities)
    block = FusionBlock(
        layer,
        dim=width,
        expansion=config.expansion,
        dropout=config.dropout,
    )
    return block if width == config.dim else BottleneckBlock(block, config.dim, width)


def build_model(encoders: Mapping[str, Encoder], config: ModelConfig) -> Model:
    """Encoders that are there already, with a core and heads for them.

    Args:
        encoders: modality -> encoder, as `build_encoders` made them.
        config: the same encoders' configuration, the core's and the heads'.
    """
    widths = {name: encoder.dim for name, encoder in encoders.items()}
    heads = {
        name: head_registry.create(head.name, config.fusion.dim, **head.options)
        for name, head in config.heads.items()
    }
    return Model(encoders, build_core(widths, config), heads, config)


def build_item_tower(
    sources: Mapping[str, Encoder | int],
    fusion: FusionConfig | None = None,
    encoders: Mapping[str, EncoderConfig] | None = None,
    **options: Any,
) -> ItemTower:
    """An item tower for other people's recommenders.

    Args:
        sources: modality -> its encoder, or the width of its tokens where they were made before.
        fusion: the core's configuration.
        encoders: modality -> how its tokens enter the core (fields, share, weight), where that is not the
            default; the names of the encoders in it are not looked at.
        options: keyword arguments of `ItemTower` (dim, ids, dropouts).

    Example:
        >>> build_item_tower({"text": 384, "image": 1280}, FusionConfig(dim=32), dim=16).dim
        16
    """
    entering = {name: (encoders or {}).get(name, EncoderConfig(name="")) for name in sources}
    widths = {name: source if isinstance(source, int) else source.dim for name, source in sources.items()}
    core = build_core(widths, ModelConfig(entering, fusion or FusionConfig()))
    trained = {name: source for name, source in sources.items() if isinstance(source, Encoder)}
    return ItemTower(core, trained, **options)
