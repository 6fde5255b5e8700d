"""Optimizers by name, from `torch.optim` and timm."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import cache, partial
from typing import Any

import torch

from mmattn.errors import InputError, did_you_mean

__all__ = ["build_optimizer", "check_optimizer", "optimizer_names"]

_RESERVED = ("params", "lr", "weight_decay")
# Optimizers that need more than one forward and one backward pass a step: a closure, sparse or second
# derivatives.
_UNSUPPORTED = frozenset({"lbfgs", "sparseadam", "adahessian"})
_TIMM_MOMENTUM = 0.9  # timm's own default where an optimizer has momentum; its Nesterov variants refuse 0


def build_optimizer(
    name: str, groups: Iterable[dict[str, Any]], options: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """Build an optimizer by its name.

    Args:
        name: class of `torch.optim` in lower case ("adamw", "sgd", "nadam", ...); otherwise a name that timm
            registers ("lion", "lamb", "adopt", "muon", ...).
        groups: as `mmattn.training.parameter_groups.parameter_groups` makes them, each with its learning
            rate and weight decay.
        options: further keyword arguments of the class, such as `momentum` of sgd.

    Raises:
        InputError: no such optimizer or option, an option out of range, or nothing to train.

    Example:
        >>> groups = [{"params": [torch.zeros(2, requires_grad=True)], "lr": 0.1}]
        >>> build_optimizer("sgd", groups, {"momentum": 0.9}).defaults["momentum"]
        0.9
        >>> type(build_optimizer("lion", groups)).__name__
        'Lion'
        >>> build_optimizer("sgd", groups, {"momentun": 0.9})
        Traceback (most recent call last):
        mmattn.errors.InputError: optimizer sgd: no option 'momentun'. Did you mean 'momentum'?
    """
    groups = list(groups)
    if not groups:
        raise InputError("training: the task has no parameter that learns, expected at least one")
    build, known = _factory(name)
    for option in options or {}:
        if option not in known:
            raise InputError(f"optimizer {name}: no option {option!r}.{did_you_mean(option, known)}")
    try:
        return build(groups, **(options or {}))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise InputError(f"optimizer {name}: {error}") from error


def check_optimizer(name: str) -> None:
    """Check that there is an optimizer of this name.

    Args:
        name: as `build_optimizer` takes it.

    Raises:
        InputError: there is none.
    """
    if name not in _torch_optimizers() and name not in optimizer_names():
        raise InputError(
            f"optimizer: no optimizer {name!r} in torch.optim or timm.{did_you_mean(name, optimizer_names())}"
        )


@cache
def optimizer_names() -> tuple[str, ...]:
    """Return the names that `build_optimizer` knows, sorted.

    Example:
        >>> {"adamw", "sgd", "lion"} <= set(optimizer_names())
        True
    """
    from timm.optim import list_optimizers

    return tuple(sorted({*_torch_optimizers(), *map(str, list_optimizers())} - _UNSUPPORTED))


@cache
def _torch_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Lower-case name -> class of `torch.optim`."""
    return {
        name.lower(): value
        for name, value in vars(torch.optim).items()
        if isinstance(value, type)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
        and name != "Muon"  # refuses vectors; timm's trains them by AdamW
        and name.lower() not in _UNSUPPORTED
    }


def _factory(name: str) -> tuple[Any, set[str]]:
    """Return what builds an optimizer from groups, and the options that it takes."""
    if factory := _torch_optimizers().get(name):
        return factory, set(inspect.signature(factory).parameters) - set(_RESERVED)
    check_optimizer(name)
    from timm.optim import get_optimizer_class, get_optimizer_info

    try:
        build: Any = get_optimizer_class(name)
    except AssertionError as error:  # apex and bitsandbytes, where they are not installed
        raise InputError(f"optimizer {name}: {error}") from error
    known = set(inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters)
    if get_optimizer_info(name).has_momentum:
        build = partial(build, momentum=_TIMM_MOMENTUM)
    return build, known - set(_RESERVED)
