"""Random split of each user's interactions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmattn.evaluation.splits.split import Split
from mmattn.evaluation.splits.strategies.interaction_pairs import (
    InteractionPairs,
    check_fractions,
    shuffle_per_user,
)

__all__ = ["random_split"]


def random_split(
    users: ArrayLike,
    items: ArrayLike,
    *,
    seed: int,
    validation: float = 0.1,
    test: float = 0.2,
    user_count: int | None = None,
    item_count: int | None = None,
) -> Split:
    """Hold out a random fraction of each user's interactions.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction, without duplicate (user, item) pairs.
        seed: random seed.
        validation: fraction of each user's interactions, rounded down.
        test: fraction of each user's interactions, rounded down.
        user_count: number of users U; by default the largest user + 1.
        item_count: number of items I; by default the largest item + 1.

    Raises:
        InputError: inconsistent arrays, fractions out of range, or a duplicate pair that leaks.

    Example:
        >>> import numpy as np
        >>> split = random_split(np.zeros(10, int), np.arange(10), seed=0)
        >>> len(split.train), len(split.validation), len(split.test)
        (7, 1, 2)
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(validation=validation, test=test)
    by_user, rank, count = shuffle_per_user(pairs.users, np.random.default_rng(seed))
    test_end = np.floor(test * count)
    validation_end = test_end + np.floor(validation * count)
    return Split(
        protocol="random",
        **pairs.as_kwargs,
        train=np.sort(by_user[rank >= validation_end]),
        validation=np.sort(by_user[(rank >= test_end) & (rank < validation_end)]),
        test=np.sort(by_user[rank < test_end]),
        seed=seed,
    )
