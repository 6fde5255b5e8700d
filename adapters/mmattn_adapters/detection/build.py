"""The composition root of detectors: the one place where their configuration meets constructors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmattn import attention
from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
from mmattn.encoders.base import Encoder
from mmattn.errors import InputError
from mmattn.model.build import build_model
from mmattn.model.model import Model
from mmattn_adapters.detection.conditioning import MapConditioning, Modulation, RegionConditioning
from mmattn_adapters.detection.config import DetectorConfig
from mmattn_adapters.detection.networks import DEFAULT_EXTRA_LEVELS, DEFAULT_LEVELS, build_network
from mmattn_adapters.detection.pyramid import LITE0, FeaturePyramid

__all__ = ["DetectorParts", "as_conditioning_model", "build_parts", "with_defaults"]


@dataclass
class DetectorParts:
    """What a detector consists of.

    Args:
        network: torchvision's detector.
        map_conditioning: conditions its feature maps; None without conditioning.
        region_conditioning: conditions the vectors of its regions; None without conditioning, or without
            regions.
        conditioning_model: makes tokens of samples; None where they come from elsewhere.
        token_dim: width of the tokens; None without conditioning.
    """

    network: Any
    map_conditioning: MapConditioning | None = None
    region_conditioning: RegionConditioning | None = None
    conditioning_model: Model | None = None
    token_dim: int | None = None


def build_parts(
    config: DetectorConfig,
    conditioning: Model | Mapping[str, Encoder] | int | None,
    pretrained: bool | str | Path | None,
) -> DetectorParts:
    """The parts of a detector, see `Detector.build`.

    Args:
        config: of the detector.
        conditioning: see `Detector.build`.
        pretrained: see `Detector.build`.
    """
    pyramid = FeaturePyramid(
        config.backbone,
        config.levels or DEFAULT_LEVELS[config.kind],
        config.fpn_channels,
        extra_levels=config.extra_levels or DEFAULT_EXTRA_LEVELS[config.kind],
        pretrained=pretrained,
        frozen_stages=config.frozen_stages,
        norm=config.norm,
    )
    parts = DetectorParts(build_network(pyramid, config))
    if conditioning is None:
        return parts
    if isinstance(conditioning, int):
        parts.token_dim = conditioning
    else:
        parts.conditioning_model = as_conditioning_model(conditioning)
        parts.token_dim = parts.conditioning_model.core.dim
    program = attention.parse(config.program)
    levels = 1 if config.share_levels else len(pyramid.strides)
    widths = [config.fpn_channels] * levels + [config.representation_size] * (config.kind == "faster-rcnn")
    layers = [Modulation(width, parts.token_dim, program, config.heads) for width in widths]
    parts.map_conditioning = MapConditioning(layers[:levels])
    if config.kind == "faster-rcnn":
        parts.region_conditioning = RegionConditioning(layers[-1])
    return parts


def with_defaults(config: DetectorConfig, pretrained: bool | str | Path | None) -> DetectorConfig:
    """The configuration with every choice made that follows from where the weights come from.

    A saved detector is built again without them, and has to come out the same.

    Args:
        config: of the detector.
        pretrained: see `Detector.build`.

    Example:
        >>> with_defaults(DetectorConfig("fcos", ("cell",), backbone="resnet10t"), pretrained=None).norm
        'batch'
    """
    loads = config.backbone == LITE0 if pretrained is None else pretrained is not False
    return replace(config, norm=config.norm or ("frozen" if loads else "batch"))


def as_conditioning_model(conditioning: Model | Mapping[str, Encoder]) -> Model:
    """A model as it is; encoders get a core without layers, which only brings their tokens to one width.

    Args:
        conditioning: a model, or encoders by modality, which are looked up in `Sample.content`.

    Raises:
        InputError: no encoder, or one of another modality.

    Example:
        >>> from mmattn.encoders.text.tiny_text import TinyText
        >>> as_conditioning_model({"text": TinyText(dim=7)}).core.dim
        8
    """
    if isinstance(conditioning, Model):
        return conditioning
    if not conditioning:
        raise InputError("detector: got conditioning without an encoder, expected one, or none at all")
    for name, encoder in conditioning.items():
        if encoder.modality != name:
            raise InputError(
                f"detector: got an encoder of {encoder.modality!r} for {name!r}, expected that modality"
            )
    widest = max(encoder.dim for encoder in conditioning.values())
    configs = {
        name: EncoderConfig(encoder.name, encoder.options(), standardise=not encoder.frozen)
        for name, encoder in conditioning.items()
    }
    fusion = FusionConfig(dim=widest + widest % 2, layers=0, heads=1)
    return build_model(conditioning, ModelConfig(configs, fusion))
