"""Parameter groups of the optimizer: which weights decay, and at which rate each learns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from mmattn.encoders.base import Encoder
from mmattn.errors import InputError, did_you_mean

__all__ = ["layer_depths", "parameter_groups"]

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


def parameter_groups(
    module: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float = 0.0,
    lr_multipliers: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
    learning_rates: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Sort the trained parameters into groups of one learning rate and one weight decay each.

    Weights decay. Parameters of at most one dimension (biases, norms, single numbers), parameters of norms
    and those that a module names in its method `no_weight_decay()` (timm's convention; `Attention` names the
    parameters of its program) do not: a bias table or a temperature that decays to zero means something
    else, not something simpler.

    Paper: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
    (learning rates that fall from layer to layer).

    Args:
        module: what is trained; parameters without gradient are left out.
        learning_rate: of everything that the arguments below do not change.
        weight_decay: of what decays.
        lr_multipliers: part of the module, as the beginning of its parameters' names -> factor on the rate.
            The longest name that fits counts. A leading "model." may be left out.
        layer_decay: factor on the rate from each layer of an encoder to the one below it, so that
            layer i of L learns with `layer_decay ** (L - 1 - i)`, and what lies below the layers (the
            embeddings) with `layer_decay ** L`; 1 gives all layers one rate.
        learning_rates: parameter name -> its own learning rate, whatever the others say.

    Returns:
        Groups in a fixed order, {"params", "lr", "weight_decay", "names"}.

    Raises:
        InputError: a name in `lr_multipliers` that no trained parameter has, or a factor out of range.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
        >>> for group in parameter_groups(net, learning_rate=1.0, weight_decay=0.1,
        ...     lr_multipliers={"0": 0.5}):
        ...     print(group["lr"], group["weight_decay"], group["names"])
        0.5 0.1 ['0.weight']
        0.5 0.0 ['0.bias']
        1.0 0.0 ['1.weight', '1.bias', '2.bias']
        1.0 0.1 ['2.weight']
    """
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    factors = _lr_multiplier_by_parameter(lr_multipliers or {}, list(trained))
    if not 0 < layer_decay <= 1:
        raise InputError(f"training layer_decay: got {layer_decay}, expected a factor above 0 and at most 1")
    depths = _encoder_depths(module) if layer_decay < 1 else {}
    plain = set(_no_decay_names(module))
    own_rates = learning_rates or {}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trained.items():
        rate = learning_rate * factors.get(name, 1.0) * layer_decay ** depths.get(name, 0)
        rate = own_rates.get(name, rate)
        decay = 0.0 if parameter.dim() <= 1 or name in plain else weight_decay
        empty: dict[str, Any] = {"params": [], "lr": rate, "weight_decay": decay, "names": []}
        group = groups.setdefault((rate, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def layer_depths(module: nn.Module) -> dict[str, int]:
    """Return how many layers lie above each parameter: 0 in the top layer and in what follows it.

    The layers are the members of the outermost `ModuleList` or `Sequential`, of the longest one where
    several lie equally far out. What is defined before them counts as one layer more.

    Args:
        module: an encoder.

    Example:
        >>> from torch import nn
        >>> net = nn.ModuleDict({
        ...     "embed": nn.Embedding(5, 2),
        ...     "layers": nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(3)]),
        ...     "top": nn.Linear(2, 1, bias=False),
        ... })
        >>> layer_depths(net)
        {'embed.weight': 3, 'layers.0.weight': 2, 'layers.1.weight': 1, 'layers.2.weight': 0, 'top.weight': 0}
    """
    stacks = [
        (name.count(".") if name else -1, -len(part), name)
        for name, part in module.named_modules()
        if isinstance(part, (nn.ModuleList, nn.Sequential)) and len(part) > 1
    ]
    if not stacks:
        return {name: 0 for name, _ in module.named_parameters()}
    _, negative, stack = min(stacks, key=lambda stack_key: stack_key[:2])
    prefix, layers = f"{stack}." if stack else "", -negative
    depths, outside = {}, layers
    for name, _ in module.named_parameters():  # in the order of their definition
        if name.startswith(prefix):
            depths[name], outside = layers - 1 - int(name.removeprefix(prefix).split(".")[0]), 0
        else:
            depths[name] = outside
    return depths


def _encoder_depths(module: nn.Module) -> dict[str, int]:
    return {
        f"{where}.{name}" if where else name: depth
        for where, part in module.named_modules()
        if isinstance(part, Encoder)
        for name, depth in layer_depths(part).items()
    }


def _parameter_names(module: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in module.named_parameters()}


def _no_decay_names(module: nn.Module) -> Iterator[str]:
    """Names of the parameters that never decay, whatever their shape."""
    names = _parameter_names(module)
    for part in module.modules():
        if isinstance(part, _NORMS):
            yield from (names[id(parameter)] for parameter in part.parameters(recurse=False))
        elif callable(no_weight_decay := getattr(part, "no_weight_decay", None)):
            named = dict(part.named_parameters())
            yield from (names[id(named[name])] for name in no_weight_decay() if name in named)


def _lr_multiplier_by_parameter(lr_multipliers: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """Parameter -> factor of the longest key that its name begins with."""
    multipliers: dict[str, tuple[int, float]] = {}
    for key, factor in lr_multipliers.items():
        if factor <= 0:
            raise InputError(f"training lr_multipliers: got {factor} for {key!r}, expected a factor above 0")
        begins = (f"{key}.", f"model.{key}.")
        fitting = [name for name in names if f"{name}.".startswith(begins)]
        if not fitting:
            raise InputError(
                f"training lr_multipliers: no trained part {key!r}.{did_you_mean(key, _name_prefixes(names))}"
            )
        for name in fitting:
            multipliers[name] = max(multipliers.get(name, (0, 1.0)), (len(key), factor))
    return {name: factor for name, (_, factor) in multipliers.items()}


def _name_prefixes(names: list[str]) -> set[str]:
    """Every beginning of a parameter's name that `lr_multipliers` may give, down to three levels."""
    plain = [name.removeprefix("model.").split(".")[:-1] for name in names]
    return {".".join(parts[:depth]) for parts in plain for depth in range(1, min(len(parts), 3) + 1)}
