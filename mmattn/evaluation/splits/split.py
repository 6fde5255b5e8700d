"""What a split is: which interaction belongs to which part, checked for leaks whoever made it.

It answers the three questions that an honest evaluation asks for each part: what may be known when it is
predicted, which items are ranked, and which of them are right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Ints
from mmattn.errors import InputError
from mmattn.evaluation.splits.leaks import check_leaks

__all__ = ["Part", "Split", "as_index_array", "check_range"]

Part = Literal["train", "validation", "test"]


def _empty() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Which interaction belongs to which part. An interaction may belong to none, never to two.

    Args:
        protocol: "random", "leave-one-out", "global-time", "cold-items", "cold-users", "mixed",
            "given", or another name.
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
        given_history: indices of interactions of held-out users that are their histories when they are predicted,
            and nothing else: neither learned from nor to be predicted.
        joint_ranking: held-out items are ranked together with all others, not among themselves.

    Raises:
        InputError: indices out of range, an interaction in two parts, or a leak: a pair of user and
            item both known and to be predicted, a cold item known, a training event later than an
            event to be predicted.

    Example:
        >>> from mmattn.evaluation.splits.strategies import cold_items
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
    cold_items: Ints = field(default_factory=_empty)
    validation_items: Ints = field(default_factory=_empty)
    time: NDArray[np.float64] | None = None
    cold_users: Ints = field(default_factory=_empty)
    validation_users: Ints = field(default_factory=_empty)
    given_history: Ints = field(default_factory=_empty)
    joint_ranking: bool = False

    def __post_init__(self) -> None:
        held_out = ("cold_items", "validation_items", "cold_users", "validation_users")
        for name in ("users", "items", "train", "validation", "test", "given", *held_out):
            object.__setattr__(self, name, as_index_array(name, getattr(self, name)))
        if len(self.users) != len(self.items):
            raise InputError(
                f"Split: got {len(self.users)} users and {len(self.items)} items, expected one of each "
                "an interaction"
            )
        for name in ("users", "cold_users", "validation_users"):
            check_range(name, getattr(self, name), self.user_count)
        for name in ("items", "cold_items", "validation_items"):
            check_range(name, getattr(self, name), self.item_count)
        for name in ("train", "validation", "test", "given"):
            check_range(name, getattr(self, name), len(self.users))
        check_leaks(self)

    def matrix(self, *parts: Part) -> sparse.csr_array:
        """The interactions of these parts as [U, I] ones, float32, indices sorted."""
        return self.indicator_matrix(np.concatenate([getattr(self, part) for part in parts]))

    def indicator_matrix(self, rows: Ints) -> sparse.csr_array:
        """The interactions at these indices as [U, I] ones, float32, indices sorted."""
        ones = np.ones(len(rows), np.float32)
        matrix = sparse.csr_array(
            (ones, (self.users[rows], self.items[rows])), shape=(self.user_count, self.item_count)
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
        given = self.given_history
        if part != "test":
            given = given[np.isin(self.users[given], self.validation_users)]
        parts = [self.train, self.validation] if part == "test" else [self.train]
        return self.indicator_matrix(np.concatenate([*parts, given]))

    def known_items(self, part: Part) -> Ints:
        """Items that a system may have met with their interactions when `part` is predicted."""
        hidden = [self.cold_items] if part == "test" else [self.cold_items, self.validation_items]
        known = np.setdiff1d(np.arange(self.item_count), np.concatenate(hidden))
        if self.time is None:
            return known
        # Before anybody chose it, an item may not have been there: that it was not chosen says nothing.
        return np.intersect1d(known, self.known(part).indices)

    def candidates(self, part: Part) -> Ints:
        """Items that are ranked when `part` is predicted, ascending. At validation the cold items are not
        there yet where all are ranked together."""
        if self.joint_ranking:
            absent = _empty() if part == "test" else self.cold_items
            return np.setdiff1d(np.arange(self.item_count), absent)
        held_out = {"validation": self.validation_items, "test": self.cold_items}.get(part, _empty())
        return held_out if len(held_out) else np.arange(self.item_count)


def as_index_array(name: str, values: ArrayLike) -> Ints:
    """The values as a row of int64.

    Raises:
        InputError: they are no row of integers.
    """
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name}: got {array.dtype} of shape {array.shape}, expected a row of integers")
    return array.astype(np.int64, copy=False)


def check_range(name: str, values: Ints, count: int) -> None:
    """Refuse values outside 0 to `count` - 1.

    Raises:
        InputError: what came and what was expected.
    """
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise InputError(f"{name}: got {values.min()} to {values.max()}, expected 0 to {count - 1}")
