"""Leave-one-out split."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Split
from mmattn.evaluation.splits.strategies.interaction_pairs import InteractionPairs, check_times, is_repeat

__all__ = ["leave_one_out_split"]


def leave_one_out_split(
    users: ArrayLike,
    items: ArrayLike,
    time: ArrayLike | None = None,
    *,
    seed: int | None = None,
    user_count: int | None = None,
    item_count: int | None = None,
) -> Split:
    """Hold out each user's last interaction for the test and the second to last for validation.

    Users with fewer than three interactions remain in training. Of repeated pairs only the first counts.
    Training contains later events of other users, so this protocol does not measure prediction of the future;
    use `global_time_split` for that.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction.
        time: [n] finite times; ties are ordered by position.
        seed: random seed that orders the interactions instead of a time.
        user_count: number of users U; by default the largest user + 1.
        item_count: number of items I; by default the largest item + 1.

    Raises:
        InputError: both a time and a seed, neither, or a time that is not finite.

    Example:
        >>> import numpy as np
        >>> split = leave_one_out_split(np.zeros(4, int), np.arange(4), [3.0, 9.0, 1.0, 4.0])
        >>> split.test.tolist(), split.validation.tolist(), split.train.tolist()
        ([1], [3], [0, 2])
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    if (time is None) == (seed is None):
        raise InputError("leave_one_out: expected a time or a seed, and not both")
    if time is None:
        times = np.random.default_rng(seed).random(len(pairs.users))
    else:
        times = check_times("leave_one_out", time, len(pairs.users))
    first = np.flatnonzero(~is_repeat(pairs.pair_keys, times))
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
