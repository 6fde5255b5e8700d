"""Leaks of a split: what is to be predicted must not be known before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.evaluation.splits.split import Part, Split

__all__ = ["check_leaks"]


def check_leaks(split: Split) -> None:
    """Refuse a split in which something to be predicted is known before.

    Raises:
        InputError: a pair in two parts, an event known that is later than one to be predicted, a held-out
            item or user with interactions in an earlier part, a given pair that is to be predicted.
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
    _check_held_out_users(split)


def _check_held_out_users(split: Split) -> None:
    for hidden, what, parts in (
        (split.cold_users, "cold", ("train", "validation")),
        (split.validation_users, "validation", ("train",)),
    ):
        for name in parts:
            leaked = hidden[np.isin(hidden, split.users[getattr(split, name)])]
            if len(leaked):
                raise InputError(
                    f"{split.protocol} split leaks: {len(leaked)} {what} users have interactions in {name}, "
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
