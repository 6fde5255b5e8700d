"""What a run's configuration says of the protocol, done: how it is split, and how a system is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.data.dataset import Dataset
from mmattn.errors import InputError
from mmattn.evaluation.ranking import metrics
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Part, Split
from mmattn.experiments.config import ProtocolConfig

__all__ = ["TIE_POLICY", "ScoreFn", "make_split", "part_sizes", "per_user_metrics", "rank_part"]

ScoreFn = Callable[[Any, Any], NDArray[np.float32]]
TIE_POLICY: metrics.TiePolicy = "shuffled"


def make_split(dataset: Dataset, protocol: ProtocolConfig, seed: int) -> Split:
    """The split that the protocol asks for.

    Raises:
        InputError: a split in time of data without times, the data set's own where it has none.
    """
    pairs = dataset.interactions
    sizes = {"user_count": len(dataset.users), "item_count": len(dataset.items)}
    if protocol.split == "cold":
        return strategies.cold_item_split(
            pairs.users, pairs.items, seed=seed,
            fraction=protocol.test, validation=protocol.validation, **sizes,
        )  # fmt: skip
    if protocol.split == "random":
        return strategies.random_split(
            pairs.users, pairs.items, seed=seed,
            test=protocol.test, validation=protocol.validation, **sizes,
        )  # fmt: skip
    if protocol.split == "mixed":
        return strategies.mixed_split(
            pairs.users, pairs.items, seed=seed,
            test=protocol.test, validation=protocol.validation, **sizes,
        )  # fmt: skip
    if protocol.split == "given":
        if pairs.split is None:
            raise InputError(
                "protocol.split: got 'given', but the card names no split column of the interactions"
            )
        return strategies.split_from_column(
            pairs.users, pairs.items, pairs.split, seed=seed, validation=protocol.validation, **sizes
        )
    if pairs.time is None:
        raise InputError("protocol.split: got 'time', but the card names no time column of the interactions")
    return strategies.global_time_split(
        pairs.users, pairs.items, pairs.time,
        test=protocol.test, validation=protocol.validation, **sizes,
    )  # fmt: skip


def rank_part(score_fn: ScoreFn, split: Split, part: Part, depth: int) -> metrics.Ranking:
    """[U, depth] the candidates of a part ranked for every user, with everything known by then masked."""
    # Ties are broken at random: ids often follow popularity, and a system that knows nothing of an item
    # must not profit from that.
    return metrics.rank_users(
        score_fn, np.arange(split.user_count), depth,
        candidates=split.candidates(part), exclude=split.known(part), ties=TIE_POLICY,
    )  # fmt: skip


def per_user_metrics(
    score_fn: ScoreFn, split: Split, part: Part, names: tuple[str, ...]
) -> dict[str, NDArray[np.float64]]:
    """Per-user values of each metric."""
    depth = max(int(name.partition("@")[2] or 0) for name in names)
    return dict(metrics.evaluate(rank_part(score_fn, split, part, depth), split.matrix(part), names).values)


def part_sizes(split: Split) -> dict[str, int]:
    """How many interactions, and held-out items, each part has."""
    sizes = {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
    if len(split.cold_items):
        sizes |= {"cold items": len(split.cold_items), "validation items": len(split.validation_items)}
    return sizes
