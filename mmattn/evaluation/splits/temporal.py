"""A split in time, as a recommender of histories sees it: what was known at which moment."""

from __future__ import annotations

import numpy as np

from mmattn.data.histories import Histories
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split

__all__ = ["known_histories", "part_start"]


def part_start(split: Split, part: Part) -> float:
    """When `part` begins, in seconds: nothing of that moment or later may be known.

    Raises:
        InputError: time does not divide this split.
    """
    if split.time is None:
        raise InputError(
            f"a recommender of histories needs protocol.split: time, one moment for all; got {split.protocol}"
        )
    return float(split.time[getattr(split, part)].min())


def known_histories(split: Split, part: Part) -> Histories:
    """What is known of each user when `part` is predicted, in the order of time.

    Raises:
        InputError: time does not divide this split, or something that is known lies in its future.

    Example:
        >>> from mmattn.evaluation.splits.strategies import global_time
        >>> split = global_time(np.zeros(10, int), np.arange(10), np.arange(10.0))
        >>> part_start(split, "test"), known_histories(split, "test").items.tolist()
        (9.0, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    """
    before = part_start(split, part)
    known = np.concatenate([split.train, split.validation]) if part == "test" else split.train
    times = np.asarray(split.time)
    return Histories.from_events(
        split.users[known], split.items[known], times[known], num_users=split.user_count, cutoff_time=before
    )
