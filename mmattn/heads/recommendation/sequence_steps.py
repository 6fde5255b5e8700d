"""Histories as steps: what was met, and what is to be predicted after each of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.array_types import Floats, Ints
    from mmattn.data.histories import Histories

__all__ = ["SequenceSteps", "final_states", "history_steps", "sample_training_steps"]


@dataclass(frozen=True, eq=False)
class SequenceSteps:
    """A batch of B histories, N steps in all, each history led by its start.

    Args:
        items: [N] int64 place of the item among the item vectors; -1 at a start.
        lengths: [B] int64 steps of each history, its start counted.
        times: [N] float64 seconds of each event, NaN at a start.
        targets: [N] int64 place of the item to be predicted after each step, -1 where there is none.
        popularity_index: [N] int64 point of the popularity's grid that is known when the target is predicted.
    """

    items: Tensor
    lengths: Tensor
    times: Tensor
    targets: Tensor
    popularity_index: Tensor

    def to(self, device: torch.device) -> SequenceSteps:
        """The same on another device.

        Args:
            device: of the result.
        """
        return SequenceSteps(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def tokens(self, start_vector: Tensor, items: Tensor) -> Tokens:
        """The steps as tokens of one modality.

        Args:
            start_vector: [W] what leads every history.
            items: [C, W] the item vectors.
        """
        values_ND = torch.cat([start_vector[None], items])[self.items + 1]
        return Tokens.from_lengths(values_ND, self.lengths, "history", time=self.times)


def history_steps(histories: Histories, item_to_row: Ints | None = None) -> SequenceSteps:
    """Histories as steps without targets, a start before each.

    Args:
        histories: B of them.
        item_to_row: [I] of each item among the vectors that the steps point at; None where those are all
            items.

    Example:
        >>> from mmattn.data.histories import Histories
        >>> met = Histories.from_events([0, 0, 2], [4, 3, 1], [0.0, 1.0, 2.0], num_users=3)
        >>> history_steps(met).items.tolist(), history_steps(met).lengths.tolist()
        ([-1, 4, 3, -1, -1, 1], [3, 1, 2])
    """
    starts = histories.offsets[:-1]
    item = histories.items if item_to_row is None else item_to_row[histories.items]
    item = np.insert(item, starts, -1)
    return SequenceSteps(
        items=torch.from_numpy(item),
        lengths=torch.from_numpy(histories.lengths + 1),
        times=torch.from_numpy(np.insert(histories.time, starts, np.nan)),
        targets=torch.full((len(item),), -1),
        popularity_index=torch.zeros(len(item), dtype=torch.int64),
    )


def sample_training_steps(
    histories: Histories,
    users: Ints,
    item_to_row: Ints,
    *,
    max_length: int,
    horizon: int = 1,
    popularity_index_fn: Callable[[Floats], Ints] | None = None,
    generator: torch.Generator,
) -> SequenceSteps:
    """A random window of each of these histories, and after each step one of the items that follow in it.

    Coming back to an item that was met before is not predicted, and neither is the first event of a window
    that begins within a history: the start stands for users of whom nothing is known.

    Args:
        histories: of all users.
        users: [B] whose windows are drawn.
        item_to_row: [I] of each item among the vectors that the steps point at.
        max_length: events of a window, at most.
        horizon: the target is one of the next so many items, drawn evenly.
        popularity_index_fn: times -> the popularity's points that are known then.
        generator: on the CPU.

    Example:
        >>> from mmattn.data.histories import Histories
        >>> met = Histories.from_events([0, 0, 0], [4, 3, 1], [0.0, 1.0, 2.0], num_users=1)
        >>> steps = sample_training_steps(met, np.array([0]), np.arange(5), max_length=9,
        ...     generator=torch.Generator())
        >>> steps.items.tolist(), steps.targets.tolist()
        ([-1, 4, 3], [4, 3, 1])
    """
    lengths = histories.lengths[users]
    spare = np.maximum(lengths - max_length, 0)
    begin = np.floor(torch.rand(len(users), generator=generator).numpy() * (spare + 1)).astype(np.int64)
    window = histories.slice_events(users, begin, np.minimum(begin + max_length, lengths))
    steps = history_steps(window, item_to_row)
    item, time = steps.items.numpy(), steps.times.numpy()
    left = np.concatenate([np.arange(length, -1, -1) for length in window.lengths])
    ahead = left > 0
    ahead[window.offsets[:-1][begin > 0] + np.flatnonzero(begin > 0)] = False
    drawn = torch.rand(len(left), generator=generator).numpy()
    here = np.arange(len(left))
    aim = here + 1 + np.floor(drawn * np.minimum(left, horizon)).astype(np.int64)
    aim = np.where(ahead, aim, here)
    target = np.where(ahead & ~_seen_before(item, steps.lengths.numpy(), aim), item[aim], -1)
    # Popularity as it is known at the moment when the next event is asked for.
    query_time = time[np.minimum(here + 1, len(item) - 1)]
    points = (
        np.zeros(len(item), np.int64)
        if popularity_index_fn is None
        else popularity_index_fn(np.where(left > 0, query_time, 0.0))
    )
    # Nothing follows the last event. Without it, the last place of a history is where predictions are made,
    # in training as at the test.
    kept = torch.from_numpy(left > 0)
    return SequenceSteps(
        items=steps.items[kept],
        lengths=steps.lengths - 1,
        times=steps.times[kept],
        targets=torch.from_numpy(target)[kept],
        popularity_index=torch.from_numpy(points)[kept],
    )


def final_states(steps: SequenceSteps, states: Tensor) -> Tensor:
    """Return the state after each whole history, [B, W].

    Args:
        steps: steps of B histories.
        states: [N, W] state after each step.
    """
    return states[steps.lengths.cumsum(0) - 1]


def _seen_before(item: Ints, lengths: Ints, target: Ints) -> NDArray[np.bool_]:
    """[N] True where the target's item was met up to the step: coming back is not predicted."""
    sample = np.repeat(np.arange(len(lengths)), lengths)
    first: dict[tuple[int, int], int] = {}
    for step, key in enumerate(zip(sample.tolist(), item.tolist(), strict=True)):
        first.setdefault(key, step)
    wanted = zip(sample.tolist(), item[target].tolist(), strict=True)
    return np.array([first.get(key, step + 1) <= step for step, key in enumerate(wanted)], bool)
