"""The kinds of baselines that a configuration may name: what each is, takes, and may be tuned in.

To add one: a class with `fit` and `score` (`mmattn.recommenders.Recommender`), its name in
`BaselineConfig.kind`, and a line in `BASELINES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmattn import recommenders
from mmattn.errors import InputError, did_you_mean
from mmattn.experiments.config import BaselineConfig
from mmattn.experiments.tuning import Choice, FloatRange, IntRange, Space
from mmattn.recommenders.recent_popularity import RecentPopularity
from mmattn.recommenders.sasrec import SASRec

__all__ = ["BASELINES", "BaselineKind", "baseline_arguments", "search_space", "with_settings"]

_TRAINED_ARGUMENTS = ("seed", "validate_fn", "device")
_PAIRWISE_SPACE: Mapping[str, FloatRange | IntRange] = {
    "dim": IntRange(16, 128, log=True),
    "learning_rate": FloatRange(1e-3, 5e-2, log=True),
    "regularization": FloatRange(1e-5, 1e-1, log=True),
}


@dataclass(frozen=True)
class BaselineKind:
    """One kind of baseline.

    Args:
        factory: its class.
        content: what `fit` takes as features: nothing, vectors [I, F], a kernel [I, I], or histories in time.
        regularization_argument: the argument that a configuration's `regularization_argument` is; empty where
            there is none.
        runtime_arguments: arguments that the run gives and not the configuration.
        tuning_space: argument -> what tuning may choose.
    """

    factory: type[Any]
    content: Literal["", "features", "kernel", "histories"] = ""
    regularization_argument: str = "regularization"
    runtime_arguments: tuple[str, ...] = ()
    tuning_space: Mapping[str, FloatRange | IntRange] = field(default_factory=dict)


BASELINES: Mapping[str, BaselineKind] = {
    "popularity": BaselineKind(recommenders.Popularity, regularization_argument=""),
    "recent-popularity": BaselineKind(
        RecentPopularity,
        "histories",
        regularization_argument="half_life",
        tuning_space={"half_life": FloatRange(10.0, 5000.0, log=True)},
    ),
    "sasrec": BaselineKind(
        SASRec,
        "histories",
        regularization_argument="",
        runtime_arguments=_TRAINED_ARGUMENTS,
        tuning_space={
            "dim": IntRange(16, 128, log=True),
            "layers": IntRange(1, 3),
            "dropout": FloatRange(0.1, 0.7),
            "learning_rate": FloatRange(3e-4, 1e-2, log=True),
        },
    ),
    "item-knn": BaselineKind(
        recommenders.ItemKNN,
        regularization_argument="shrinkage",
        tuning_space={
            "num_neighbors": IntRange(5, 1000, log=True),
            "shrinkage": FloatRange(0.1, 1000.0, log=True),
        },
    ),
    "ease": BaselineKind(
        recommenders.EASE, tuning_space={"regularization": FloatRange(10.0, 5000.0, log=True)}
    ),
    "als": BaselineKind(
        recommenders.ImplicitALS,
        runtime_arguments=("seed",),
        tuning_space={
            "dim": IntRange(16, 256, log=True),
            "regularization": FloatRange(1e-2, 1e3, log=True),
            "alpha": FloatRange(0.1, 100.0, log=True),
        },
    ),
    "bpr": BaselineKind(recommenders.BPR, runtime_arguments=_TRAINED_ARGUMENTS, tuning_space=_PAIRWISE_SPACE),
    "lightgcn": BaselineKind(
        recommenders.LightGCN,
        runtime_arguments=_TRAINED_ARGUMENTS,
        tuning_space={**_PAIRWISE_SPACE, "layers": IntRange(1, 4)},
    ),
    "vbpr": BaselineKind(
        recommenders.VBPR,
        "features",
        runtime_arguments=_TRAINED_ARGUMENTS,
        tuning_space={**_PAIRWISE_SPACE, "visual_dim": IntRange(8, 64, log=True)},
    ),
    "content-ridge": BaselineKind(
        recommenders.ContentRidge,
        "features",
        tuning_space={"regularization": FloatRange(0.1, 1000.0, log=True)},
    ),
    "content-knn": BaselineKind(
        recommenders.ContentKNN,
        "features",
        regularization_argument="num_neighbors",
        tuning_space={"num_neighbors": IntRange(5, 1000, log=True)},
    ),
    "kernel-ridge": BaselineKind(
        recommenders.KernelRidge, "kernel", tuning_space={"regularization": FloatRange(0.1, 100.0, log=True)}
    ),
}


def baseline_arguments(config: BaselineConfig) -> dict[str, Any]:
    """Return the keyword arguments of a baseline's class that its configuration sets.

    Args:
        config: of the baseline.

    Raises:
        InputError: an argument that the class does not have, or a value of another type.

    Example:
        >>> baseline_arguments(BaselineConfig("content-knn", regularization=20.0))
        {'num_neighbors': 20}
    """
    kind, defaults = BASELINES[config.kind], _default_arguments(config.kind)
    stated = dict(config.options)
    if config.regularization:
        if not kind.regularization_argument:
            raise InputError(
                f"baseline {config.kind!r}: regularization: got {config.regularization:g}, expected none"
            )
        stated.setdefault(kind.regularization_argument, config.regularization)
    for name, value in stated.items():
        where = f"baseline {config.kind!r}: {name}"
        if name not in defaults:
            raise InputError(f"{where}: no such option.{did_you_mean(name, defaults)}")
        expected = type(defaults[name])
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == expected(value):
            stated[name] = expected(value)
        elif not isinstance(value, expected):
            raise InputError(f"{where}: got {value!r}, expected a number like {defaults[name]}")
    return stated


def search_space(config: BaselineConfig) -> tuple[Space, dict[str, Any]]:
    """Return the search space of a baseline, and the configured values, which are tried first.

    Beside the kind's own arguments that is the weight of each content where there are several, widths of
    numbers and the exponent, each from an eighth to eight times of what the configuration says.

    Args:
        config: of the baseline.

    Example:
        >>> space, start = search_space(BaselineConfig("kernel-ridge", vectors={"text": 1.0}, exponent=0.5))
        >>> start
        {'regularization': 3.0, 'exponent': 0.5, 'vectors.text': 1.0}
        >>> space["exponent"]
        FloatRange(low=0.0625, high=4.0, log=True)
    """
    kind, settings = BASELINES[config.kind], {**_default_arguments(config.kind), **baseline_arguments(config)}
    # What a configuration switches off stays off: no range by logarithm has a 0.
    start = {name: settings[name] for name in kind.tuning_space if settings[name] > 0}
    space: dict[str, FloatRange | IntRange | Choice] = {
        name: _widen_range(kind.tuning_space[name], value) for name, value in start.items()
    }
    around = {"exponent": config.exponent} if config.exponent else {}
    weights = {
        f"{part}.{name}": weight
        for part in ("vectors", "tags", "tfidf")
        for name, weight in getattr(config, part).items()
    }
    if len(weights) > 1 or config.exponent:  # a single weight is one over the strength
        around |= weights
    around |= {f"gaussian.{name}": width for name, width in config.gaussian.items()}
    if kind.content:
        space |= {
            name: FloatRange(value / 8, value * 8, log=True) for name, value in around.items() if value > 0
        }
        start |= {name: value for name, value in around.items() if value > 0}
    return space, start


def with_settings(config: BaselineConfig, settings: Mapping[str, Any]) -> BaselineConfig:
    """Return a configuration with tuned settings put over it.

    Args:
        config: of the baseline.
        settings: setting -> value.

    Example:
        >>> said = BaselineConfig("vbpr", vectors={"image": 1.0})
        >>> found = with_settings(said, {"dim": 8, "vectors.image": 0.5})
        >>> found.options, found.vectors
        ({'dim': 8}, {'image': 0.5})
    """
    changes: dict[str, Any] = {"options": dict(config.options)}
    for name, value in settings.items():
        part, dot, key = name.partition(".")
        if dot:
            changes[part] = {**changes.get(part, getattr(config, part)), key: value}
        elif name == "exponent":
            changes[name] = value
        else:
            changes["options"][name] = value
    return replace(config, **changes)


def _default_arguments(kind: str) -> dict[str, Any]:
    """Argument of the kind's class, or of those it is made from -> default."""
    defaults: dict[str, Any] = {}
    for made_from in reversed(BASELINES[kind].factory.__mro__[:-1]):
        if "__init__" in vars(made_from):
            for name, parameter in inspect.signature(made_from).parameters.items():
                if parameter.default is not inspect.Parameter.empty:
                    defaults[name] = parameter.default
    return {name: value for name, value in defaults.items() if name not in BASELINES[kind].runtime_arguments}


def _widen_range(parameter_range: FloatRange | IntRange, value: float) -> FloatRange | IntRange:
    """The range, wide enough for a value that a configuration asks for."""
    low, high = min(parameter_range.low, value), max(parameter_range.high, value)
    return (
        IntRange(int(low), int(high), parameter_range.log)
        if isinstance(parameter_range, IntRange)
        else FloatRange(low, high, parameter_range.log)
    )
