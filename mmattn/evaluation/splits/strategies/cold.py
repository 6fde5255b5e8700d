"""Splits that hold out whole users or whole items."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmattn.evaluation.splits.split import Split
from mmattn.evaluation.splits.strategies.interaction_pairs import (
    InteractionPairs,
    check_fractions,
    draw_held_out,
    draw_per_user,
    shuffle_per_user,
)

__all__ = ["cold_item_split", "cold_user_split", "mixed_split"]


_HISTORY_STREAM = 2
_WARM_STREAM = 3


def cold_user_split(
    users: ArrayLike,
    items: ArrayLike,
    *,
    user_count: int,
    seed: int,
    fraction: float = 0.2,
    validation: float = 0.2,
    history_fraction: float = 0.5,
    item_count: int | None = None,
) -> Split:
    """Hold out whole users; a part of their interactions is given as history when they are predicted.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction, without duplicate (user, item) pairs.
        user_count: number of users U, including users without interactions.
        seed: random seed.
        fraction: fraction of all users that become cold.
        validation: fraction of the other users that are held out for validation in the same way.
        history_fraction: random fraction of a held-out user's interactions that is given as history; the rest
            is predicted. With 0 nothing is given.
        item_count: number of items I; by default the largest item + 1.

    Raises:
        InputError: inconsistent arrays, fractions out of range, or a duplicate pair that leaks.

    Example:
        >>> import numpy as np
        >>> split = cold_user_split(np.arange(20) // 4, np.arange(20) % 4, user_count=5, seed=0)
        >>> len(split.train), len(split.given_history), len(split.test), split.cold_users.tolist()
        (16, 2, 2, [3])
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(fraction=fraction, validation=validation)
    check_fractions(history_fraction=history_fraction)
    is_cold_U, is_validation_U = draw_held_out(user_count, seed, fraction, validation)
    by_user, rank, count = shuffle_per_user(pairs.users, np.random.default_rng([seed, _HISTORY_STREAM]))
    is_given = np.zeros(len(pairs.users), bool)
    is_given[by_user] = rank < np.floor(history_fraction * count)
    is_cold, is_validation = is_cold_U[pairs.users], is_validation_U[pairs.users]
    return Split(
        protocol="cold-users",
        **pairs.as_kwargs,
        train=np.flatnonzero(~(is_cold | is_validation)),
        validation=np.flatnonzero(is_validation & ~is_given),
        test=np.flatnonzero(is_cold & ~is_given),
        seed=seed,
        cold_users=np.flatnonzero(is_cold_U),
        validation_users=np.flatnonzero(is_validation_U),
        given_history=np.flatnonzero((is_cold | is_validation) & is_given),
    )


def cold_item_split(
    users: ArrayLike,
    items: ArrayLike,
    *,
    item_count: int,
    seed: int,
    fraction: float = 0.2,
    validation: float = 0.2,
    user_count: int | None = None,
) -> Split:
    """Hold out whole items; the cold items are ranked among themselves for every user.

    The cold items are those with `default_rng(seed).permutation(item_count) < int(fraction * item_count)`.
    A fraction of the warm items, from an independent generator, is held out of `train` for validation, so
    that models are selected on unseen items as well.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction.
        item_count: number of items I, including items without interactions.
        seed: random seed.
        fraction: fraction of all items that become cold.
        validation: fraction of the warm items that are held out for validation.
        user_count: number of users U; by default the largest user + 1.

    Raises:
        InputError: inconsistent arrays, fractions out of range, or a duplicate pair that leaks.

    Example:
        >>> import numpy as np
        >>> split = cold_item_split(np.zeros(10, int), np.arange(10), item_count=10, seed=0)
        >>> [len(x) for x in (split.cold_items, split.validation_items, split.known_items("validation"))]
        [2, 1, 7]
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(fraction=fraction, validation=validation)
    is_cold_I, is_validation_I = draw_held_out(item_count, seed, fraction, validation)
    return Split(
        protocol="cold-items",
        **pairs.as_kwargs,
        train=np.flatnonzero(~(is_cold_I | is_validation_I)[pairs.items]),
        validation=np.flatnonzero(is_validation_I[pairs.items]),
        test=np.flatnonzero(is_cold_I[pairs.items]),
        seed=seed,
        cold_items=np.flatnonzero(is_cold_I),
        validation_items=np.flatnonzero(is_validation_I),
    )


def mixed_split(
    users: ArrayLike,
    items: ArrayLike,
    *,
    item_count: int,
    seed: int,
    test: float = 0.2,
    validation: float = 0.2,
    user_count: int | None = None,
) -> Split:
    """Hold out whole items and some interactions of every user with the others, in one joint ranking.

    This matches a catalogue in which new items compete with known ones. The cold items are those of
    `cold_item_split` with the same seed; validation is drawn from the rest in the same way.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction, without duplicate (user, item) pairs.
        item_count: number of items I, including items without interactions.
        seed: random seed.
        test: fraction of all items that become cold, and of each user's interactions with other items.
        validation: the same fraction of the rest.
        user_count: number of users U; by default the largest user + 1.

    Raises:
        InputError: inconsistent arrays, fractions out of range, or a duplicate pair that leaks.

    Example:
        >>> import numpy as np
        >>> split = mixed_split(np.zeros(10, int), np.arange(10), item_count=10, seed=0)
        >>> split.cold_items.tolist(), sorted(split.items[split.test].tolist())
        ([7, 9], [1, 7, 9])
        >>> len(split.candidates("test")), len(split.candidates("validation"))
        (10, 8)
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(test=test, validation=validation)
    is_cold_I, is_validation_I = draw_held_out(item_count, seed, test, validation)
    rng = np.random.default_rng([seed, _WARM_STREAM])
    is_test = is_cold_I[pairs.items]
    is_test |= draw_per_user(pairs.users, ~is_test, test, rng)
    is_validation = is_validation_I[pairs.items] & ~is_test
    is_validation |= draw_per_user(pairs.users, ~(is_test | is_validation), validation, rng)
    return Split(
        protocol="mixed",
        **pairs.as_kwargs,
        train=np.flatnonzero(~(is_test | is_validation)),
        validation=np.flatnonzero(is_validation),
        test=np.flatnonzero(is_test),
        seed=seed,
        cold_items=np.flatnonzero(is_cold_I),
        validation_items=np.flatnonzero(is_validation_I),
        joint_ranking=True,
    )
