"""Optimizers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from mmattn.errors import InputError, did_you_mean

__all__ = ["OPTIMIZERS", "build_optimizer"]

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
}
_RESERVED = ("params", "lr", "weight_decay")


def build_optimizer(
    name: str, groups: list[dict[str, Any]], options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """One of PyTorch's optimizers.

    Args:
        name: one of `OPTIMIZERS`.
        groups: as `mmattn.training.parameter_groups.parameter_groups` makes them, each with its rate and
            decay.
        options: further keyword arguments of the torch class, such as `momentum` of sgd.

    Raises:
        InputError: no such optimizer or option, or nothing to train.

    Example:
        >>> groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": 0.1}]
        >>> build_optimizer("sgd", groups, {"momentum": 0.9}).defaults["momentum"]
        0.9
        >>> build_optimizer("sgd", groups, {"momentun": 0.9})
        Traceback (most recent call last):
        mmattn.errors.InputError: optimizer sgd: no option 'momentun'. Did you mean 'momentum'?
    """
    if name not in OPTIMIZERS:
        raise InputError(f"training: no optimizer {name!r}.{did_you_mean(name, OPTIMIZERS)}")
    if not groups:
        raise InputError("training: the task has no parameter that learns, expected at least one")
    known = set(inspect.signature(OPTIMIZERS[name]).parameters) - set(_RESERVED)
    for option in options or {}:
        if option not in known:
            raise InputError(f"optimizer {name}: no option {option!r}.{did_you_mean(option, known)}")
    try:
        return OPTIMIZERS[name](groups, **(options or {}))
    except (ValueError, TypeError) as error:
        raise InputError(f"optimizer {name}: {error}") from error
