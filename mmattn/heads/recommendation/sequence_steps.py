"""Histories as steps: what was met, and what is to be predicted after each of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmattn.array_types import Floats, Ints
from mmattn.data.histories import Histories
from mmattn.types import Tokens

__all__ = ["Steps", "final", "next_steps", "whole_histories"]


@dataclass(frozen=True, eq=False)
class Steps:
    """A batch of B histories, N steps in all, each history led by its start.

    Args:
        item: [N] int64 place of the item among the item vectors; -1 at a start.
        lengths: [B] int64 steps of each history, its start counted.
        time: [N] float64 seconds of each event, NaN at a start.
        target: [N] int64 place of the item to be predicted after each step, -1 where there is none.
        point: [N] int64 point of the popularity's grid that is known when the target is predicted.
    """

    item: Tensor
    lengths: Tensor
    time: Tensor
    target: Tensor
    point: Tensor

    def to(self, device: torch.device) -> Steps:
        """The same on another device."""
        return Steps(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def tokens(self, start: Tensor, items: Tensor) -> Tokens:
        """The steps as tokens of one modality.

        Args:
            start: [W] what leads every history.
            items: [C, W] the item vectors.
        """
        values_ND = torch.cat([start[None], items])[self.item + 1]
        return Tokens.from_lengths(values_ND, self.lengths, "history", time=self.time)


def whole_histories(histories: Histories, place: Ints | None = None) -> Steps:
    """Histories as steps without targets, a start before each.

    Args:
        histories: B of them.
        place: [I] of each item among the vectors that the steps point at; None where those are all items.

    Example:
        >>> met = Histories.of([0, 0, 2], [4, 3, 1], [0.0, 1.0, 2.0], user_count=3)
        >>> whole_histories(met).item.tolist(), whole_histories(met).lengths.tolist()
        ([-1, 4, 3, -1, -1, 1], [3, 1, 2])
    """
    starts = histories.offsets[:-1]
    item = histories.items if place is None else place[histories.items]
    item = np.insert(item, starts, -1)
    return Steps(
        item=torch.from_numpy(item),
        lengths=torch.from_numpy(histories.lengths + 1),
        time=torch.from_numpy(np.insert(histories.time, starts, np.nan)),
        target=torch.full((len(item),), -1),
        point=torch.zeros(len(item), dtype=torch.int64),
    )


def next_steps(
    histories: Histories,
    users: Ints,
    place: Ints,
    *,
    longest: int,
    horizon: int = 1,
    point: Callable[[Floats], Ints] | None = None,
    generator: torch.Generator,
) -> Steps:
    """A random window of each of these histories, and after each step one of the items that follow in it.

    Coming back to an item that was met before is not predicted, and neither is the first event of a window
    that begins within a history: the start stands for users of whom nothing is known.

    Args:
        histories: of all users.
        users: [B] whose windows are drawn.
        place: [I] of each item among the vectors that the steps point at.
        longest: events of a window, at most.
        horizon: the target is one of the next so many items, drawn evenly.
        point: times -> the popularity's points that are known then.
        generator: on the CPU.

    Example:
        >>> met = Histories.of([0, 0, 0], [4, 3, 1], [0.0, 1.0, 2.0], user_count=1)
        >>> steps = next_steps(met, np.array([0]), np.arange(5), longest=9, generator=torch.Generator())
        >>> steps.item.tolist(), steps.target.tolist()
        ([-1, 4, 3], [4, 3, 1])
    """
    lengths = histories.lengths[users]
    spare = np.maximum(lengths - longest, 0)
    begin = np.floor(torch.rand(len(users), generator=generator).numpy() * (spare + 1)).astype(np.int64)
    window = histories.part(users, begin, np.minimum(begin + longest, lengths))
    steps = whole_histories(window, place)
    item, time = steps.item.numpy(), steps.time.numpy()
    left = np.concatenate([np.arange(length, -1, -1) for length in window.lengths])
    ahead = left > 0
    ahead[window.offsets[:-1][begin > 0] + np.flatnonzero(begin > 0)] = False
    drawn = torch.rand(len(left), generator=generator).numpy()
    here = np.arange(len(left))
    aim = here + 1 + np.floor(drawn * np.minimum(left, horizon)).astype(np.int64)
    aim = np.where(ahead, aim, here)
    target = np.where(ahead & ~_met_before(item, steps.lengths.numpy(), aim), item[aim], -1)
    # Popularity as it is known at the moment when the next event is asked for.
    asked = time[np.minimum(here + 1, len(item) - 1)]
    points = np.zeros(len(item), np.int64) if point is None else point(np.where(left > 0, asked, 0.0))
    # Nothing follows the last event. Without it, the last place of a history is where predictions are made,
    # in training as at the test.
    kept = torch.from_numpy(left > 0)
    return Steps(
        item=steps.item[kept],
        lengths=steps.lengths - 1,
        time=steps.time[kept],
        target=torch.from_numpy(target)[kept],
        point=torch.from_numpy(points)[kept],
    )


def final(steps: Steps, states: Tensor) -> Tensor:
    """[B, W]: of [N, W] states, the one after each whole history."""
    return states[steps.lengths.cumsum(0) - 1]


def _met_before(item: Ints, lengths: Ints, target: Ints) -> NDArray[np.bool_]:
    """[N] True where the target's item was met up to the step: coming back is not predicted."""
    sample = np.repeat(np.arange(len(lengths)), lengths)
    first: dict[tuple[int, int], int] = {}
    for step, key in enumerate(zip(sample.tolist(), item.tolist(), strict=True)):
        first.setdefault(key, step)
    wanted = zip(sample.tolist(), item[target].tolist(), strict=True)
    return np.array([first.get(key, step + 1) <= step for step, key in enumerate(wanted)], bool)
