"""Losses and miners of pytorch-metric-learning by name, as a configuration names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from torch import Tensor, nn

from mmattn.errors import InputError, did_you_mean

__all__ = ["ContrastiveLoss", "LossSpec", "available_losses", "available_miners", "build_contrastive_loss"]

LossSpec = str | Mapping[str, Any]  # a name, or {"name": ..., "options": {...}}

# What vectors and groups are not enough for: bases, wrappers of several losses, losses of two views.
_EXCLUDED_LOSSES = ("GenericPairLoss", "ManifoldLoss", "MultipleLosses", "SelfSupervisedLoss", "VICRegLoss")
_EXCLUDED_MINERS = ("EmbeddingsAlreadyPackagedAsTriplets",)
# Options that are things themselves, by the end of their names.
_COMPONENT_MODULES = {"distance": distances, "reducer": reducers, "regularizer": regularizers}
_DIM_OPTIONS = ("embedding_size", "descriptors_dim")  # what they call the vectors' width
_DEFAULTS = {"SupConLoss": {"temperature": 0.1}}


class ContrastiveLoss(nn.Module):
    """A loss over vectors and groups, on the pairs or triplets that a miner finds.

    Args:
        loss: of pytorch-metric-learning.
        miner: of pytorch-metric-learning; None takes all pairs.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module | None = None):
        super().__init__()
        self.loss = loss
        self.miner = miner

    def forward(self, vectors: Tensor, groups: Tensor) -> Tensor:
        """The loss of [B, D] vectors; rows of one `groups` [B] belong together.

        Args:
            vectors: [B, D].
            groups: [B] int64, equal for rows that belong together.

        Raises:
            InputError: more views than a cross-batch memory holds.
        """
        if isinstance(self.loss, CrossBatchMemory) and len(vectors) > self.loss.memory_size:
            raise InputError(
                f"CrossBatchMemory: got a batch of {len(vectors)} views, expected at most its memory_size, "
                f"{self.loss.memory_size}"
            )
        pairs = None if self.miner is None else self.miner(vectors, groups)
        return self.loss(vectors, groups, pairs)


class CrossBatchMemory(losses.CrossBatchMemory):
    """`CrossBatchMemory` whose place in its queue is part of its state, so that training resumes exactly.

    Paper: Wang et al., "Cross-Batch Memory for Embedding Learning", 2020.
    """

    def get_extra_state(self) -> Tensor:
        """The next place in the queue, and whether the queue is full."""
        return torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def set_extra_state(self, state: Tensor) -> None:
        """Take what `get_extra_state` gave.

        Args:
            state: as `get_extra_state` returned it.
        """
        self.queue_idx, self.has_been_filled = int(state[0]), bool(state[1])


def available_losses() -> dict[str, type[nn.Module]]:
    """Name -> every loss that vectors and groups are enough for."""
    kind = (losses.BaseMetricLossFunction, losses.BaseLossWrapper)
    return _classes(losses, kind, _EXCLUDED_LOSSES) | {"CrossBatchMemory": CrossBatchMemory}


def available_miners() -> dict[str, type[nn.Module]]:
    """Name -> miner."""
    return _classes(miners, (miners.BaseMiner,), _EXCLUDED_MINERS)


def build_contrastive_loss(
    loss: LossSpec, miner: LossSpec | None, dim: int, num_classes: int = 0
) -> ContrastiveLoss:
    """The loss, with its miner.

    Args:
        loss: `"SupConLoss"`, or `{"name": "TripletMarginLoss", "options": {"margin": 0.2}}`. Options that
            are things of their own are named the same way: `{"distance": {"name": "LpDistance"}}`, and
            `CrossBatchMemory` takes `{"loss": {"name": ...}, "memory_size": 1024}`.
        miner: the same; None for no miner.
        dim: of the vectors, for losses that have parameters or a memory.
        num_classes: how many groups there are, for losses that have a weight for each ("ArcFaceLoss").

    Raises:
        InputError: no such name (the nearest is suggested), or options that it does not take.

    Example:
        >>> import torch
        >>> memory = {"name": "CrossBatchMemory", "options": {"loss": "SupConLoss", "memory_size": 8}}
        >>> contrast = build_contrastive_loss(memory, "MultiSimilarityMiner", dim=3)
        >>> contrast(torch.randn(4, 3), torch.tensor([0, 0, 1, 1])).dim()
        0
    """
    made = _instantiate(loss, available_losses(), "loss", dim, num_classes)
    return ContrastiveLoss(
        made, None if miner is None else _instantiate(miner, available_miners(), "miner", dim)
    )


def _instantiate(
    spec: LossSpec, available: Mapping[str, type[nn.Module]], kind: str, dim: int, num_classes: int = 0
) -> Any:
    name, options = _parse_spec(spec, kind)
    if name not in available:
        raise InputError(f"no {kind} {name!r} in pytorch-metric-learning.{did_you_mean(name, available)}")
    made = {
        key: _resolve_option(key, value, dim) for key, value in (_DEFAULTS.get(name, {}) | options).items()
    }
    taken = _constructor_arguments(available[name])
    made |= {key: dim for key in _DIM_OPTIONS if key in taken and key not in made}
    if num_classes and "num_classes" in taken:
        made.setdefault("num_classes", num_classes)
    try:
        return available[name](**made)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        raise InputError(
            f"{kind} {name}: {type(error).__name__}: {error}; it takes {', '.join(taken)}"
        ) from error


def _constructor_arguments(cls: type) -> list[str]:
    """Names that a constructor takes, its bases' too, where it hands them on."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if base is nn.Module:
            break
        if "__init__" in vars(base):
            for name, parameter in list(inspect.signature(base).parameters.items()):
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    names[name] = None
    return list(names)


def _parse_spec(spec: LossSpec, kind: str) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    unknown = sorted(set(spec) - {"name", "options"})
    if "name" not in spec or unknown:
        raise InputError(f"{kind}: got {dict(spec)}, expected a name, or the keys name and options")
    return spec["name"], dict(spec.get("options") or {})


def _resolve_option(key: str, value: Any, dim: int) -> Any:
    """An option as it is, or the thing that it names."""
    if key == "loss":
        return _instantiate(value, available_losses(), "loss", dim)
    if key == "miner":
        return None if value is None else _instantiate(value, available_miners(), "miner", dim)
    module = _COMPONENT_MODULES.get(key.rpartition("_")[2])
    if module is None or value is None:
        return value
    return _instantiate(value, _classes(module, (nn.Module,), ()), key, dim)


def _classes(module: ModuleType, kinds: tuple[type, ...], exclude: tuple[str, ...]) -> dict[str, Any]:
    return {
        name: member
        for name, member in vars(module).items()
        if inspect.isclass(member)
        and issubclass(member, kinds)
        and not name.startswith("Base")
        and name not in exclude
    }
