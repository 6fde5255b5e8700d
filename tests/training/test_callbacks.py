"""Callbacks: a user's own code at every hook, and its state across a resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from lines import Line, train
from torch import Tensor

from mmattn import InputError
from mmattn.training.callbacks.base import Callback
from mmattn.training.state import TrainingState


class Recorder(Callback):
    """Write down what is called."""

    def __init__(self, stop_after: int = 0) -> None:
        self.calls: list[str] = []
        self.stop_after = stop_after

    def on_train_start(self, state: TrainingState) -> None:
        self.calls.append("start")

    def on_loss(self, state: TrainingState, loss: Tensor) -> Tensor:
        self.calls.append("loss")
        return loss

    def on_step_end(self, state: TrainingState) -> None:
        self.calls.append("step")

    @contextmanager
    def evaluation_weights(self, state: TrainingState) -> Iterator[None]:
        self.calls.append("(")
        yield
        self.calls.append(")")

    def on_epoch_end(self, state: TrainingState, row: Mapping[str, float]) -> None:
        assert row == state.history.rows[-1]
        self.calls.append(f"epoch {row['epoch']}")

    def should_stop(self, state: TrainingState) -> bool:
        return 0 < self.stop_after <= len(state.history.rows)

    def on_train_end(self, state: TrainingState) -> None:
        self.calls.append("end")


def test_the_order_of_the_hooks() -> None:
    recorder = Recorder(stop_after=2)
    # 31 points in batches of 17: two an epoch.
    history = train(Line(size=17), epochs=5, learning_rate=0.01, progress=False, callbacks=[recorder])
    epoch = ["loss", "step", "loss", "step", "(", ")"]
    assert recorder.calls == ["start", *epoch, "epoch 1", *epoch, "epoch 2", "end"]
    assert len(history.rows) == 2


def test_a_loss_can_be_changed() -> None:
    """Ten times the loss is ten times the gradient: plain SGD goes ten times as far."""

    class Scale(Callback):
        def on_loss(self, state: TrainingState, loss: Tensor) -> Tensor:
            return 10 * loss

        def settings(self) -> Mapping[str, Any]:
            return {"scale": 10}

    settings: dict[str, Any] = {
        "epochs": 1, "optimizer": "sgd", "learning_rate": 1e-4, "weight_decay": 0.0, "max_grad_norm": 0.0,
        "warmup_ratio": 0.0, "schedule": "constant", "progress": False,
    }  # fmt: skip
    start, moved = Line(size=31).net[2].weight.detach().clone(), {}
    for name, callbacks in {"plain": [], "scaled": [Scale()]}.items():
        task = Line(size=31)
        train(task, **settings, callbacks=callbacks)
        moved[name] = task.net[2].weight.detach() - start
    torch.testing.assert_close(moved["scaled"], 10 * moved["plain"], rtol=1e-3, atol=1e-7)


class Counter(Callback):
    """Count steps, also across a resume."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, state: TrainingState) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def test_the_state_of_a_callback_is_resumed(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 4, "learning_rate": 0.01, "progress": False, "folder": tmp_path}
    first = Counter()
    train(Line(size=11), **settings, callbacks=[first, Recorder(stop_after=2)])
    assert first.steps == 2 * 3
    second = Counter()
    train(Line(size=11), **settings, callbacks=[second])
    assert second.steps == 4 * 3


def test_settings_of_a_callback_are_settings_of_the_checkpoint(tmp_path: Path) -> None:
    class Sharp(Callback):
        def settings(self) -> Mapping[str, Any]:
            return {"sharpness": 2}

    settings: dict[str, Any] = {"epochs": 2, "learning_rate": 0.01, "progress": False, "folder": tmp_path}
    train(Line(), **settings, callbacks=[Sharp()])
    with pytest.raises(InputError, match=r"made with other settings \(sharpness\)"):
        train(Line(), **settings)


def test_own_learning_rates() -> None:
    class Frozen(Callback):
        def learning_rates(self, task: Any) -> Mapping[str, float]:
            return {"net.0.weight": 0.0}

    task, before = Line(), Line().net[0].weight.detach().clone()
    train(task, epochs=1, learning_rate=0.1, progress=False, callbacks=[Frozen()])
    torch.testing.assert_close(task.net[0].weight.detach(), before)
    assert not torch.equal(task.net[2].weight, Line().net[2].weight)
