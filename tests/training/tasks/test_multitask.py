"""Tasks on one core: both improve, each reports its loss, and a kill changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn import InputError
from mmattn.training.loop import LoopConfig, train
from mmattn.training.tasks.base import Task
from mmattn.training.tasks.multitask import MultiTask
from mmattn.training.tasks.task_weighting import (
    FixedWeights,
    GradientWeights,
    TaskWeighting,
    UncertaintyWeights,
)

SETTINGS = LoopConfig(
    epochs=3, learning_rate=0.01, weight_decay=0.01, warmup_ratio=0.05, patience=0, ema_decay=0, save_every=1
)


class Core(nn.Module):
    """What two tasks share, and a head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 23), nn.ReLU())
        self.heads = nn.ModuleDict({"digit": nn.Linear(23, 10), "ink": nn.Linear(23, 1)})

    def forward(self, pictures: Tensor, head: str) -> Tensor:
        return self.heads[head](self.body(pictures))


class OfDigits(Task):
    """Name the digit, or say how much ink there is; each sees pictures of its own."""

    def __init__(self, model: Core, head: str, rows: slice, size: int = 53):
        super().__init__()
        pixels, digits = load_digits(return_X_y=True)
        self.model, self.head, self.size = model, head, size
        self.pixels = torch.from_numpy(pixels / 8 - 1).float()
        ink = self.pixels.mean(1)
        self.wanted = (
            torch.from_numpy(digits) if head == "digit" else ((ink - ink.mean()) / ink.std())[:, None]
        )
        self.rows, self.held_out = torch.arange(1797)[rows], torch.arange(1500, 1797)

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from self.rows[torch.randperm(len(self.rows), generator=generator)].split(self.size)

    def forward(self, rows: Tensor) -> Tensor:
        cost = F.cross_entropy if self.head == "digit" else F.mse_loss
        return cost(self.model(self.pixels[rows], self.head), self.wanted[rows])

    def validate(self) -> dict[str, float]:
        predicted, wanted = self.model(self.pixels[self.held_out], self.head), self.wanted[self.held_out]
        if self.head == "digit":
            return {"accuracy": (predicted.argmax(1) == wanted).float().mean().item()}
        return {"explained": 1 - ((predicted - wanted).square().mean() / wanted.var()).item()}


def both(weighting: TaskWeighting | None = None) -> MultiTask:
    torch.manual_seed(0)
    model = Core()
    return MultiTask(
        {"digit": OfDigits(model, "digit", slice(0, 700)), "ink": OfDigits(model, "ink", slice(700, 1100))},
        weighting,
    )


@pytest.mark.parametrize("kind", ["sum", "uncertainty", "UPGrad"])
def test_two_tasks_on_one_core_both_improve(kind: str) -> None:
    if kind == "UPGrad":
        pytest.importorskip("torchjd", reason="an extra: pip install 'mmattn[multitask]'")
    weighting = {
        "sum": FixedWeights,
        "uncertainty": lambda: UncertaintyWeights(["digit", "ink"], regression_tasks=["ink"]),
        "UPGrad": GradientWeights,
    }[kind]()
    task = both(weighting)
    before = task.validate()
    history = train(task, replace(SETTINGS, epochs=6), progress=False)
    after = task.validate()
    assert before["accuracy"] < 0.3 < 0.7 < after["accuracy"]
    assert before["ink explained"] < 0.3 < 0.7 < after["ink explained"]
    for name in ("loss digit", "loss ink"):
        assert history.rows[-1][name] < history.rows[0][name] / 2
    if kind == "sum":
        for row in history.rows:
            assert row["loss"] == pytest.approx(row["loss digit"] + row["loss ink"], rel=1e-5)
    if kind == "uncertainty":  # its parameters are trained along
        assert task.weighting.log_variance.abs().min() > 0.01


def test_the_first_task_s_batches_make_an_epoch_and_the_others_begin_anew() -> None:
    task = both()
    drawn = list(task.batches(1, torch.Generator().manual_seed(3)))
    assert len(drawn) == task.num_batches(1) == 14  # 700 in batches of 53; 400 make only 8
    ink = [batch["ink"] for batch in drawn]
    assert torch.cat(ink[:8]).sort().values.tolist() == list(range(700, 1100))
    again = torch.cat(ink[8:]).tolist()
    assert len(set(again)) == len(again) == 6 * 53
    # What one task draws does not depend on the other.
    other = both()
    other.tasks["digit"].size = 71
    for mine, theirs in zip(drawn, other.batches(1, torch.Generator().manual_seed(3)), strict=False):
        assert torch.equal(mine["ink"], theirs["ink"])


def test_a_kill_between_batches_changes_nothing(tmp_path: Path) -> None:
    def weighted() -> MultiTask:
        return both(UncertaintyWeights(["digit", "ink"]))

    whole = weighted()
    expected = train(whole, SETTINGS, progress=False)

    class Killed(Exception):
        pass

    class Dying(MultiTask):
        steps = 0

        def forward(self, batch: Any) -> Tensor:
            self.steps += 1
            if self.steps == 20:
                raise Killed
            return super().forward(batch)

    dying = weighted()
    dying.__class__ = Dying
    with pytest.raises(Killed):
        train(dying, SETTINGS, folder=tmp_path, progress=False)
    resumed = weighted()
    actual = train(resumed, SETTINGS, folder=tmp_path, progress=False)
    assert [{**row} for row in actual.rows] == [pytest.approx(row) for row in expected.rows]
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)


def test_the_state_holds_the_model_once() -> None:
    task = both()
    names = list(task.state_dict())
    assert not [name for name in names if name.startswith("tasks.")]
    assert len([name for name in names if name.startswith("model.")]) == 6
    other = both()
    with torch.no_grad():
        other.model.body[0].weight.zero_()
    other.load_state_dict(task.state_dict())
    torch.testing.assert_close(other.tasks["ink"].model.body[0].weight, task.model.body[0].weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})
    rates = dict.fromkeys(("body", "heads.ink"), 0.5)  # parts are named as without the other tasks
    train(both(), replace(SETTINGS, lr_multipliers=rates), progress=False)


def test_what_it_refuses() -> None:
    entry, two = Core(), Core()
    rows = slice(0, 99)
    with pytest.raises(InputError, match="expected tasks that share one model"):
        MultiTask({"digit": OfDigits(entry, "digit", rows), "ink": OfDigits(two, "ink", rows)})
    with pytest.raises(InputError, match="expected tasks that share one model"):
        MultiTask({})
    silent = OfDigits(entry, "ink", rows)
    silent.batches = lambda epoch, generator: iter(())  # type: ignore[method-assign]
    empty = MultiTask({"digit": OfDigits(entry, "digit", rows), "ink": silent})
    with pytest.raises(InputError, match="task 'ink' gave no batch in epoch 1"):
        train(empty, SETTINGS, progress=False)


def test_steps_and_judge_may_be_said() -> None:
    task = both()
    task.steps_per_epoch, task.validate_fn = 7, lambda: {"mean": 0.25, "digit": 0.5}
    history = train(task, SETTINGS, progress=False)
    assert task.num_batches(1) == 7
    assert sum(1 for _ in task.batches(1, torch.Generator().manual_seed(0))) == 7
    assert [row["mean"] for row in history.rows] == [0.25] * 3
    assert history.best_score == 0.25
    with pytest.raises(InputError, match="got -1 steps"):
        MultiTask(dict(task.tasks), steps_per_epoch=-1)
