"""Histories: the items of each user in order of time, as jagged arrays without padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Ints
from mmattn.errors import InputError

__all__ = ["Histories"]


@dataclass(frozen=True, eq=False)
class Histories:
    """Events of each user in order of time; those of user u are `items[offsets[u] : offsets[u + 1]]`.

    Args:
        offsets: [U + 1] int64, starting at 0, never decreasing, ending at N.
        items: [N] int64.
        time: [N] float64, in seconds.

    Example:
        >>> histories = Histories.from_events([1, 0, 1], [7, 5, 3], [30.0, 10.0, 20.0], num_users=3)
        >>> histories.offsets.tolist(), histories.items.tolist()
        ([0, 1, 3, 3], [5, 3, 7])
    """

    offsets: Ints
    items: Ints
    time: NDArray[np.float64]

    @classmethod
    def from_events(
        cls,
        users: ArrayLike,
        items: ArrayLike,
        time: ArrayLike,
        *,
        num_users: int,
        cutoff_time: float | None = None,
    ) -> Histories:
        """Sort events into histories; events of equal time keep their order.

        Args:
            users: [N] integers from 0 to `num_users` - 1.
            items: [N] integers.
            time: [N] finite numbers, in seconds.
            num_users: number U of users, including those without events.
            cutoff_time: time of the split, at and after which no event may lie; None for no check.

        Raises:
            InputError: fields of different length, a missing time, a user out of range, or an event at or
                after `cutoff_time`.
        """
        users_N, items_N = np.asarray(users, np.int64), np.asarray(items, np.int64)
        time_N = np.asarray(time, np.float64)
        if not len(users_N) == len(items_N) == len(time_N):
            raise InputError(
                f"histories: got {len(users_N)} users, {len(items_N)} items and {len(time_N)} times, "
                "expected one of each per event"
            )
        if not np.isfinite(time_N).all():
            raise InputError(
                f"histories: {int((~np.isfinite(time_N)).sum())} events without a time, expected none"
            )
        if len(users_N) and (users_N.min() < 0 or users_N.max() >= num_users):
            raise InputError(
                f"histories: got users {users_N.min()} to {users_N.max()}, expected 0 to {num_users - 1}"
            )
        if cutoff_time is not None and (time_N >= cutoff_time).any():
            first = int(np.argmax(time_N >= cutoff_time))
            raise InputError(
                f"histories: {int((time_N >= cutoff_time).sum())} events lie in the future of the split, "
                f"which is at {cutoff_time:.0f}; the first is of user {users_N[first]} with item "
                f"{items_N[first]} at {time_N[first]:.0f}"
            )
        order = np.lexsort((time_N, users_N))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users_N, minlength=num_users))])
        return cls(offsets.astype(np.int64), items_N[order], time_N[order])

    def __len__(self) -> int:
        """Number of users U."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """[U] number of events of each user."""
        return np.diff(self.offsets)

    def slice_events(self, users: ArrayLike, start: ArrayLike, stop: ArrayLike) -> Histories:
        """Select a range of events of each of some users.

        Args:
            users: [B] users.
            start: [B] index of the first event.
            stop: [B] index after the last event.

        Returns:
            Histories of B users, in the order given.
        """
        begin_B = self.offsets[:-1][np.asarray(users, np.int64)]
        start_B, lengths_B = np.asarray(start, np.int64), np.asarray(stop, np.int64) - np.asarray(start)
        offsets = np.concatenate([[0], np.cumsum(lengths_B)]).astype(np.int64)
        index_N = np.arange(offsets[-1]) + np.repeat(begin_B + start_B - offsets[:-1], lengths_B)
        return Histories(offsets, self.items[index_N], self.time[index_N])

    def last_events(self, count: int) -> Histories:
        """Select the last events of every user.

        Args:
            count: number of events; users with fewer keep all.
        """
        users, lengths = np.arange(len(self)), self.lengths
        return self.slice_events(users, np.maximum(lengths - count, 0), lengths)

    def to_sparse(self, num_items: int) -> sparse.csr_array:
        """Convert to a matrix of users and items.

        Args:
            num_items: number I of items.

        Returns:
            [U, I] float32, 1 where the user has the item.
        """
        users_N = np.repeat(np.arange(len(self)), self.lengths)
        ones = np.ones(len(self.items), np.float32)
        matrix = sparse.csr_array((ones, (users_N, self.items)), shape=(len(self), num_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix
