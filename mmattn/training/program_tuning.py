"""Program tuning: a trained core moves to another task by its attention programs alone.

Encoders, projections, networks and pooling stay as they are; what is trained is the program's own
parameters (who looks at whom, how sharply, which heads speak) and whatever else is named, usually the
new task's head. The result is a file of a few kilobytes beside the model that it belongs to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mmattn.attention.language.program import Heads, Program, parse
from mmattn.attention.layer.head_gates import layers
from mmattn.attention.layer.reprogram import reprogram
from mmattn.encoders.base import hash_weights
from mmattn.errors import InputError, did_you_mean
from mmattn.files import atomic_path
from mmattn.model.model import Model

__all__ = ["load_tuned", "save_tuned", "tune_program"]

FORMAT = 1


def tune_program(
    model: Model, program: Program | Heads | str | None = None, extra_modules: Iterable[str] = ()
) -> dict[str, nn.Parameter]:
    """Freeze everything but the programs' parameters; `train` then trains only these.

    The related idea for weights is LoRA (Hu et al., 2021), for biases BitFit (Ben Zaken et al., 2021);
    here it is the attention pattern that is tuned.

    Args:
        model: a trained one.
        program: another program for every layer, richer than the one it was trained with, so that there
            is something to tune; terms that are new change nothing at first. Left out: the one it has.
        extra_modules: names of modules that are trained too, such as "heads.said" or "core.pool".

    Returns:
        Name in the model -> every parameter that is left to train.

    Raises:
        InputError: the program has no parameter, or there is no module of a name.

    Example:
        >>> from mmattn.model.build import build_encoders, build_model
        >>> from mmattn.config import EncoderConfig, FusionConfig, ModelConfig
        >>> encoder = EncoderConfig("tiny-text", {"dim": 6})
        >>> config = ModelConfig({"text": encoder}, FusionConfig(dim=8, heads=2))
        >>> model = build_model(build_encoders(config.encoders), config)
        >>> tuned = tune_program(model, "Program(score=dot() >> relative('near', 8))")
        >>> {name: parameter.numel() for name, parameter in tuned.items()}
        {'core.blocks.0.attention.terms.near': 16}
    """
    if program is not None:
        _reprogram(model, parse(program) if isinstance(program, str) else program)
    chosen = [layer.terms for _, layer in layers(model.core)]
    if not any(len(terms) for terms in chosen):
        raise InputError(
            "program tuning: the program has no parameter to tune, expected one such as "
            "dot() >> modality_bias('pair')"
        )
    modules = dict(model.named_modules())
    for name in extra_modules:
        if not name or name not in modules:
            raise InputError(
                f"program tuning: the model has no module {name!r}.{did_you_mean(name, modules)}"
            )
    model.requires_grad_(False)
    for module in (*chosen, model.core.task_embeddings, *(modules[name] for name in extra_modules)):
        if module is not None:
            module.requires_grad_(True)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_tuned(model: Model, path: str | Path) -> None:
    """Write what `tune_program` left to train, the program and a hash of the rest, atomically.

    Args:
        model: after `tune_program` and training.
        path: a `.safetensors` file.
    """
    tuned = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    about = {
        "format": FORMAT,
        "program": _core_program(model).to_json(),
        "frozen": _frozen_hash(model, set(tuned)),
    }
    with atomic_path(path) as temporary:
        tensors = {name: value.cpu().contiguous() for name, value in tuned.items()}
        save_file(tensors, str(temporary), metadata={"tuned": json.dumps(about)})


def load_tuned(model: Model, path: str | Path) -> None:
    """Give a model what `save_tuned` wrote for it.

    Args:
        model: with the frozen weights that the file was tuned on, and all modules that were tuned.
        path: the file.

    Raises:
        InputError: the file is none of these, or was tuned on other weights.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["tuned"])
            tuned = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a file of tuned programs ({error})") from error
    if about["format"] != FORMAT:
        raise InputError(f"{path}: got format {about['format']!r}, expected {FORMAT}")
    if (frozen_hash := _frozen_hash(model, set(tuned))) != about["frozen"]:
        raise InputError(
            f"{path}: was tuned on the frozen weights {about['frozen'][:12]}, "
            f"this model has {frozen_hash[:12]}"
        )
    _reprogram(model, Program.from_json(about["program"]))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in tuned.items():
            parameters[name].copy_(value)


def _reprogram(model: Model, program: Program | Heads) -> None:
    reprogram(model.core, program)
    if model.config is not None:  # what is saved with the model builds it with its new program
        model.config = replace(model.config, fusion=replace(model.config.fusion, program=str(program)))


def _core_program(model: Model) -> Program | Heads:
    return next(layer.program for _, layer in layers(model.core))


def _frozen_hash(model: Model, tuned: set[str]) -> str:
    """Of all weights that the tuning left alone; what belongs to a program comes and goes with it."""
    program = tuple(
        f"core.{name}.{what}"
        for name, _ in layers(model.core)
        for what in ("terms.", "slope", "_extra_state")
    )
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(program)}
    return hash_weights({name: value for name, value in state.items() if name not in tuned})
