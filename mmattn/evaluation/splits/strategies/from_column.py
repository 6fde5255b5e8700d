"""The predefined split of a dataset."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import ArrayLike

from mmattn.errors import InputError
from mmattn.evaluation.splits.split import Part, Split
from mmattn.evaluation.splits.strategies.interaction_pairs import (
    InteractionPairs,
    check_fractions,
    draw_per_user,
)

__all__ = ["split_from_column"]


_PARTS: tuple[Part, ...] = get_args(Part)


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
    """Use the dataset's own split, so that results are comparable with published ones.

    Without a validation part, a random fraction of each user's training interactions becomes one. The test
    part does not depend on the seed.

    Args:
        users: [n] user of each interaction.
        items: [n] item of each interaction, without duplicate (user, item) pairs.
        parts: [n] "train", "validation" or "test", as `Interactions.split` stores them.
        seed: random seed; unused if the dataset has a validation part.
        validation: fraction of each user's training interactions, rounded down; unused likewise.
        user_count: number of users U; by default the largest user + 1.
        item_count: number of items I; by default the largest item + 1.

    Raises:
        InputError: an unknown part, or an empty training or test part.

    Example:
        >>> import numpy as np
        >>> parts = ["train"] * 5 + ["test"]
        >>> split = split_from_column(np.zeros(6, int), np.arange(6), parts, seed=0, validation=0.4)
        >>> len(split.train), len(split.validation), split.test.tolist()
        (3, 2, [5])
    """
    pairs = InteractionPairs.from_arrays(users, items, user_count, item_count)
    check_fractions(validation=validation)
    labels = np.asarray(parts, dtype=object)
    if labels.shape != pairs.users.shape:
        raise InputError(f"given: got parts of shape {labels.shape}, expected [{len(pairs.users)}]")
    unknown = np.flatnonzero(~np.isin(labels, _PARTS))
    if len(unknown):
        raise InputError(
            f"given: got {labels[unknown[0]]!r} for interaction {unknown[0]}, expected one of "
            f"{', '.join(_PARTS)}"
        )
    train, validation_part, test = (np.flatnonzero(labels == part) for part in _PARTS)
    for name, part in (("train", train), ("test", test)):
        if not len(part):
            raise InputError(f"given: no interaction is marked {name!r}, expected some")
    if len(validation_part):
        return Split(protocol="given", **pairs.as_kwargs, train=train, validation=validation_part, test=test)
    drawn = draw_per_user(pairs.users, labels == "train", validation, np.random.default_rng(seed))
    return Split(
        protocol="given",
        **pairs.as_kwargs,
        train=train[~drawn[train]],
        validation=np.flatnonzero(drawn),
        test=test,
        seed=seed,
    )
