"""How popular each item was at a moment: what was known then, and nothing of what came later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.errors import InputError

__all__ = ["SECONDS_PER_DAY", "PopularityOverTime"]

SECONDS_PER_DAY = 86_400.0
_GRID_STEP = 30 * SECONDS_PER_DAY


class PopularityOverTime:
    """log(1 + choices) of every item at a grid of moments, older choices counting less.

    A choice that is t old counts 2^(-t / half-life). Popularity at a moment is that of the last point of the
    grid at or before it, from choices strictly before that point: a choice never counts itself.

    Args:
        items: [N] item of each choice.
        times: [N] seconds.
        num_items: I.
        half_lives: days in which a choice loses half of its weight, one a kind of popularity; 0 for never.
        serving_time: the moment of serving, which is the grid's last point; left out, just after the last
            choice.
        grid_step: seconds between two points of the grid.

    Raises:
        InputError: a half-life below 0, or choices at `serving_time` or later.

    Example:
        >>> times = [0.0, 10 * SECONDS_PER_DAY, 99 * SECONDS_PER_DAY]
        >>> popularity = PopularityOverTime([0, 0, 1], times, 2, [0, 10], serving_time=100 * SECONDS_PER_DAY)
        >>> np.expm1(popularity.latest.astype(float)).round(3).tolist()  # all choices, then the recent ones
        [[2.0, 1.0], [0.003, 0.933]]
    """

    def __init__(
        self,
        items: ArrayLike,
        times: ArrayLike,
        num_items: int,
        half_lives: Sequence[float],
        serving_time: float | None = None,
        grid_step: float = _GRID_STEP,
    ):
        if any(half < 0 for half in half_lives):
            raise InputError(f"popularity: got half-lives {list(half_lives)}, expected days from 0")
        items_N, time_N = np.asarray(items, np.int64), np.asarray(times, np.float64)
        end = float(time_N.max(initial=0.0)) + 1.0 if serving_time is None else serving_time
        if (time_N >= end).any():
            raise InputError(
                f"popularity: {int((time_N >= end).sum())} choices at {end:.0f} or later, expected earlier"
            )
        begin = float(time_N.min(initial=end))
        # Counted back from the end, so that the last point is the moment of serving itself.
        points = int(np.ceil((end - begin) / grid_step)) + 1
        self.grid_times_S = np.asarray(end - grid_step * np.arange(points)[::-1], np.float64)
        fade_F1 = np.array(
            [[0.5 ** (grid_step / (half * SECONDS_PER_DAY)) if half else 1.0] for half in half_lives]
        )
        counts_FI = np.zeros((len(half_lives), num_items))
        table = np.zeros((points, len(half_lives), num_items), np.float32)
        order = np.argsort(time_N, kind="stable")
        cuts = np.searchsorted(time_N[order], self.grid_times_S, side="left")
        for point in range(1, points):
            new = order[cuts[point - 1] : cuts[point]]
            counts_FI *= fade_F1
            for row, half in enumerate(half_lives):
                age_N = (self.grid_times_S[point] - time_N[new]) / SECONDS_PER_DAY
                weights_N = 0.5 ** (age_N / half) if half else np.ones(len(new))
                counts_FI[row] += np.bincount(items_N[new], weights=weights_N, minlength=num_items)
            table[point] = np.log1p(counts_FI)
        self.table_SFI = table

    @property
    def latest(self) -> NDArray[np.float32]:
        """[F, I] at the moment of serving."""
        return self.table_SFI[-1]

    def grid_index(self, times: ArrayLike) -> NDArray[np.int64]:
        """Return the index of the last grid point at or before each time, or the first grid point.

        Args:
            times: [N] seconds.
        """
        index = np.searchsorted(self.grid_times_S, np.asarray(times, np.float64), side="right") - 1
        return np.maximum(index, 0).astype(np.int64)
