"""Validated interactions and the random draws that the split strategies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Bools, Floats, Ints
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import as_index_array, check_range

__all__ = [
    "InteractionPairs",
    "check_fractions",
    "check_times",
    "draw_held_out",
    "draw_per_user",
    "is_repeat",
    "shuffle_per_user",
]


# Mixed into the seed, so that the validation items are drawn independently of the cold ones.
_VALIDATION_STREAM = 1


@dataclass(frozen=True)
class InteractionPairs:
    """Validated interactions, the common input of all strategies.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction.
        user_count: number of users U.
        item_count: number of items I.
    """

    users: Ints
    items: Ints
    user_count: int
    item_count: int

    @classmethod
    def from_arrays(
        cls, users: ArrayLike, items: ArrayLike, user_count: int | None, item_count: int | None
    ) -> InteractionPairs:
        """Validate arrays and complete the counts.

        Args:
            users: [n] user of each interaction.
            items: [n] item of each interaction.
            user_count: number of users; None for the largest user + 1.
            item_count: number of items; None for the largest item + 1.

        Raises:
            InputError: arrays of different lengths, not integer, or out of range.
        """
        users, items = as_index_array("users", users), as_index_array("items", items)
        counts = [
            int(values.max(initial=-1)) + 1 if declared is None else declared
            for values, declared in ((users, user_count), (items, item_count))
        ]
        if len(users) != len(items):
            raise InputError(
                f"split: got {len(users)} users and {len(items)} items, expected one of each per interaction"
            )
        check_range("users", users, counts[0])
        check_range("items", items, counts[1])
        return cls(users, items, *counts)

    @property
    def as_kwargs(self) -> dict[str, Any]:
        """Arguments of `Split` that are passed on unchanged."""
        return vars(self)

    @property
    def pair_keys(self) -> Ints:
        """Unique number of each (user, item) pair, [n]."""
        return self.users * self.item_count + self.items


def draw_held_out(count: int, seed: int, fraction: float, validation: float) -> tuple[Bools, Bools]:
    """Draw the held-out users or items.

    Args:
        count: number of users or items.
        seed: random seed.
        fraction: fraction that becomes cold.
        validation: fraction of the others that is held out for validation.

    Returns:
        Two [count] masks: cold, and held out for validation.
    """
    is_cold = np.random.default_rng(seed).permutation(count) < int(fraction * count)
    warm = np.flatnonzero(~is_cold)
    order = np.random.default_rng([seed, _VALIDATION_STREAM]).permutation(len(warm))
    is_validation = np.zeros(count, bool)
    is_validation[warm[order[: int(validation * len(warm))]]] = True
    return is_cold, is_validation


def shuffle_per_user(users: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Order interactions by user, randomly within each user.

    Args:
        users: [n] user of each interaction.
        rng: random generator.

    Returns:
        [n] indices of the interactions, rank of each within its user, and number of its user's interactions.
    """
    shuffled = rng.permutation(len(users))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    counts_U = np.bincount(users)
    owner = users[by_user]
    rank = np.arange(len(users)) - (np.cumsum(counts_U) - counts_U)[owner]
    return by_user, rank, counts_U[owner]


def draw_per_user(users: Ints, eligible: Bools, fraction: float, rng: np.random.Generator) -> Bools:
    """Draw a fraction, rounded down, of each user's eligible interactions.

    Args:
        users: [n] user of each interaction.
        eligible: [n] mask of the interactions that may be drawn.
        fraction: fraction to draw.
        rng: random generator.

    Returns:
        [n] mask of the drawn interactions.
    """
    indices = np.flatnonzero(eligible)
    drawn = np.zeros(len(users), bool)
    if len(indices):
        by_user, rank, count = shuffle_per_user(users[indices], rng)
        drawn[indices[by_user[rank < np.floor(fraction * count)]]] = True
    return drawn


def check_times(caller: str, time: ArrayLike, count: int) -> Floats:
    """Check that times are finite.

    Args:
        caller: name of the strategy, for the message.
        time: [n] times.
        count: number of interactions n.

    Raises:
        InputError: a wrong shape, or times that are not finite.
    """
    times = np.asarray(time, np.float64)
    if times.shape != (count,) or not np.isfinite(times).all():
        raise InputError(
            f"{caller}: got times of shape {times.shape}, {int((~np.isfinite(times)).sum())} of them not "
            f"finite, expected {count} finite numbers"
        )
    return times


def is_repeat(pairs: Ints, times: Floats) -> Bools:
    """Mark repeated pairs.

    Args:
        pairs: [n] number of each (user, item) pair.
        times: [n] time of each interaction.

    Returns:
        [n] True where the same pair occurs earlier.
    """
    by_time = np.argsort(times, kind="stable")
    repeats = np.ones(len(pairs), bool)
    repeats[by_time[np.unique(pairs[by_time], return_index=True)[1]]] = False
    return repeats


def check_fractions(**fractions: float) -> None:
    """Check that fractions are between 0 and 1 and leave some data for training.

    Args:
        **fractions: name -> fraction.

    Raises:
        InputError: a fraction is out of range, or the fractions sum to 1 or more.
    """
    if any(not 0 <= value < 1 for value in fractions.values()) or sum(fractions.values()) >= 1:
        raise InputError(
            f"split fractions: got {fractions}, expected numbers from 0 that leave some for training"
        )
