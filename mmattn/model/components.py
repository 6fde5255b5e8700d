"""Build the parts of a model, encoders, fusion core and heads, from their configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from mmattn.attention.language.program import parse
from mmattn.attention.layer.attention import Attention
from mmattn.encoders.lora import add_lora
from mmattn.errors import PluginError, did_you_mean
from mmattn.fusion.block import BottleneckBlock, FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection
from mmattn.fusion.pool import AttentionPool
from mmattn.fusion.task_embeddings import TaskEmbeddings
from mmattn.registry import encoders as encoder_registry
from mmattn.registry import heads as head_registry

if TYPE_CHECKING:
    from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
    from mmattn.encoders.base import Encoder

__all__ = ["build_block", "build_core", "build_encoders", "build_heads"]


def build_encoders(
    configs: Mapping[str, EncoderConfig], contents: Mapping[str, list[Any]] | None = None
) -> dict[str, Encoder]:
    """Create one encoder per modality through the registry.

    Args:
        configs: modality -> name and options of its encoder.
        contents: modality -> raw contents of the training items, for encoders with a `fit` that learns a
            vocabulary or a scale from them; None where the options hold it already.

    Returns:
        modality -> encoder.

    Raises:
        PluginError: no encoder of that name, or it does not take the options.
        MissingDependency: an encoder needs something that is not installed.
    """
    built = {}
    for modality, config in configs.items():
        factory = encoder_registry.load(config.name)
        options = {**config.options, "modality": modality}
        if config.finetune:
            options["frozen"] = config.finetune == "frozen"
        if contents is not None and hasattr(factory, "fit"):
            built[modality] = _fit_encoder(config.name, factory, contents[modality], options)
        else:
            built[modality] = encoder_registry.create(config.name, **options)
        if config.finetune == "lora":
            add_lora(built[modality], config.lora)
    return built


def _fit_encoder(name: str, factory: Any, contents: list[Any], options: Mapping[str, Any]) -> Encoder:
    """Call `fit`, whose further options are the constructor's."""
    parameters = inspect.signature(factory.fit).parameters
    known = dict(parameters) | dict(inspect.signature(factory).parameters)
    for option in options:
        if option not in known:
            raise PluginError(f"encoders plugin {name!r}: no option {option!r}.{did_you_mean(option, known)}")
    try:
        inspect.signature(factory.fit).bind(contents, **options)
    except TypeError as error:
        raise PluginError(f"encoders plugin {name!r}: {error}; name it in the encoder's options") from error
    fitted: Encoder = factory.fit(contents, **options)
    return fitted


def build_core(widths: Mapping[str, int], config: ModelConfig) -> FusionCore:
    """Build the fusion core.

    Args:
        widths: modality -> width D of its encoder's tokens.
        config: configuration with the same modalities.

    Returns:
        The core, with new weights.
    """
    fusion, encoders = config.fusion, config.encoders
    projection = InputProjection(
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
    return FusionCore(projection, blocks, pool, tasks)


def build_block(config: FusionConfig, modalities: Sequence[str]) -> FusionBlock | BottleneckBlock:
    """Build one layer of the core.

    Args:
        config: configuration of the core.
        modalities: names of the modalities; parameters indexed by modality follow this order.

    Returns:
        A `FusionBlock`, inside a `BottleneckBlock` where `config.width` differs from `config.dim`.
    """
    width = config.width or config.dim
    layer = Attention(parse(config.program), dim=width, heads=config.heads)
    layer.register_modalities(modalities)
    block = FusionBlock(layer, dim=width, expansion=config.expansion, dropout=config.dropout)
    return block if width == config.dim else BottleneckBlock(block, config.dim, width)


def build_heads(config: ModelConfig) -> dict[str, nn.Module]:
    """Create the heads of a model through the registry.

    Args:
        config: configuration of the model.

    Returns:
        name -> head.

    Raises:
        PluginError: no head of that name, or it does not take the options.
    """
    return {
        name: head_registry.create(head.name, config.fusion.dim, **head.options)
        for name, head in config.heads.items()
    }
