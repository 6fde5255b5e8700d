"""Splits of interactions into training, validation and test: pure functions of index arrays.

A `Split` checks itself for leaks when it is made, whoever made it, and answers the three questions that
an honest evaluation asks for each part: what may be known when it is predicted, which items are
ranked, and which of them are right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.leaks import refuse_leaks

__all__ = ["Part", "Split", "cold_items", "cold_users", "global_time", "leave_one_out", "random"]

Ints = NDArray[np.int64]
Part = Literal["train", "validation", "test"]

# Mixed into the seed, so that the validation items are drawn independently of the cold ones.
_VALIDATION_STREAM = 1
_GIVEN_STREAM = 2


def _no_items() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Which interaction belongs to which part. An interaction may belong to none, never to two.

    Args:
        protocol: "random", "leave-one-out", "global-time", "cold-items", "cold-users", or another name.
        users: [n] user of each interaction, 0 to `user_count` - 1.
        items: [n] item of each interaction, 0 to `item_count` - 1.
        train: indices into the interactions.
        validation: indices into the interactions; all that a choice may be based on.
        test: indices into the interactions, looked at once.
        user_count: U.
        item_count: I.
        seed: what the split was drawn with, None where nothing was drawn.
        cold_items: items that only the test part may hold; empty where no item is cold.
        validation_items: items held out of `train` and ranked at validation, as the cold ones are at test.
        time: [n] time of each interaction where time divides the parts, otherwise None.
        cold_users: users that nothing is learned from; empty where no user is cold.
        validation_users: users held out of `train` and predicted at validation, as the cold ones are at test.
        given: indices of interactions of held-out users that are their histories when they are predicted,
            and nothing else: neither learned from nor to be predicted.

    Raises:
        InputError: indices out of range, an interaction in two parts, or a leak: a pair of user and
            item both known and to be predicted, a cold item known, a training event later than an
            event to be predicted.

    Example:
        >>> import numpy as np
        >>> split = cold_items(np.array([0, 0, 1, 1]), np.array([0, 3, 2, 4]), item_count=5, seed=0)
        >>> split.cold_items.tolist(), split.matrix("test").toarray().tolist()
        ([3], [[0.0, 0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    """

    protocol: str
    users: Ints
    items: Ints
    train: Ints
    validation: Ints
    test: Ints
    user_count: int
    item_count: int
    seed: int | None = None
    cold_items: Ints = field(default_factory=_no_items)
    validation_items: Ints = field(default_factory=_no_items)
    time: NDArray[np.float64] | None = None
    cold_users: Ints = field(default_factory=_no_items)
    validation_users: Ints = field(default_factory=_no_items)
    given: Ints = field(default_factory=_no_items)

    def __post_init__(self) -> None:
        held_out = ("cold_items", "validation_items", "cold_users", "validation_users")
        for name in ("users", "items", "train", "validation", "test", "given", *held_out):
            object.__setattr__(self, name, _indices(name, getattr(self, name)))
        if len(self.users) != len(self.items):
            raise InputError(
                f"Split: got {len(self.users)} users and {len(self.items)} items, expected one of each "
                "an interaction"
            )
        for name in ("users", "cold_users", "validation_users"):
            _in_range(name, getattr(self, name), self.user_count)
        for name in ("items", "cold_items", "validation_items"):
            _in_range(name, getattr(self, name), self.item_count)
        for name in ("train", "validation", "test", "given"):
            _in_range(name, getattr(self, name), len(self.users))
        refuse_leaks(self)

    def matrix(self, *parts: Part) -> sparse.csr_array:
        """The interactions of these parts as [U, I] ones, float32, indices sorted."""
        return self.ones(np.concatenate([getattr(self, part) for part in parts]))

    def ones(self, chosen: Ints) -> sparse.csr_array:
        """The interactions at these indices as [U, I] ones, float32, indices sorted."""
        ones = np.ones(len(chosen), np.float32)
        matrix = sparse.csr_array(
            (ones, (self.users[chosen], self.items[chosen])), shape=(self.user_count, self.item_count)
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def known(self, part: Part) -> sparse.csr_array:
        """What may be known when `part` is predicted, [U, I]: to fit on, as the users' histories, and to
        be masked in the ranking. For the test part that is training and validation together."""
        return self.matrix("train", "validation") if part == "test" else self.matrix("train")

    def histories(self, part: Part) -> sparse.csr_array:
        """What is known of each user when `part` is predicted, [U, I]: `known`, and of held-out users what
        is given of them. Where no user is held out, that is `known`."""
        given = self.given
        if part != "test":
            given = given[np.isin(self.users[given], self.validation_users)]
        parts = [self.train, self.validation] if part == "test" else [self.train]
        return self.ones(np.concatenate([*parts, given]))

    def known_items(self, part: Part) -> Ints:
        """Items that a system may have met with their interactions when `part` is predicted."""
        hidden = [self.cold_items] if part == "test" else [self.cold_items, self.validation_items]
        return np.setdiff1d(np.arange(self.item_count), np.concatenate(hidden))

    def candidates(self, part: Part) -> Ints:
        """Items that are ranked when `part` is predicted, ascending."""
        held_out = {"validation": self.validation_items, "test": self.cold_items}.get(part, _no_items())
        return held_out if len(held_out) else np.arange(self.item_count)


def random(
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
        >>> split = random(np.zeros(10, int), np.arange(10), seed=0)
        >>> len(split.train), len(split.validation), len(split.test)
        (7, 1, 2)
    """
    users, items = _indices("users", users), _indices("items", items)
    _fractions(validation=validation, test=test)
    shuffled = np.random.default_rng(seed).permutation(len(users))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    counts_U = np.bincount(users)
    first_U = np.cumsum(counts_U) - counts_U
    owner = users[by_user]
    place = np.arange(len(users)) - first_U[owner]
    test_end = np.floor(test * counts_U[owner])
    validation_end = test_end + np.floor(validation * counts_U[owner])
    return Split(
        protocol="random",
        users=users,
        items=items,
        train=np.sort(by_user[place >= validation_end]),
        validation=np.sort(by_user[(place >= test_end) & (place < validation_end)]),
        test=np.sort(by_user[place < test_end]),
        user_count=_count(users, user_count),
        item_count=_count(items, item_count),
        seed=seed,
    )


def global_time(
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
        >>> split = global_time(np.zeros(10, int), np.arange(10), np.arange(10.0))
        >>> split.validation.tolist(), split.test.tolist()
        ([8], [9])
    """
    users, items = _indices("users", users), _indices("items", items)
    _fractions(validation=validation, test=test)
    times = _times("global_time", time, len(users))
    ordered = np.sort(times)
    later = times >= _moment(ordered, test + validation)
    last = times >= _moment(ordered, test)
    item_total = _count(items, item_count)
    predicted = later & ~_repeats(users * item_total + items, times)
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
        users=users,
        items=items,
        user_count=_count(users, user_count),
        item_count=item_total,
        time=times,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def leave_one_out(
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
    time. Training holds what other users did later, so this tells nothing about the future; `global_time`
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
        >>> split = leave_one_out(np.zeros(4, int), np.arange(4), [3.0, 9.0, 1.0, 4.0])
        >>> split.test.tolist(), split.validation.tolist(), split.train.tolist()
        ([1], [3], [0, 2])
    """
    users, items = _indices("users", users), _indices("items", items)
    if (time is None) == (seed is None):
        raise InputError("leave_one_out: expected a time or a seed, and not both")
    if time is None:
        times = np.random.default_rng(seed).random(len(users))
    else:
        times = _times("leave_one_out", time, len(users))
    item_total = _count(items, item_count)
    first = np.flatnonzero(~_repeats(users * item_total + items, times))
    ordered = first[np.lexsort((first, times[first], users[first]))]
    counts_U = np.bincount(users[ordered], minlength=int(users.max(initial=-1)) + 1)
    ends_U = np.cumsum(counts_U)
    last = ends_U[counts_U >= 3] - 1
    held_out = np.zeros(len(ordered), bool)
    held_out[[*last, *(last - 1)]] = True
    return Split(
        protocol="leave-one-out",
        users=users,
        items=items,
        train=np.sort(ordered[~held_out]),
        validation=np.sort(ordered[last - 1]),
        test=np.sort(ordered[last]),
        user_count=_count(users, user_count),
        item_count=item_total,
        seed=seed,
    )


def cold_users(
    users: ArrayLike,
    items: ArrayLike,
    *,
    user_count: int,
    seed: int,
    fraction: float = 0.2,
    validation: float = 0.2,
    given: float = 0.5,
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
        given: fraction of a held-out user's interactions, drawn at random, that is the history; the rest is
            to be predicted. 0 gives nothing: then only what else is known of a user can help.
        item_count: I, by default the largest item + 1.

    Example:
        >>> import numpy as np
        >>> split = cold_users(np.arange(20) // 4, np.arange(20) % 4, user_count=5, seed=0)
        >>> len(split.train), len(split.given), len(split.test), split.cold_users.tolist()
        (16, 2, 2, [3])
    """
    users, items = _indices("users", users), _indices("items", items)
    _fractions(fraction=fraction, validation=validation)
    _fractions(given=given)
    _in_range("users", users, user_count)
    is_cold_U = np.random.default_rng(seed).permutation(user_count) < int(fraction * user_count)
    warm = np.flatnonzero(~is_cold_U)
    order = np.random.default_rng([seed, _VALIDATION_STREAM]).permutation(len(warm))
    held_out = warm[np.sort(order[: int(validation * len(warm))])]
    is_validation_U = np.zeros(user_count, bool)
    is_validation_U[held_out] = True
    shuffled = np.random.default_rng([seed, _GIVEN_STREAM]).permutation(len(users))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    counts_U = np.bincount(users, minlength=user_count)
    owner = users[by_user]
    place = np.arange(len(users)) - (np.cumsum(counts_U) - counts_U)[owner]
    is_given = np.zeros(len(users), bool)
    is_given[by_user] = place < np.floor(given * counts_U[owner])
    cold, waiting = is_cold_U[users], is_validation_U[users]
    return Split(
        protocol="cold-users",
        users=users,
        items=items,
        train=np.flatnonzero(~(cold | waiting)),
        validation=np.flatnonzero(waiting & ~is_given),
        test=np.flatnonzero(cold & ~is_given),
        user_count=user_count,
        item_count=_count(items, item_count),
        seed=seed,
        cold_users=np.flatnonzero(is_cold_U),
        validation_users=held_out,
        given=np.flatnonzero((cold | waiting) & is_given),
    )


def cold_items(
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
        >>> split = cold_items(np.zeros(10, int), np.arange(10), item_count=10, seed=0)
        >>> [len(x) for x in (split.cold_items, split.validation_items, split.known_items("validation"))]
        [2, 1, 7]
    """
    users, items = _indices("users", users), _indices("items", items)
    _fractions(fraction=fraction, validation=validation)
    _in_range("items", items, item_count)
    is_cold_I = np.random.default_rng(seed).permutation(item_count) < int(fraction * item_count)
    warm = np.flatnonzero(~is_cold_I)
    order = np.random.default_rng([seed, _VALIDATION_STREAM]).permutation(len(warm))
    held_out = warm[np.sort(order[: int(validation * len(warm))])]
    is_validation_I = np.zeros(item_count, bool)
    is_validation_I[held_out] = True
    return Split(
        protocol="cold-items",
        users=users,
        items=items,
        train=np.flatnonzero(~(is_cold_I | is_validation_I)[items]),
        validation=np.flatnonzero(is_validation_I[items]),
        test=np.flatnonzero(is_cold_I[items]),
        user_count=_count(users, user_count),
        item_count=item_count,
        seed=seed,
        cold_items=np.flatnonzero(is_cold_I),
        validation_items=held_out,
    )


def _times(where: str, time: ArrayLike, count: int) -> NDArray[np.float64]:
    times = np.asarray(time, np.float64)
    if times.shape != (count,) or not np.isfinite(times).all():
        raise InputError(
            f"{where}: got times of shape {times.shape}, {int((~np.isfinite(times)).sum())} of them not "
            f"finite, expected {count} finite numbers"
        )
    return times


def _moment(ordered: NDArray[np.float64], fraction: float) -> float:
    """The time at which the latest `fraction` begins; infinity where that is nothing."""
    place = round(len(ordered) * (1 - fraction))
    return float(ordered[place]) if place < len(ordered) else np.inf


def _repeats(pairs: Ints, times: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n] True where the same pair came before."""
    by_time = np.argsort(times, kind="stable")
    repeats = np.ones(len(pairs), bool)
    repeats[by_time[np.unique(pairs[by_time], return_index=True)[1]]] = False
    return repeats


def _indices(name: str, values: ArrayLike) -> Ints:
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name}: got {array.dtype} of shape {array.shape}, expected a row of integers")
    return array.astype(np.int64, copy=False)


def _in_range(name: str, values: Ints, count: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise InputError(f"{name}: got {values.min()} to {values.max()}, expected 0 to {count - 1}")


def _fractions(**fractions: float) -> None:
    if any(not 0 <= value < 1 for value in fractions.values()) or sum(fractions.values()) >= 1:
        raise InputError(
            f"split fractions: got {fractions}, expected numbers from 0 that leave some for training"
        )


def _count(values: Ints, declared: int | None) -> int:
    return declared if declared is not None else int(values.max(initial=-1)) + 1
