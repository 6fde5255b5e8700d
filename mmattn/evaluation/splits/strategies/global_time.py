"""Split at two points in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.array_types import Ints
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split
from mmattn.evaluation.splits.strategies.interaction_pairs import (
    InteractionPairs,
    check_fractions,
    check_times,
    is_repeat,
)

__all__ = ["global_time_split"]


def global_time_split(
    users: ArrayLike,
    items: ArrayLike,
    time: ArrayLike,
    *,
    validation: float = 0.1,
    test: float = 0.1,
    user_count: int | None = None,
    item_count: int | None = None,
) -> Split:
    """Split at two points in time, the same for all users: training, then validation, then test.

    Events at the same time stay together, so the fractions are approximate. Repeated (user, item) pairs are
    excluded from the later parts.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction.
        time: [n] finite times, in any unit.
        validation: fraction of all interactions.
        test: fraction of all interactions, from the end.
        user_count: number of users U; by default the largest user + 1.
        item_count: number of items I; by default the largest item + 1.

    Raises:
        InputError: a time is not finite, or a part is empty because too many events share one time.

    Example:
        >>> import numpy as np
        >>> split = global_time_split(np.zeros(10, int), np.arange(10), np.arange(10.0))
        >>> split.validation.tolist(), split.test.tolist()
        ([8], [9])
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(validation=validation, test=test)
    times = check_times("global_time", time, len(pairs.users))
    ordered = np.sort(times)
    later = times >= _cutoff_time(ordered, test + validation)
    last = times >= _cutoff_time(ordered, test)
    predicted = later & ~is_repeat(pairs.pair_keys, times)
    parts: dict[Part, Ints] = {
        "train": np.flatnonzero(~later),
        "validation": np.flatnonzero(predicted & ~last),
        "test": np.flatnonzero(predicted & last),
    }
    for name, part in parts.items():
        if not len(part) and (name == "train" or {"validation": validation, "test": test}[name] > 0):
            raise InputError(
                f"global_time: the {name} part is empty, expected times that can be split at "
                f"{1 - test - validation:g} and {1 - test:g}; {len(np.unique(times))} distinct times came"
            )
    return Split(
        protocol="global-time",
        **pairs.as_kwargs,
        time=times,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def _cutoff_time(ordered: NDArray[np.float64], fraction: float) -> float:
    """Return the time at which the latest `fraction` begins; infinity for an empty one."""
    index = round(len(ordered) * (1 - fraction))
    return float(ordered[index]) if index < len(ordered) else np.inf
