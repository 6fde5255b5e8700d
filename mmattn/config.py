"""Configuration of a model: encoders, fusion and heads. Configuration stops at `mmattn.model.build`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["EncoderConfig", "FusionConfig", "HeadConfig", "ModelConfig"]


@dataclass(frozen=True)
class EncoderConfig:
    """One encoder.

    Args:
        name: its name in the registry (`mmattn plugins` lists them).
        options: its keyword arguments.
        source: key of `Sample.source` that it reads; left out, the modality's own name. Two encoders
            may read the same content.
        fields: positions with a projection of their own (title, plot, ...); 1 shares one.
        dim_fraction: share of the fusion core's coordinates that is this modality's own block at the start; 0
            spreads it over all.
        initial_gain: how much it counts in the joint vector at the start.
        standardise: bring the tokens to mean 0 and deviation 1, for encoders trained from scratch.
        positional_encoding: whether tokens get a code of their position; not for streams, which go on longer
            than anything that was trained on.
        finetune: what of a pretrained encoder is trained along: nothing ("frozen"), everything ("full"), or
            small matrices beside its layers ("lora"); left out, what its options say.
        lora: options of `peft.LoraConfig`; `{r: 4}`.
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
    """The fusion core.

    Args:
        dim: width D.
        layers: attention layers over the tokens of all modalities.
        width: width inside the layers, smaller than D to save time; 0 takes D.
        heads: attention heads H.
        program: the attention program of every layer, as text.
        tasks: names that `context["task"]` may hold, for programs with `dynamic(name, on="task")`.
        expansion: hidden width of the token-wise network, as a multiple of D.
        dropout: probability, in the layers and on the vectors that leave.
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
    """The head: its name in the registry and its keyword arguments."""

    name: str = "recommendation"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """What builds a model, and what a saved one carries: encoders by modality, the core, heads by name."""

    encoders: dict[str, EncoderConfig]
    fusion: FusionConfig = FusionConfig()
    heads: dict[str, HeadConfig] = field(default_factory=dict)
