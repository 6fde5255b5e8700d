"""How popular each item was at a moment: what was known then, and nothing of what came later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.errors import InputError

__all__ = ["DAY", "Trends"]

DAY = 86_400.0
_STEP = 30 * DAY


class Trends:
    """log(1 + choices) of every item at a grid of moments, older choices counting less.

    A choice that is t old counts 2^(-t / half-life). Popularity at a moment is that of the last point of the
    grid at or before it, from choices strictly before that point: a choice never counts itself.

    Args:
        items: [N] item of each choice.
        time: [N] seconds.
        item_count: I.
        half_lives: days in which a choice loses half of its weight, one a kind of popularity; 0 for never.
        now: the moment of serving, which is the grid's last point; left out, just after the last choice.
        step: seconds between two points of the grid.

    Raises:
        InputError: a half-life below 0, or choices at `now` or later.

    Example:
        >>> seen = Trends([0, 0, 1], [0.0, 10 * DAY, 99 * DAY], 2, [0, 10], now=100 * DAY)
        >>> np.expm1(seen.now.astype(float)).round(3).tolist()  # all choices, then those that have not faded
        [[2.0, 1.0], [0.003, 0.933]]
    """

    def __init__(
        self,
        items: ArrayLike,
        time: ArrayLike,
        item_count: int,
        half_lives: Sequence[float],
        now: float | None = None,
        step: float = _STEP,
    ):
        if any(half < 0 for half in half_lives):
            raise InputError(f"popularity: got half-lives {list(half_lives)}, expected days from 0")
        items_N, time_N = np.asarray(items, np.int64), np.asarray(time, np.float64)
        end = float(time_N.max(initial=0.0)) + 1.0 if now is None else now
        if (time_N >= end).any():
            raise InputError(
                f"popularity: {int((time_N >= end).sum())} choices at {end:.0f} or later, expected earlier"
            )
        begin = float(time_N.min(initial=end))
        # Counted back from the end, so that the last point is the moment of serving itself.
        points = int(np.ceil((end - begin) / step)) + 1
        self.moments_S = np.asarray(end - step * np.arange(points)[::-1], np.float64)
        fade_F1 = np.array([[0.5 ** (step / (half * DAY)) if half else 1.0] for half in half_lives])
        counts_FI = np.zeros((len(half_lives), item_count))
        table = np.zeros((points, len(half_lives), item_count), np.float32)
        order = np.argsort(time_N, kind="stable")
        cuts = np.searchsorted(time_N[order], self.moments_S, side="left")
        for point in range(1, points):
            new = order[cuts[point - 1] : cuts[point]]
            counts_FI *= fade_F1
            for row, half in enumerate(half_lives):
                age_N = (self.moments_S[point] - time_N[new]) / DAY
                weights_N = 0.5 ** (age_N / half) if half else np.ones(len(new))
                counts_FI[row] += np.bincount(items_N[new], weights=weights_N, minlength=item_count)
            table[point] = np.log1p(counts_FI)
        self.table_SFI = table

    @property
    def now(self) -> NDArray[np.float32]:
        """[F, I] at the moment of serving."""
        return self.table_SFI[-1]

    def point(self, time: ArrayLike) -> NDArray[np.int64]:
        """The grid's point that is known at each time: the last one at or before it, else the first."""
        found = np.searchsorted(self.moments_S, np.asarray(time, np.float64), side="right") - 1
        return np.maximum(found, 0).astype(np.int64)
