"""The kinds of rivals that a configuration may name: what each is, takes, and may be tuned in.

To add one: a class with `fit` and `score` (`mmattn.recommenders.Recommender`), its name in
`RivalConfig.kind`, and a line in `KINDS`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mmattn import recommenders
from mmattn.errors import InputError, nearest
from mmattn.experiments.config import RivalConfig
from mmattn.experiments.tuning import Choice, Real, Space, Whole
from mmattn.recommenders.recent_popularity import RecentPopularity
from mmattn.recommenders.sasrec import SASRec

__all__ = ["KINDS", "Kind", "search_space", "settings_of", "with_settings"]

_LEARNED = ("seed", "judge", "device")
_PAIRS: Mapping[str, Real | Whole] = {
    "dim": Whole(16, 128, log=True),
    "learning_rate": Real(1e-3, 5e-2, log=True),
    "strength": Real(1e-5, 1e-1, log=True),
}


@dataclass(frozen=True)
class Kind:
    """One kind of rival.

    Args:
        build: its class.
        content: what `fit` takes as features: nothing, vectors [I, F], a kernel [I, I], or histories in time.
        strength: the argument that a configuration's `strength` is; empty where there is none.
        given: arguments that the run gives and not the configuration.
        space: argument -> what tuning may choose.
    """

    build: type[Any]
    content: Literal["", "features", "kernel", "histories"] = ""
    strength: str = "strength"
    given: tuple[str, ...] = ()
    space: Mapping[str, Real | Whole] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "popularity": Kind(recommenders.Popularity, strength=""),
    "recent-popularity": Kind(
        RecentPopularity,
        "histories",
        strength="half_life",
        space={"half_life": Real(10.0, 5000.0, log=True)},
    ),
    "sasrec": Kind(
        SASRec,
        "histories",
        strength="",
        given=_LEARNED,
        space={
            "dim": Whole(16, 128, log=True),
            "layers": Whole(1, 3),
            "dropout": Real(0.1, 0.7),
            "learning_rate": Real(3e-4, 1e-2, log=True),
        },
    ),
    "item-knn": Kind(
        recommenders.ItemKNN,
        strength="shrinkage",
        space={"neighbours": Whole(5, 1000, log=True), "shrinkage": Real(0.1, 1000.0, log=True)},
    ),
    "ease": Kind(recommenders.EASE, space={"strength": Real(10.0, 5000.0, log=True)}),
    "als": Kind(
        recommenders.ImplicitALS,
        given=("seed",),
        space={
            "dim": Whole(16, 256, log=True),
            "strength": Real(1e-2, 1e3, log=True),
            "confidence": Real(0.1, 100.0, log=True),
        },
    ),
    "bpr": Kind(recommenders.BPR, given=_LEARNED, space=_PAIRS),
    "lightgcn": Kind(recommenders.LightGCN, given=_LEARNED, space={**_PAIRS, "layers": Whole(1, 4)}),
    "vbpr": Kind(
        recommenders.VBPR, "features", given=_LEARNED, space={**_PAIRS, "visual_dim": Whole(8, 64, log=True)}
    ),
    "content-ridge": Kind(
        recommenders.ContentRidge, "features", space={"strength": Real(0.1, 1000.0, log=True)}
    ),
    "content-knn": Kind(
        recommenders.ContentKNN,
        "features",
        strength="neighbours",
        space={"neighbours": Whole(5, 1000, log=True)},
    ),
    "kernel-ridge": Kind(recommenders.KernelRidge, "kernel", space={"strength": Real(0.1, 100.0, log=True)}),
}


def settings_of(config: RivalConfig) -> dict[str, Any]:
    """The keyword arguments of the rival's class, as far as the configuration says them.

    Raises:
        InputError: an argument that the class does not have, or a value of another type.

    Example:
        >>> settings_of(RivalConfig("content-knn", strength=20.0))
        {'neighbours': 20}
    """
    kind, defaults = KINDS[config.kind], _defaults(config.kind)
    said = dict(config.options)
    if config.strength:
        if not kind.strength:
            raise InputError(f"rival {config.kind!r}: strength: got {config.strength:g}, expected none")
        said.setdefault(kind.strength, config.strength)
    for name, value in said.items():
        where = f"rival {config.kind!r}: {name}"
        if name not in defaults:
            raise InputError(f"{where}: no such option.{nearest(name, defaults)}")
        expected = type(defaults[name])
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == expected(value):
            said[name] = expected(value)
        elif not isinstance(value, expected):
            raise InputError(f"{where}: got {value!r}, expected a number like {defaults[name]}")
    return said


def search_space(config: RivalConfig) -> tuple[Space, dict[str, Any]]:
    """What tuning may choose for a rival, and what the configuration says of it, which is tried first.

    Beside the kind's own arguments that is the weight of each content where there are several, widths of
    numbers and the exponent, each from an eighth to eight times of what the configuration says.

    Example:
        >>> space, start = search_space(RivalConfig("kernel-ridge", vectors={"text": 1.0}, exponent=0.5))
        >>> start
        {'strength': 3.0, 'exponent': 0.5, 'vectors.text': 1.0}
        >>> space["exponent"]
        Real(low=0.0625, high=4.0, log=True)
    """
    kind, settings = KINDS[config.kind], {**_defaults(config.kind), **settings_of(config)}
    # What a configuration switches off stays off: no range by logarithm has a 0.
    start = {name: settings[name] for name in kind.space if settings[name] > 0}
    space: dict[str, Real | Whole | Choice] = {
        name: _including(kind.space[name], value) for name, value in start.items()
    }
    around = {"exponent": config.exponent} if config.exponent else {}
    weights = {
        f"{part}.{name}": weight
        for part in ("vectors", "tags", "rare")
        for name, weight in getattr(config, part).items()
    }
    if len(weights) > 1 or config.exponent:  # a single weight is one over the strength
        around |= weights
    around |= {f"numbers.{name}": width for name, width in config.numbers.items()}
    if kind.content:
        space |= {name: Real(value / 8, value * 8, log=True) for name, value in around.items() if value > 0}
        start |= {name: value for name, value in around.items() if value > 0}
    return space, start


def with_settings(config: RivalConfig, found: Mapping[str, Any]) -> RivalConfig:
    """The configuration with what tuning found put over it.

    Example:
        >>> said = RivalConfig("vbpr", vectors={"image": 1.0})
        >>> found = with_settings(said, {"dim": 8, "vectors.image": 0.5})
        >>> found.options, found.vectors
        ({'dim': 8}, {'image': 0.5})
    """
    changes: dict[str, Any] = {"options": dict(config.options)}
    for name, value in found.items():
        part, dot, key = name.partition(".")
        if dot:
            changes[part] = {**changes.get(part, getattr(config, part)), key: value}
        elif name == "exponent":
            changes[name] = value
        else:
            changes["options"][name] = value
    return replace(config, **changes)


def _defaults(kind: str) -> dict[str, Any]:
    """Argument of the kind's class, or of those it is made from -> default."""
    found: dict[str, Any] = {}
    for made_from in reversed(KINDS[kind].build.__mro__[:-1]):
        if "__init__" in vars(made_from):
            for name, one in inspect.signature(made_from).parameters.items():
                if one.default is not inspect.Parameter.empty:
                    found[name] = one.default
    return {name: value for name, value in found.items() if name not in KINDS[kind].given}


def _including(one: Real | Whole, value: float) -> Real | Whole:
    """The range, wide enough for a value that a configuration asks for."""
    low, high = min(one.low, value), max(one.high, value)
    return Whole(int(low), int(high), one.log) if isinstance(one, Whole) else Real(low, high, one.log)
