"""A split of interactions into training, validation and test, checked for leaks.

For each part it tells what is known when the part is predicted, which items are ranked and which are
relevant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Ints
from mmattn.errors import InputError

__all__ = ["Part", "Split", "as_index_array", "check_leaks", "check_range"]

Part = Literal["train", "validation", "test"]


def _empty() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """The parts of a set of interactions; an interaction belongs to at most one part.

    Args:
        protocol: "random", "leave-one-out", "global-time", "cold-items", "cold-users", "mixed", "given", or
            another name.
        users: [n] user of each interaction, 0 to `user_count` - 1.
        items: [n] item of each interaction, 0 to `item_count` - 1.
        train: indices of the training interactions.
        validation: indices of the validation interactions, for all model selection.
        test: indices of the test interactions, for the final evaluation only.
        user_count: number of users U.
        item_count: number of items I.
        seed: seed of the split; None without randomness.
        cold_items: items that occur in the test part only.
        validation_items: items held out of `train` and ranked at validation, as the cold items are at test.
        time: [n] time of each interaction if time divides the parts, otherwise None.
        cold_users: users without training interactions.
        validation_users: users held out of `train` and predicted at validation, as the cold ones are at test.
        given_history: indices of interactions of held-out users that serve as their histories only; they
            are neither training data nor predicted.
        joint_ranking: rank held-out items together with all others, not among themselves.

    Raises:
        InputError: indices out of range, an interaction in two parts, or a leak: a (user, item) pair both
            known and predicted, a cold item in an earlier part, a known event later than a predicted one.

    Example:
        >>> from mmattn.evaluation.splits.strategies import cold_item_split
        >>> split = cold_item_split(np.array([0, 0, 1, 1]), np.array([0, 3, 2, 4]), item_count=5, seed=0)
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
    cold_items: Ints = field(default_factory=_empty)
    validation_items: Ints = field(default_factory=_empty)
    time: NDArray[np.float64] | None = None
    cold_users: Ints = field(default_factory=_empty)
    validation_users: Ints = field(default_factory=_empty)
    given_history: Ints = field(default_factory=_empty)
    joint_ranking: bool = False

    def __post_init__(self) -> None:
        held_out = ("cold_items", "validation_items", "cold_users", "validation_users")
        for name in ("users", "items", "train", "validation", "test", "given_history", *held_out):
            object.__setattr__(self, name, as_index_array(name, getattr(self, name)))
        if len(self.users) != len(self.items):
            raise InputError(
                f"Split: got {len(self.users)} users and {len(self.items)} items, expected one of each "
                "per interaction"
            )
        for name in ("users", "cold_users", "validation_users"):
            check_range(name, getattr(self, name), self.user_count)
        for name in ("items", "cold_items", "validation_items"):
            check_range(name, getattr(self, name), self.item_count)
        for name in ("train", "validation", "test", "given_history"):
            check_range(name, getattr(self, name), len(self.users))
        check_leaks(self)

    def matrix(self, *parts: Part) -> sparse.csr_array:
        """Return the interactions of parts as a [U, I] indicator matrix (float32, sorted indices).

        Args:
            *parts: names of the parts.
        """
        return self.indicator_matrix(np.concatenate([getattr(self, part) for part in parts]))

    def indicator_matrix(self, rows: Ints) -> sparse.csr_array:
        """Return selected interactions as a [U, I] indicator matrix (float32, sorted indices).

        Args:
            rows: indices of the interactions.
        """
        ones = np.ones(len(rows), np.float32)
        matrix = sparse.csr_array(
            (ones, (self.users[rows], self.items[rows])), shape=(self.user_count, self.item_count)
        )
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def known(self, part: Part) -> sparse.csr_array:
        """Return the interactions known when `part` is predicted, [U, I].

        Models are fitted on them, and rankings exclude them. For the test part they include validation.

        Args:
            part: the predicted part.
        """
        return self.matrix("train", "validation") if part == "test" else self.matrix("train")

    def histories(self, part: Part) -> sparse.csr_array:
        """Return the history of each user when `part` is predicted, [U, I].

        It is `known`, plus the given histories of held-out users.

        Args:
            part: the predicted part.
        """
        given = self.given_history
        if part != "test":
            given = given[np.isin(self.users[given], self.validation_users)]
        parts = [self.train, self.validation] if part == "test" else [self.train]
        return self.indicator_matrix(np.concatenate([*parts, given]))

    def known_items(self, part: Part) -> Ints:
        """Return the items whose interactions may be known when `part` is predicted, ascending.

        Args:
            part: the predicted part.
        """
        hidden = [self.cold_items] if part == "test" else [self.cold_items, self.validation_items]
        known = np.setdiff1d(np.arange(self.item_count), np.concatenate(hidden))
        if self.time is None:
            return known
        # An item may not have existed before its first interaction, so its absence is no negative evidence.
        return np.intersect1d(known, self.known(part).indices)

    def candidates(self, part: Part) -> Ints:
        """Return the items ranked when `part` is predicted, ascending.

        In a joint ranking, validation excludes the cold items.

        Args:
            part: the predicted part.
        """
        if self.joint_ranking:
            absent = _empty() if part == "test" else self.cold_items
            return np.setdiff1d(np.arange(self.item_count), absent)
        held_out = {"validation": self.validation_items, "test": self.cold_items}.get(part, _empty())
        return held_out if len(held_out) else np.arange(self.item_count)


