"""The hybrid of a run: its settings from validation, its content part from the trained head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mmattn.experiments.config import HybridConfig
from mmattn.recommenders import Recommender
from mmattn.recommenders.hybrid import BalancedEASE, Hybrid
from mmattn.recommenders.kernels import tag_matrix
from mmattn.recommenders.user_kernel import UserKernel
from mmattn.types import Sample

__all__ = ["choose_hybrid", "fit_hybrid", "user_profiles"]

log = logging.getLogger(__name__)
Settings = Mapping[str, float]
Judge = Callable[[Recommender], float]

_ITEMS = ("strength", "balance")
_USERS = ("user_strength", "sharpness", "rarity", "user_balance", "profile")
_MIXTURE = ("share", "evidence", "modesty", "lift")


def choose_hybrid(
    config: HybridConfig,
    interactions: sparse.csr_array,
    content: NDArray[Any] | None,
    known: NDArray[np.int64],
    judge: Judge,
    profiles: NDArray[Any] | None = None,
) -> dict[str, float]:
    """The settings that do best on validation.

    Every candidate of a part is fitted once; mixtures of fitted parts cost a measurement only.

    Args:
        config: candidates of every setting.
        interactions: [U, I], the known ones when validation is predicted.
        content: [known, I] what each known item says of every item.
        known: ids, ascending.
        judge: validation figure, higher is better. The only figure that a choice sees.
        profiles: [U, F] what else is known of users; None for nothing.
    """

    def part(
        names: tuple[str, ...], build: Callable[[Settings], Recommender], features: NDArray[Any] | None = None
    ) -> dict[str, float]:
        grid = [
            dict(zip(names, values, strict=True)) for values in product(*(getattr(config, n) for n in names))
        ]
        return _best(grid, lambda one: judge(build(one).fit(interactions, features, known)))

    chosen = part(_ITEMS, _items) | {name: getattr(config, name)[0] for name in (*_USERS, *_MIXTURE)}
    chosen["share"] = max(config.share)  # the users' part must be there to be mixed in
    if chosen["share"]:
        chosen |= part(_USERS, lambda settings: _users(settings, config.most), profiles)
    hybrid = fit_hybrid(chosen, interactions, content, known, profiles, config.most)
    for name in _MIXTURE:
        others = {other: chosen[other] for other in _MIXTURE}
        grid = [others | {name: value} for value in getattr(config, name)]
        chosen |= _best(grid, lambda one: judge(hybrid.reblended(**one)))
    return chosen


def fit_hybrid(
    settings: Settings,
    interactions: sparse.csr_array,
    content: NDArray[Any] | None,
    known: NDArray[np.int64],
    profiles: NDArray[Any] | None = None,
    most: int = 20_000,
) -> Hybrid:
    """A hybrid with the settings that `choose_hybrid` found; arguments as there."""
    mixture = {name: settings[name] for name in _MIXTURE}
    hybrid = Hybrid(_items(settings), _users(settings, most) if settings["share"] else None, **mixture)
    return hybrid.fit(interactions, content, known, profiles)


def user_profiles(users: Sequence[Sample]) -> NDArray[np.float32] | None:
    """[U, F] ones for what the table of users says of each, in words; None where it says nothing.

    Example:
        >>> user_profiles([Sample("a", {"table": {"age": "25-34", "visits": 7.0}}), Sample("b", {})]).tolist()
        [[1.0], [0.0]]
    """
    told = [
        [
            f"{name}:{value}"
            for name, value in (user.content.get("table") or {}).items()
            if isinstance(value, str)
        ]
        for user in users
    ]
    return tag_matrix(told).toarray().astype(np.float32) if any(told) else None


def _items(settings: Settings) -> BalancedEASE:
    return BalancedEASE(settings["strength"], settings["balance"])


def _users(settings: Settings, most: int) -> UserKernel:
    return UserKernel(
        settings["user_strength"], settings["sharpness"], settings["rarity"],
        settings["user_balance"], settings["profile"], most,
    )  # fmt: skip


def _best(grid: Iterable[dict[str, float]], measure: Callable[[dict[str, float]], float]) -> dict[str, float]:
    """The first of the best; where there is no choice, nothing is measured."""
    candidates = list(grid)
    if len(candidates) == 1:
        return candidates[0]
    found = [measure(one) for one in candidates]
    for one, value in zip(candidates, found, strict=True):
        log.info("hybrid: %.4f with %s", value, one)
    return candidates[int(np.argmax(found))]
