"""Ways to split interactions into training, validation and test: pure functions of index arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.array_types import Ints
from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split, as_index_array, check_range

__all__ = [
    "Part",
    "Split",
    "cold_item_split",
    "cold_user_split",
    "global_time_split",
    "leave_one_out_split",
    "mixed_split",
    "random_split",
    "split_from_column",
]


# Mixed into the seed, so that the validation items are drawn independently of the cold ones.
_VALIDATION_STREAM = 1
_HISTORY_STREAM = 2
_WARM_STREAM = 3

_PARTS: tuple[Part, ...] = get_args(Part)


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
    """Hold out a random fraction of every user's interactions.

    Args:
        users: [n] integers.
        items: [n] integers; a pair of user and item may come once only.
        seed: of the draw.
        validation: fraction of each user's interactions, rounded down.
        test: likewise.
        user_count: U, by default the largest user + 1.
        item_count: I, by default the largest item + 1.

    Example:
        >>> import numpy as np
        >>> split = random_split(np.zeros(10, int), np.arange(10), seed=0)
        >>> len(split.train), len(split.validation), len(split.test)
        (7, 1, 2)
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(validation=validation, test=test)
    by_user, place, count = _shuffle_per_user(pairs.users, np.random.default_rng(seed))
    test_end = np.floor(test * count)
    validation_end = test_end + np.floor(validation * count)
    return Split(
        protocol="random",
        **pairs.as_kwargs,
        train=np.sort(by_user[place >= validation_end]),
        validation=np.sort(by_user[(place >= test_end) & (place < validation_end)]),
        test=np.sort(by_user[place < test_end]),
        seed=seed,
    )


