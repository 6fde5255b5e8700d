"""Configuration of a model: encoders, fusion and heads. Only `mmattn.model.build` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EncoderConfig", "FusionConfig", "HeadConfig", "ModelConfig"]


@dataclass(frozen=True)
class EncoderConfig:
    """Configuration of one encoder.

    Args:
        name: name in the registry (`mmattn plugins` lists them).
        options: keyword arguments of the encoder.
        source: key of `Sample.content` that the encoder reads; "" means the name of the modality. Two
            encoders may read the same content.
        fields: number of positions with a projection of their own (title, plot, ...); 1 means a shared one.
        dim_fraction: fraction of the fusion width that is initially reserved for this modality; 0 initializes
            its projection over the whole width.
        initial_gain: initial weight of the modality in the joint vector.
        standardise: whether to standardize the tokens to mean 0 and standard deviation 1, for encoders
            trained from scratch.
        positional_encoding: whether tokens get a positional encoding; turn it off for streams, which become
            longer than any training sequence.
        finetune: what to train of a pretrained encoder: nothing ("frozen"), everything ("full"), or low-rank
            adapters ("lora"); "" means as its options say.
        lora: options of `peft.LoraConfig`, for example `{r: 4}`.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    fields: int = 1
    dim_fraction: float = 0.0
    initial_gain: float = 1.0
    standardise: bool = False
    positional_encoding: bool = True
    finetune: Literal["", "frozen", "full", "lora"] = ""
    lora: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FusionConfig:
    """Configuration of the fusion core.

    Args:
        dim: width D of the tokens and of the joint vector.
        layers: attention layers over the tokens of all modalities.
        width: width inside the layers; smaller than D to save time, 0 means D.
        heads: attention heads H.
        program: attention program of every layer, as text.
        tasks: values that `context["task"]` may have, for programs with `dynamic(name, on="task")`.
        expansion: hidden width of the feed-forward network, as a multiple of D.
        dropout: dropout rate in the layers and on the output vectors.
    """

    dim: int = 192
    layers: int = 1
    width: int = 0
    heads: int = 4
    program: str = "Program(score=dot(), mask=full(), norm=softmax())"
    tasks: tuple[str, ...] = ()
    expansion: float = 2.0
    dropout: float = 0.1


@dataclass(frozen=True)
class HeadConfig:
    """Configuration of one head.

    Args:
        name: name in the registry.
        options: keyword arguments of the head.
    """

    name: str = "recommendation"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Configuration from which a model is built; it is saved with the model.

    Args:
        encoders: modality -> encoder.
        fusion: the fusion core.
        heads: name of the task -> head.
    """

    encoders: dict[str, EncoderConfig]
    fusion: FusionConfig = FusionConfig()
    heads: dict[str, HeadConfig] = field(default_factory=dict)
