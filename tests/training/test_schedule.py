"""The rate of every step, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmattn import InputError
from mmattn.training.batch_size import batch_size_at
from mmattn.training.schedule import SCHEDULES, LearningRateSchedule


def build(
    kind: str, steps: list[int], rates: tuple[float, ...] = (1.0,), **options: Any
) -> LearningRateSchedule:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    return LearningRateSchedule(kind, torch.optim.SGD(groups), steps_per_epoch=steps, **options)


def walk(schedule: LearningRateSchedule, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(schedule.learning_rate)
        schedule.optimizer.step()
        schedule.step()
    return rates


WARM = [0.25, 0.5, 0.75, 1.0]  # four steps, each a quarter higher
GOLDEN = {
    "constant": [*WARM, 1, 1, 1, 1, 1, 1, 1, 1],
    # Eight steps down: cos(k pi / 8).
    "cosine": [*WARM, *((1 + math.cos(math.pi * k / 8)) / 2 for k in range(8))],
    # Epochs of 3 steps; after 2 epochs half, after 4 a quarter (which is the end).
    "step": [*WARM, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
    # Half in 2 epochs of 3 steps: a sixth of a halving a step.
    "exponential": [*WARM, *(0.5 ** (k / 6) for k in range(8))],
    "plateau": [*WARM, 1, 1, 1, 1, 1, 1, 1, 1],  # nobody told it a score
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_step_of_every_schedule(kind: str) -> None:
    schedule = build(kind, [3, 3, 3, 3], warmup_ratio=1 / 3, lr_decay=0.5, lr_decay_epochs=2)
    assert walk(schedule, 12) == pytest.approx(GOLDEN[kind])


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("cut", [1, 4, 5, 9])
def test_a_schedule_goes_on_from_its_state(kind: str, cut: int) -> None:
    options: dict[str, Any] = {"warmup_ratio": 1 / 3, "lr_decay": 0.5, "lr_decay_epochs": 2}
    first = build(kind, [3, 3, 3, 3], **options)
    walk(first, cut)
    second = build(kind, [3, 3, 3, 3], **options)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert walk(second, 12 - cut) == pytest.approx(GOLDEN[kind][cut:])


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_a_warm_up_of_one_step_and_none(steps: int) -> None:
    assert walk(build("cosine", [steps]), 1) == [1.0]
    entry = walk(build("cosine", [4], warmup_ratio=0.25), 4)
    assert entry == pytest.approx([1, 1, 0.75, 0.25])  # three steps down: 0, 60 and 120 degrees


def test_groups_keep_their_own_peaks() -> None:
    schedule = build("cosine", [4], rates=(1.0, 0.1))
    walk(schedule, 2)
    assert [group["lr"] for group in schedule.optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_epochs_of_different_lengths() -> None:
    schedule = build("step", [4, 2, 1], lr_decay=0.1, lr_decay_epochs=1)
    assert walk(schedule, 7) == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01])


def test_the_plateau_waits_and_then_falls() -> None:
    schedule = build("plateau", [1] * 9, lr_decay=0.5, lr_decay_epochs=2)
    rates = []
    for score in (0.1, 0.3, 0.2, 0.3, 0.25, 0.1, 0.4, 0.3, 0.2):  # as good as the best is not better
        rates += walk(schedule, 1)
        schedule.step_epoch(score)
    assert rates == pytest.approx([1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25])
    assert schedule.learning_rate == pytest.approx(0.125)


def test_more_steps_than_were_promised_keep_the_last_rate() -> None:
    rates = walk(build("cosine", [4]), 6)
    assert rates[3] == rates[4] == rates[5] > 0


def test_what_a_schedule_refuses() -> None:
    with pytest.raises(InputError, match=r"no schedule 'cosin'. Did you mean 'cosine'\?"):
        build("cosin", [3])
    with pytest.raises(InputError, match="warmup_ratio: got 1.5"):
        build("cosine", [3], warmup_ratio=1.5)
    with pytest.raises(InputError, match="lr_decay: got 0"):
        build("step", [3], lr_decay=0)
    with pytest.raises(InputError, match="lr_decay_epochs: got 0"):
        build("step", [3], lr_decay_epochs=0)


@pytest.mark.parametrize("sizes", [{1: 5}, {}, {0: -1}, {0: 2.5}, -3, {0: True}])
def test_batch_sizes_that_make_no_sense(sizes: Any) -> None:
    with pytest.raises(InputError, match="batch sizes: got .* starts at 0"):
        batch_size_at(sizes, epoch=1)