def split_from_column(
    users: ArrayLike,
    items: ArrayLike,
    parts: ArrayLike,
    *,
    seed: int,
    validation: float = 0.1,
    user_count: int | None = None,
    item_count: int | None = None,
) -> Split:
    """The data set's own split, so that figures stand beside those of others who used it.

    Where it names no validation part, a random fraction of every user's training is one: the test part is
    the same under every seed, and no choice sees it.

    Args:
        users: [n] integers.
        items: [n] integers; a pair of user and item may come once only.
        parts: [n] "train", "validation" or "test", as `Interactions.split` holds them.
        seed: of the draw; unused where the data set has a validation part of its own.
        validation: fraction of each user's training, rounded down, where it has none.
        user_count: U, by default the largest user + 1.
        item_count: I, by default the largest item + 1.

    Raises:
        InputError: another word among the parts, or nothing to train or to test on.

    Example:
        >>> import numpy as np
        >>> split = split_from_column(np.zeros(6, int), np.arange(6), ["train"] * 5 + ["test"], seed=0, validation=0.4)
        >>> len(split.train), len(split.validation), split.test.tolist()
        (3, 2, [5])
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(validation=validation)
    labels = np.asarray(parts, dtype=object)
    if labels.shape != pairs.users.shape:
        raise InputError(f"given: got parts of shape {labels.shape}, expected [{len(pairs.users)}]")
    unknown = np.flatnonzero(~np.isin(labels, _PARTS))
    if len(unknown):
        raise InputError(
            f"given: got {labels[unknown[0]]!r} for interaction {unknown[0]}, expected one of "
            f"{', '.join(_PARTS)}"
        )
    train, own, test = (np.flatnonzero(labels == part) for part in _PARTS)
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise InputError(f"given: no interaction is marked {name!r}, expected some")
    if len(own):
        return Split(protocol="given", **pairs.as_kwargs, train=train, validation=own, test=test)
    drawn = _draw_per_user(pairs.users, labels == "train", validation, np.random.default_rng(seed))
    return Split(
        protocol="given",
        **pairs.as_kwargs,
        train=train[~drawn[train]],
        validation=np.flatnonzero(drawn),
        test=test,
        seed=seed,
    )


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
    """Cut at two moments, the same for all users: train before, then validation, then test.

    Events of one moment stay together, so the fractions are met as nearly as that allows. A user who
    comes back to an item is no longer predicting anything: such repeats stay out of the later parts.

    Args:
        users: [n] integers.
        items: [n] integers.
        time: [n] finite numbers, in any unit.
        validation: fraction of all interactions.
        test: fraction of all interactions, the latest.
        user_count: U, by default the largest user + 1.
        item_count: I, by default the largest item + 1.

    Raises:
        InputError: a time is missing, or too many events share one moment for a part to be filled.

    Example:
        >>> import numpy as np
        >>> split = global_time_split(np.zeros(10, int), np.arange(10), np.arange(10.0))
        >>> split.validation.tolist(), split.test.tolist()
        ([8], [9])
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(validation=validation, test=test)
    times = _check_times("global_time", time, len(pairs.users))
    ordered = np.sort(times)
    later = times >= _cutoff_time(ordered, test + validation)
    last = times >= _cutoff_time(ordered, test)
    predicted = later & ~_is_repeat(pairs.pair_keys, times)
    parts: dict[Part, Ints] = {
        "train": np.flatnonzero(~later),
        "validation": np.flatnonzero(predicted & ~last),
        "test": np.flatnonzero(predicted & last),
    }
    for name, part in parts.items():
        if not len(part) and (name == "train" or {"validation": validation, "test": test}[name] > 0):
            raise InputError(
                f"global_time: the {name} part is empty, expected times that can be cut at "
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


def leave_one_out_split(
    users: ArrayLike,
    items: ArrayLike,
    time: ArrayLike | None = None,
    *,
    seed: int | None = None,
    user_count: int | None = None,
    item_count: int | None = None,
) -> Split:
    """Hold out each user's last interaction for the test and the one before for validation.

    Users with fewer than three stay in training whole. A pair that comes again counts once, at its first
    time. Training holds what other users did later, so this tells nothing about the future; `global_time_split`
    does.

    Args:
        users: [n] integers.
        items: [n] integers.
        time: [n] finite numbers; of one moment, the one that stands later is the later one.
        seed: draws the two instead, where there is no time.
        user_count: U, by default the largest user + 1.
        item_count: I, by default the largest item + 1.

    Raises:
        InputError: both a time and a seed, or neither; a time is missing.

    Example:
        >>> import numpy as np
        >>> split = leave_one_out_split(np.zeros(4, int), np.arange(4), [3.0, 9.0, 1.0, 4.0])
        >>> split.test.tolist(), split.validation.tolist(), split.train.tolist()
        ([1], [3], [0, 2])
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    if (time is None) == (seed is None):
        raise InputError("leave_one_out: expected a time or a seed, and not both")
    if time is None:
        times = np.random.default_rng(seed).random(len(pairs.users))
    else:
        times = _check_times("leave_one_out", time, len(pairs.users))
    first = np.flatnonzero(~_is_repeat(pairs.pair_keys, times))
    ordered = first[np.lexsort((first, times[first], pairs.users[first]))]
    counts_U = np.bincount(pairs.users[ordered], minlength=pairs.user_count)
    ends_U = np.cumsum(counts_U)
    last = ends_U[counts_U >= 3] - 1
    held_out = np.zeros(len(ordered), bool)
    held_out[[*last, *(last - 1)]] = True
    return Split(
        protocol="leave-one-out",
        **pairs.as_kwargs,
        train=np.sort(ordered[~held_out]),
        validation=np.sort(ordered[last - 1]),
        test=np.sort(ordered[last]),
        seed=seed,
    )


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
    """Hold out whole users: nothing is learned from them, and part of what they did is given as history.

    Args:
        users: [n] integers.
        items: [n] integers; a pair of user and item may come once only.
        user_count: U, also of users without any interaction.
        seed: of the draws.
        fraction: of all users that become cold.
        validation: of the others that are held out for validation in the same way.
        history_fraction: fraction of a held-out user's interactions, drawn at random, that is the history; the rest is
            to be predicted. 0 gives nothing: then only what else is known of a user can help.
        item_count: I, by default the largest item + 1.

    Example:
        >>> import numpy as np
        >>> split = cold_user_split(np.arange(20) // 4, np.arange(20) % 4, user_count=5, seed=0)
        >>> len(split.train), len(split.given_history), len(split.test), split.cold_users.tolist()
        (16, 2, 2, [3])
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(fraction=fraction, validation=validation)
    _check_fractions(given=history_fraction)
    is_cold_U, is_validation_U = _draw_held_out(user_count, seed, fraction, validation)
    by_user, place, count = _shuffle_per_user(pairs.users, np.random.default_rng([seed, _HISTORY_STREAM]))
    is_given = np.zeros(len(pairs.users), bool)
    is_given[by_user] = place < np.floor(history_fraction * count)
    cold, waiting = is_cold_U[pairs.users], is_validation_U[pairs.users]
    return Split(
        protocol="cold-users",
        **pairs.as_kwargs,
        train=np.flatnonzero(~(cold | waiting)),
        validation=np.flatnonzero(waiting & ~is_given),
        test=np.flatnonzero(cold & ~is_given),
        seed=seed,
        cold_users=np.flatnonzero(is_cold_U),
        validation_users=np.flatnonzero(is_validation_U),
        given_history=np.flatnonzero((cold | waiting) & is_given),
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
    """Hold out whole items: the cold ones are ranked among themselves, for every user.

    The cold items are those where `default_rng(seed).permutation(item_count) < int(fraction * item_count)`.
    Validation repeats the task one level down: a fraction of the warm items, drawn by a generator of
    their own, is kept out of `train`, so that choices are made on items as new as the test's are.

    Args:
        users: [n] integers.
        items: [n] integers.
        item_count: I, also of the items that nobody has chosen.
        seed: of both draws.
        fraction: of all items that become cold.
        validation: of the warm items that are held out for validation.
        user_count: U, by default the largest user + 1.

    Example:
        >>> import numpy as np
        >>> split = cold_item_split(np.zeros(10, int), np.arange(10), item_count=10, seed=0)
        >>> [len(x) for x in (split.cold_items, split.validation_items, split.known_items("validation"))]
        [2, 1, 7]
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(fraction=fraction, validation=validation)
    is_cold_I, is_validation_I = _draw_held_out(item_count, seed, fraction, validation)
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
    """Hold out whole items and, of the others, some interactions of every user: all are ranked in one list.

    That is what a shop does: it has one list, in which new things stand beside old ones. The cold items are
    those of `cold_item_split` with this seed; validation repeats the task one level down.

    Args:
        users: [n] integers.
        items: [n] integers; a pair of user and item may come once only.
        item_count: I, also of the items that nobody has chosen.
        seed: of all draws.
        test: fraction of all items that become cold, and of each user's interactions with the others.
        validation: the same of what remains.
        user_count: U, by default the largest user + 1.

    Example:
        >>> import numpy as np
        >>> split = mixed_split(np.zeros(10, int), np.arange(10), item_count=10, seed=0)
        >>> split.cold_items.tolist(), sorted(split.items[split.test].tolist())
        ([7, 9], [1, 7, 9])
        >>> len(split.candidates("test")), len(split.candidates("validation"))
        (10, 8)
    """
    pairs = _Pairs.from_arrays(users, items, user_count, item_count)
    _check_fractions(test=test, validation=validation)
    is_cold_I, is_waiting_I = _draw_held_out(item_count, seed, test, validation)
    rng = np.random.default_rng([seed, _WARM_STREAM])
    is_test = is_cold_I[pairs.items]
    is_test |= _draw_per_user(pairs.users, ~is_test, test, rng)
    is_validation = is_waiting_I[pairs.items] & ~is_test
    is_validation |= _draw_per_user(pairs.users, ~(is_test | is_validation), validation, rng)
    return Split(
        protocol="mixed",
        **pairs.as_kwargs,
        train=np.flatnonzero(~(is_test | is_validation)),
        validation=np.flatnonzero(is_validation),
        test=np.flatnonzero(is_test),
        seed=seed,
        cold_items=np.flatnonzero(is_cold_I),
        validation_items=np.flatnonzero(is_waiting_I),
        joint_ranking=True,
    )


@dataclass(frozen=True)
class _Pairs:
    """Interactions as every way to split takes them, checked once."""

    users: Ints
    items: Ints
    user_count: int
    item_count: int

    @classmethod
    def from_arrays(
        cls, users: ArrayLike, items: ArrayLike, user_count: int | None, item_count: int | None
    ) -> _Pairs:
        users, items = as_index_array("users", users), as_index_array("items", items)
        counts = [
            int(values.max(initial=-1)) + 1 if declared is None else declared
            for values, declared in ((users, user_count), (items, item_count))
        ]
        if len(users) != len(items):
            raise InputError(
                f"split: got {len(users)} users and {len(items)} items, expected one of each an interaction"
            )
        check_range("users", users, counts[0])
        check_range("items", items, counts[1])
        return cls(users, items, *counts)

    @property
    def as_kwargs(self) -> dict[str, Any]:
        """What a `Split` takes over as it is."""
        return vars(self)

    @property
    def pair_keys(self) -> Ints:
        """[n] one number a pair of user and item."""
        return self.users * self.item_count + self.items


def _draw_held_out(
    count: int, seed: int, fraction: float, validation: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[count] which items or users are cold, and which of the others wait for validation."""
    is_cold = np.random.default_rng(seed).permutation(count) < int(fraction * count)
    warm = np.flatnonzero(~is_cold)
    order = np.random.default_rng([seed, _VALIDATION_STREAM]).permutation(len(warm))
    is_validation = np.zeros(count, bool)
    is_validation[warm[order[: int(validation * len(warm))]]] = True
    return is_cold, is_validation


def _shuffle_per_user(users: Ints, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Interactions user by user in a random order: their indices, each one's place, its user's count."""
    shuffled = rng.permutation(len(users))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    counts_U = np.bincount(users)
    owner = users[by_user]
    place = np.arange(len(users)) - (np.cumsum(counts_U) - counts_U)[owner]
    return by_user, place, counts_U[owner]


def _draw_per_user(
    users: Ints, eligible: NDArray[np.bool_], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """[n] True for a fraction, rounded down, of each user's eligible interactions."""
    places = np.flatnonzero(eligible)
    drawn = np.zeros(len(users), bool)
    if len(places):
        by_user, place, count = _shuffle_per_user(users[places], rng)
        drawn[places[by_user[place < np.floor(fraction * count)]]] = True
    return drawn


def _check_times(caller: str, time: ArrayLike, count: int) -> NDArray[np.float64]:
    times = np.asarray(time, np.float64)
    if times.shape != (count,) or not np.isfinite(times).all():
        raise InputError(
            f"{caller}: got times of shape {times.shape}, {int((~np.isfinite(times)).sum())} of them not "
            f"finite, expected {count} finite numbers"
        )
    return times


def _cutoff_time(ordered: NDArray[np.float64], fraction: float) -> float:
    """The time at which the latest `fraction` begins; infinity where that is nothing."""
    place = round(len(ordered) * (1 - fraction))
    return float(ordered[place]) if place < len(ordered) else np.inf


def _is_repeat(pairs: Ints, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n] True where the same pair came before."""
    by_time = np.argsort(times, kind="stable")
    repeats = np.ones(len(pairs), bool)
    repeats[by_time[np.unique(pairs[by_time], return_index=True)[1]]] = False
    return repeats


def _check_fractions(**fractions: float) -> None:
    if any(not 0 <= value < 1 for value in fractions.values()) or sum(fractions.values()) >= 1:
        raise InputError(
            f"split fractions: got {fractions}, expected numbers from 0 that leave some for training"
        )
