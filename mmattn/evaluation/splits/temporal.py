"""User histories of a temporal split, for sequential recommenders."""

from __future__ import annotations

import numpy as np

from mmattn.data.histories import Histories
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split

__all__ = ["known_histories", "part_start"]


def part_start(split: Split, part: Part) -> float:
    """Return the start time of a part; events from then on are unknown when it is predicted.

    Args:
        split: a split by global time.
        part: the predicted part.

    Raises:
        InputError: the split is not divided by time.
    """
    if split.time is None:
        raise InputError(f"a sequential recommender needs protocol.split: time; got {split.protocol}")
    return float(split.time[getattr(split, part)].min())


def known_histories(split: Split, part: Part) -> Histories:
    """Return the history of each user when `part` is predicted, ordered by time.

    Args:
        split: a split by global time.
        part: the predicted part.

    Raises:
        InputError: the split is not divided by time, or a known event is later than the start of the part.

    Example:
        >>> from mmattn.evaluation.splits.strategies import global_time_split
        >>> split = global_time_split(np.zeros(10, int), np.arange(10), np.arange(10.0))
        >>> part_start(split, "test"), known_histories(split, "test").items.tolist()
        (9.0, [0, 1, 2, 3, 4, 5, 6, 7, 8])
    """
    cutoff_time = part_start(split, part)
    known = np.concatenate([split.train, split.validation]) if part == "test" else split.train
    times = np.asarray(split.time)
    return Histories.from_events(
        split.users[known],
        split.items[known],
        times[known],
        num_users=split.user_count,
        cutoff_time=cutoff_time,
    )
