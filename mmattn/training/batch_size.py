"""A batch size that grows with the training, where others lower the learning rate."""

from __future__ import annotations

from collections.abc import Mapping

from mmattn.errors import InputError

__all__ = ["BatchSizeSchedule", "batch_size_at"]

BatchSizeSchedule = int | Mapping[int, int]


def batch_size_at(sizes: BatchSizeSchedule, epoch: int) -> int:
    """The batch size of an epoch.

    Paper: Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2018.

    Args:
        sizes: one size for all epochs, or {epochs done: size from there on}, which starts at 0.
        epoch: counted from 1.

    Raises:
        InputError: the sizes do not start at 0, or hold something else than whole numbers from 0
            (where 0 is a size that means all).

    Example:
        >>> [batch_size_at({0: 256, 10: 1024}, epoch) for epoch in (1, 10, 11, 12)]
        [256, 256, 1024, 1024]
        >>> batch_size_at(64, epoch=3)
        64
    """
    table = sizes if isinstance(sizes, Mapping) else {0: sizes}
    numbers = [*table, *table.values()]
    if 0 not in table or any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in numbers):
        raise InputError(
            f"batch sizes: got {sizes}, expected a size or {{epochs done: size}} that starts at 0, "
            "for example {0: 256, 10: 1024}"
        )
    return table[max(start for start in table if start < epoch)]
