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

__all__ = ["fit_hybrid", "tune_hybrid", "user_profiles"]

log = logging.getLogger(__name__)
Settings = Mapping[str, float]
ValidateFn = Callable[[Recommender], float]

_ITEM_SETTINGS = ("regularization", "activity_power")
_USER_SETTINGS = ("user_regularization", "kernel_scale", "idf_power", "user_activity_power", "profile_scale")
_MIXTURE_SETTINGS = ("user_weight", "shrinkage", "popularity_penalty", "content_scale")


def tune_hybrid(
    config: HybridConfig,
    interactions: sparse.csr_array,
    content: NDArray[Any] | None,
    known: NDArray[np.int64],
    validate_fn: ValidateFn,
    profiles: NDArray[Any] | None = None,
) -> dict[str, float]:
    """The settings that do best on validation.

    Every candidate of a part is fitted once; mixtures of fitted parts cost a measurement only.

    Args:
        config: candidates of every setting.
        interactions: [U, I], the known ones when validation is predicted.
        content: [known, I] what each known item says of every item.
        known: ids, ascending.
        validate_fn: validation figure, higher is better. The only figure that a choice sees.
        profiles: [U, F] what else is known of users; None for nothing.
    """

    def tune_part(
        names: tuple[str, ...], build: Callable[[Settings], Recommender], features: NDArray[Any] | None = None
    ) -> dict[str, float]:
        grid = [
            dict(zip(names, values, strict=True)) for values in product(*(getattr(config, n) for n in names))
        ]
        return _best_settings(
            grid, lambda settings: validate_fn(build(settings).fit(interactions, features, known))
        )

    chosen = tune_part(_ITEM_SETTINGS, _item_model) | {
        name: getattr(config, name)[0] for name in (*_USER_SETTINGS, *_MIXTURE_SETTINGS)
    }
    chosen["user_weight"] = max(config.user_weight)  # the users' part must be there to be mixed in
    if chosen["user_weight"]:
        chosen |= tune_part(
            _USER_SETTINGS, lambda settings: _user_model(settings, config.max_users), profiles
        )
    hybrid = fit_hybrid(chosen, interactions, content, known, profiles, config.max_users)
    for name in _MIXTURE_SETTINGS:
        others = {other: chosen[other] for other in _MIXTURE_SETTINGS}
        grid = [others | {name: value} for value in getattr(config, name)]
        chosen |= _best_settings(grid, lambda settings: validate_fn(hybrid.with_weights(**settings)))
    return chosen


def fit_hybrid(
    settings: Settings,
    interactions: sparse.csr_array,
    content: NDArray[Any] | None,
    known: NDArray[np.int64],
    profiles: NDArray[Any] | None = None,
    max_users: int = 20_000,
) -> Hybrid:
    """Fit a hybrid with selected settings.

    Args:
        settings: as `tune_hybrid` returned them.
        interactions: [U, I], the known ones.
        content: [known, I] weights between items; None for none.
        known: ids, ascending.
        profiles: [U, F] user profiles; None for none.
        max_users: users that the users' part learns from, at most.
    """
    mixture = {name: settings[name] for name in _MIXTURE_SETTINGS}
    hybrid = Hybrid(
        _item_model(settings),
        _user_model(settings, max_users) if settings["user_weight"] else None,
        **mixture,
    )
    return hybrid.fit(interactions, content, known, profiles)


def user_profiles(users: Sequence[Sample]) -> NDArray[np.float32] | None:
    """Return indicators of the words in the table of users, [U, F]; None without any.

    Args:
        users: with their content.

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


def _item_model(settings: Settings) -> BalancedEASE:
    return BalancedEASE(settings["regularization"], settings["activity_power"])


def _user_model(settings: Settings, max_users: int) -> UserKernel:
    return UserKernel(
        settings["user_regularization"], settings["kernel_scale"], settings["idf_power"],
        settings["user_activity_power"], settings["profile_scale"], max_users,
    )  # fmt: skip


def _best_settings(
    grid: Iterable[dict[str, float]], measure: Callable[[dict[str, float]], float]
) -> dict[str, float]:
    """The first of the best; where there is no choice, nothing is measured."""
    candidates = list(grid)
    if len(candidates) == 1:
        return candidates[0]
    scores = [measure(settings) for settings in candidates]
    for entry, value in zip(candidates, scores, strict=True):
        log.info("hybrid: %.4f with %s", value, entry)
    return candidates[int(np.argmax(scores))]