def as_index_array(name: str, values: ArrayLike) -> Ints:
    """Convert values to a one-dimensional int64 array.

    Args:
        name: name of the values, for the message.
        values: [n] integers.

    Raises:
        InputError: the values are not a one-dimensional array of integers.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name}: got {array.dtype} of shape {array.shape}, expected a row of integers")
    return array.astype(np.int64, copy=False)


def check_range(name: str, values: Ints, count: int) -> None:
    """Check that values lie between 0 and `count` - 1.

    Args:
        name: name of the values, for the message.
        values: [n] integers.
        count: exclusive upper bound.

    Raises:
        InputError: a value is out of range.
    """
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise InputError(f"{name}: got {values.min()} to {values.max()}, expected 0 to {count - 1}")


def check_leaks(split: Split) -> None:
    """Check that no predicted interaction is known before its part.

    Args:
        split: the split.

    Raises:
        InputError: a pair in two parts, a known event later than a predicted one, a held-out item or user
            with interactions in an earlier part, or a given pair that is also predicted.
    """
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
    for hidden, kind, parts in (
        (split.cold_items, "cold", ("train", "validation")),
        (split.validation_items, "validation", ("train",)),
    ):
        for name in parts:
            occurs_I = np.zeros(split.item_count, bool)
            occurs_I[split.items[getattr(split, name)]] = True
            leaked = hidden[occurs_I[hidden]]
            if len(leaked):
                raise InputError(
                    f"{split.protocol} split leaks: {len(leaked)} {kind} items have interactions in {name}, "
                    f"the first item {leaked[0]}; expected none"
                )
    overlap = np.intersect1d(split.cold_items, split.validation_items)
    if len(overlap):
        raise InputError(
            f"{split.protocol} split leaks: {len(overlap)} items are both cold and for validation, "
            f"the first item {overlap[0]}; validation items come from the warm ones"
        )
    _check_held_out_users(split)


def _check_held_out_users(split: Split) -> None:
    for hidden, kind, parts in (
        (split.cold_users, "cold", ("train", "validation")),
        (split.validation_users, "validation", ("train",)),
    ):
        for name in parts:
            leaked = hidden[np.isin(hidden, split.users[getattr(split, name)])]
            if len(leaked):
                raise InputError(
                    f"{split.protocol} split leaks: {len(leaked)} {kind} users have interactions in {name}, "
                    f"the first user {leaked[0]}; expected none"
                )
    if np.isin(split.cold_users, split.validation_users).any():
        raise InputError(f"{split.protocol} split leaks: a user is both cold and for validation")
    if not np.isin(
        split.users[split.given_history], np.union1d(split.cold_users, split.validation_users)
    ).all():
        raise InputError(f"{split.protocol} split: something is given of a user that is not held out")
    predicted = split.matrix("validation", "test")
    shared = split.indicator_matrix(split.given_history).multiply(predicted).tocoo()
    if shared.nnz:
        raise InputError(
            f"{split.protocol} split leaks: {shared.nnz} pairs are given and to be predicted, the first user "
            f"{shared.row[0]} with item {shared.col[0]}"
        )
