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

__all__ = ["Part", "Split", "cold_items", "global_time", "random"]

Ints = NDArray[np.int64]
Part = Literal["train", "validation", "test"]

# Mixed into the seed, so that the validation items are drawn independently of the cold ones.
_VALIDATION_STREAM = 1


def _no_items() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Which interaction belongs to which part. An interaction may belong to none, never to two.

    Args:
        protocol: "random", "global-time", "cold-items", or a name of one's own.
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

    def __post_init__(self) -> None:
        for name in ("users", "items", "train", "validation", "test", "cold_items", "validation_items"):
            object.__setattr__(self, name, _indices(name, getattr(self, name)))
        if len(self.users) != len(self.items):
            raise InputError(
                f"Split: got {len(self.users)} users and {len(self.items)} items, expected one of each "
                "an interaction"
            )
        _in_range("users", self.users, self.user_count)
        for name in ("items", "cold_items", "validation_items"):
            _in_range(name, getattr(self, name), self.item_count)
        for name in ("train", "validation", "test"):
            _in_range(name, getattr(self, name), len(self.users))
        _refuse_leaks(self)

    def matrix(self, *parts: Part) -> sparse.csr_array:
        """The interactions of these parts as [U, I] ones, float32, indices sorted."""
        chosen = np.concatenate([getattr(self, part) for part in parts])
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
    times = np.asarray(time, np.float64)
    if times.shape != users.shape or not np.isfinite(times).all():
        raise InputError(
            f"global_time: got times of shape {times.shape}, {int((~np.isfinite(times)).sum())} of them not "
            f"finite, expected {len(users)} finite numbers"
        )
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


def _refuse_leaks(split: Split) -> None:
    earlier: dict[Part, tuple[Part, ...]] = {"validation": ("train",), "test": ("train", "validation")}
    for part, before in earlier.items():
        shared = split.matrix(*before).multiply(split.matrix(part)).tocoo()
        if shared.nnz:
            raise InputError(
                f"{split.protocol} split leaks: {shared.nnz} pairs of the {part} part are known before it, "
                f"the first user {shared.row[0]} with item {shared.col[0]}; expected each pair in one part"
            )
        known, predicted = np.concatenate([getattr(split, name) for name in before]), getattr(split, part)
        if split.time is not None and len(known) and len(predicted):
            latest, earliest = split.time[known].max(), split.time[predicted].min()
            if latest > earliest:
                raise InputError(
                    f"{split.protocol} split leaks: an event at {latest:g} is known before the {part} part, "
                    f"which begins at {earliest:g}; expected none later"
                )
    for hidden, what, parts in (
        (split.cold_items, "cold", ("train", "validation")),
        (split.validation_items, "validation", ("train",)),
    ):
        for name in parts:
            met_I = np.zeros(split.item_count, bool)
            met_I[split.items[getattr(split, name)]] = True
            leaked = hidden[met_I[hidden]]
            if len(leaked):
                raise InputError(
                    f"{split.protocol} split leaks: {len(leaked)} {what} items have interactions in {name}, "
                    f"the first item {leaked[0]}; expected none"
                )
    overlap = np.intersect1d(split.cold_items, split.validation_items)
    if len(overlap):
        raise InputError(
            f"{split.protocol} split leaks: {len(overlap)} items are both cold and for validation, "
            f"the first item {overlap[0]}; validation items come from the warm ones"
        )


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
