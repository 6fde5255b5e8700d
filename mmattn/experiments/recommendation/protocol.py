"""The protocol of a recommender's run: how the interactions are split, and how a system is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.array_types import Floats
from mmattn.data.dataset import Dataset
from mmattn.errors import InputError
from mmattn.evaluation.ranking import metrics
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Part, Split
from mmattn.experiments.config import BaselineConfig, ProtocolConfig
from mmattn.experiments.recommendation.baseline_registry import BASELINES

__all__ = [
    "TIE_POLICY",
    "ScoreFn",
    "check_baselines",
    "make_split",
    "part_sizes",
    "per_user_metrics",
    "rank_part",
]

ScoreFn = Callable[[Any, Any], NDArray[np.float32]]
TIE_POLICY: metrics.TiePolicy = "shuffled"


def make_split(dataset: Dataset, protocol: ProtocolConfig, seed: int) -> Split:
    """Split the interactions as the protocol says.

    Args:
        dataset: with interactions.
        protocol: settings.
        seed: of the split.

    Raises:
        InputError: a split by time of interactions without times, or the data set's own if it has none.
    """
    pairs, test, validation = dataset.interactions, protocol.test, protocol.validation
    users, items = pairs.users, pairs.items
    sizes = {"user_count": len(dataset.users), "item_count": len(dataset.items)}
    if protocol.split == "cold":
        return strategies.cold_item_split(
            users, items, seed=seed, fraction=test, validation=validation, **sizes
        )
    if protocol.split == "cold-users":
        return strategies.cold_user_split(
            users, items, seed=seed, fraction=test, validation=validation, **sizes
        )
    if protocol.split == "mixed":
        return strategies.mixed_split(users, items, seed=seed, test=test, validation=validation, **sizes)
    if protocol.split == "random":
        return strategies.random_split(users, items, seed=seed, test=test, validation=validation, **sizes)
    if protocol.split == "leave-one-out":  # in the order of time, if there is one
        order = seed if pairs.time is None else None
        return strategies.leave_one_out_split(users, items, pairs.time, seed=order, **sizes)
    if protocol.split == "given":
        if pairs.split is None:
            raise InputError(
                "protocol.split: got 'given', but the card names no split column of the interactions"
            )
        return strategies.split_from_column(
            users, items, pairs.split, seed=seed, validation=validation, **sizes
        )
    if pairs.time is None:
        raise InputError("protocol.split: got 'time', but the card names no time column of the interactions")
    return strategies.global_time_split(users, items, pairs.time, test=test, validation=validation, **sizes)


def check_baselines(protocol: ProtocolConfig, baselines: Mapping[str, BaselineConfig]) -> None:
    """Check that the baselines can be evaluated under the protocol.

    Args:
        protocol: settings.
        baselines: name -> baseline.

    Raises:
        InputError: unseen users, and a baseline that answers only users that it was fitted on.
    """
    if protocol.split != "cold-users":
        return
    for name, config in baselines.items():
        if not hasattr(BASELINES[config.kind].factory, "with_histories"):
            able = [
                kind for kind, baseline in BASELINES.items() if hasattr(baseline.factory, "with_histories")
            ]
            raise InputError(
                f"baselines.{name}: {config.kind} cannot answer users that it was not fitted on, as "
                f"protocol.split: cold-users asks; expected one of {able}"
            )


def rank_part(score_fn: ScoreFn, split: Split, part: Part, depth: int) -> metrics.Ranking:
    """Rank the candidates of a part for every user; everything known by then is masked.

    Args:
        score_fn: scores of users and items.
        split: of the interactions.
        part: the predicted part.
        depth: number of ranks.

    Returns:
        [U, depth].
    """
    # Ties are broken at random: ids often follow popularity, and a system that knows nothing of an item
    # must not profit from that.
    return metrics.rank_users(
        score_fn, np.arange(split.user_count), depth,
        candidates=split.candidates(part), exclude=split.histories(part), ties=TIE_POLICY,
    )  # fmt: skip


def per_user_metrics(
    score_fn: ScoreFn, split: Split, part: Part, names: tuple[str, ...]
) -> dict[str, Floats]:
    """Compute metrics of a part for each user.

    Args:
        score_fn: scores of users and items.
        split: of the interactions.
        part: the predicted part.
        names: metrics with a cut-off.

    Returns:
        Metric -> [U], NaN for users without a positive.
    """
    depth = max(int(name.partition("@")[2] or 0) for name in names)
    return dict(metrics.evaluate(rank_part(score_fn, split, part, depth), split.matrix(part), names).values)


def part_sizes(split: Split) -> dict[str, int]:
    """Count the interactions, held-out items and held-out users of each part.

    Args:
        split: of the interactions.
    """
    sizes = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    if len(split.cold_items):
        sizes |= {"cold items": len(split.cold_items), "validation items": len(split.validation_items)}
    if len(split.cold_users):
        sizes |= {"cold users": len(split.cold_users), "validation users": len(split.validation_users)}
    return sizes
