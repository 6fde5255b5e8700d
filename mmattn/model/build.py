"""The composition root: build models and item towers from their configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.encoders.base import Encoder
from mmattn.model.components import build_block, build_core, build_encoders, build_heads
from mmattn.model.item_tower import ItemTower
from mmattn.model.model import Model

__all__ = [
    "build_block",
    "build_core",
    "build_encoders",
    "build_heads",
    "build_item_tower",
    "build_model",
    "choose_device",
]


def choose_device() -> torch.device:
    """Return the GPU where there is one (one per process of `accelerate launch`), otherwise the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def build_model(encoders: Mapping[str, Encoder], config: ModelConfig) -> Model:
    """Build a model around existing encoders, with a new core and new heads.

    Args:
        encoders: modality -> encoder, from `build_encoders`.
        config: configuration of these encoders, the core and the heads.

    Returns:
        The model, in training mode.

    Raises:
        PluginError: no head of that name, or it does not take the options.

    Example:
        >>> from mmattn.config import HeadConfig
        >>> config = ModelConfig(
        ...     {"text": EncoderConfig("tiny-text", {"dim": 8})},
        ...     FusionConfig(dim=16, heads=2),
        ...     {"alignment": HeadConfig("alignment", {"embedding_dim": 4})},
        ... )
        >>> model = build_model(build_encoders(config.encoders), config)
        >>> model.fuse({"text": model.encoders["text"](["Heat", None])}).pooled.shape
        torch.Size([2, 16])
    """
    widths = {name: encoder.dim for name, encoder in encoders.items()}
    heads = build_heads(config)  # before the core: a seed then gives the weights that it always gave
    return Model(encoders, build_core(widths, config), heads, config)


def build_item_tower(
    sources: Mapping[str, Encoder | int],
    fusion: FusionConfig | None = None,
    encoders: Mapping[str, EncoderConfig] | None = None,
    **options: Any,
) -> ItemTower:
    """Build an item tower, for use in a recommender of another library.

    Args:
        sources: modality -> its encoder, or the width of its tokens where they are stored already.
        fusion: configuration of the core; left out, the default one.
        encoders: modality -> how its tokens enter the core (`fields`, `dim_fraction`, `initial_gain`), where
            that is not the default; the encoder names in it are ignored.
        **options: keyword arguments of `ItemTower` (`dim`, `num_ids`, dropouts).

    Returns:
        The tower, with new weights.

    Example:
        >>> build_item_tower({"text": 384, "image": 1280}, FusionConfig(dim=32), dim=16).dim
        16
    """
    configs = {name: (encoders or {}).get(name, EncoderConfig(name="")) for name in sources}
    widths = {name: source if isinstance(source, int) else source.dim for name, source in sources.items()}
    core = build_core(widths, ModelConfig(configs, fusion or FusionConfig()))
    trainable = {name: source for name, source in sources.items() if isinstance(source, Encoder)}
    return ItemTower(core, trainable, **options)
