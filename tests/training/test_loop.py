"""The loop: it learns, keeps the best by validation, and resumes to the same numbers after a kill."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lines import train
from torch import Tensor, nn

from mmattn import InputError, Tokens
from mmattn import attention as A
from mmattn.training import checkpoint
from mmattn.training.tasks.base import Task


class Line(Task):
    """Learn y = 2 x1 - 3 x2 from 31 points, with dropout so that random numbers matter."""

    def __init__(self, scores: list[float] | None = None, stop_after: int = 0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 7), nn.Dropout(0.2), nn.Linear(7, 1))
        self.x = torch.randn(31, 2)
        self.y = self.x @ torch.tensor([[2.0], [-3.0]])
        self.scores = scores
        self.stop_after = stop_after
        self.validated = 0

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        if self.stop_after and epoch > self.stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from torch.randperm(31, generator=generator).split(11)

    def forward(self, batch: Tensor) -> Tensor:
        return (self.net(self.x[batch]) - self.y[batch]).square().mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.validated += 1
        if self.scores is not None:
            return {"score": self.scores[self.validated - 1]}
        return {"score": -float((self.net(self.x) - self.y).square().mean())}


SETTINGS: dict[str, Any] = {"epochs": 9, "learning_rate": 0.05, "progress": False}


def test_it_learns_and_reports_every_epoch() -> None:
    task = Line()
    history = train(task, **{**SETTINGS, "epochs": 60})
    assert [row["epoch"] for row in history.rows] == list(range(1, 61))
    assert history.best_score > -1.0 > history.rows[0]["score"]
    assert task.validate()["score"] == pytest.approx(history.best_score)  # the best weights are back


def test_the_rate_of_each_epoch_is_its_last_step_s() -> None:
    rates = [row["rate"] for row in train(Line(), **SETTINGS, warmup_ratio=1 / 9).rows]
    assert rates[0] == pytest.approx(0.05)  # the warm-up ends with the first of nine epochs of three steps
    # Step 15 of 27: the twelfth after the warm-up's three, 11/24 of the way down the cosine.
    assert rates[4] == pytest.approx(0.05 * (1 + math.cos(math.pi * 11 / 24)) / 2)
    assert rates[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * 23 / 24)) / 2)


def test_the_epoch_kept_is_the_best_on_validation() -> None:
    history = train(Line([0.1, 0.5, 0.3, 0.2, 0.4, 0.45, 0.1, 0.1, 0.1]), **SETTINGS)
    assert (history.best_epoch, history.best_score) == (2, 0.5)


def test_patience_ends_the_training() -> None:
    history = train(Line([0.1, 0.5, 0.3, 0.2, 0.4, 0.45, 0.1, 0.1, 0.1]), **SETTINGS, patience=3)
    assert len(history.rows) == 5


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    whole = Line()
    expected = train(whole, **SETTINGS, folder=tmp_path / "whole")
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_loop import *\n"
        f"train(Line(stop_after=4), **SETTINGS, folder={str(tmp_path / 'killed')!r})"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed_task = Line()
    resumed = train(resumed_task, **SETTINGS, folder=tmp_path / "killed")
    assert resumed.rows == expected.rows
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed_task.state_dict()[name], value, rtol=0, atol=0)


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    train(Line(), **SETTINGS, folder=tmp_path)
    with pytest.raises(InputError, match=r"last.safetensors: made with other settings \(learning_rate\)"):
        train(Line(), **{**SETTINGS, "learning_rate": 0.1}, folder=tmp_path)


def test_another_model_does_not_resume(tmp_path: Path) -> None:
    train(Line(), **SETTINGS, folder=tmp_path)
    other = Line()
    other.net = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 1))
    with pytest.raises(InputError, match="a checkpoint of another model"):
        train(other, **SETTINGS, folder=tmp_path)


def test_a_loss_that_is_not_finite_is_named() -> None:
    task = Line()
    task.y[3] = float("nan")
    with pytest.raises(InputError) as raised:
        train(task, **SETTINGS)
    assert str(raised.value) == (
        "training: the loss is nan in epoch 1, batch 2 of 3, after 1 optimizer steps; in the first batch "
        "that means NaN in the data or in the weights, later on try a learning rate below 0.05, a longer "
        "warm-up or full precision"
    )


def test_only_matrices_decay() -> None:
    task = Line()
    with torch.no_grad():
        task.net[0].bias.fill_(100.0)
    before = task.net[0].bias.clone()
    task.x.zero_()
    task.y.zero_()
    for parameter in task.net[2].parameters():
        parameter.data.zero_()
    train(task, **{**SETTINGS, "weight_decay": 0.9})
    torch.testing.assert_close(task.net[0].bias, before)  # no gradient and no decay: unchanged


def test_a_torn_checkpoint_is_never_read_as_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"weights": {"a": torch.ones(101)}, "epoch": 3})
    whole = path.read_bytes()
    for size in (0, 7, 50, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="not a whole mmattn checkpoint"):
            checkpoint.load(path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, {"epoch": 3})

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", no_space)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(path, {"epoch": 4})
    assert checkpoint.load(path) == {"epoch": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


class Copy(Task):
    """Repeat the first of three words: one head of four is plenty."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = A.Attention(A.Program(score=A.dot() >> A.head_gate("gate")), dim=8, heads=4)
        self.x = torch.randn(29, 3, 8)

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        yield from torch.randperm(29, generator=generator).split(11)

    def forward(self, batch: Tensor) -> Tensor:
        out = self.layer(Tokens.from_sequences(list(self.x[batch]), "text"))
        return (out.values.view(-1, 3, 8) - self.x[batch][:, :1]).square().mean()

    def validate(self) -> dict[str, float]:
        return {}


def test_the_gate_penalty_closes_heads_and_pruning_changes_nothing() -> None:
    kept, settings = {}, {**SETTINGS, "epochs": 40, "learning_rate": 0.2}
    for cost in (0.0, 3.0):
        task = Copy()
        train(task, **settings, gate_penalty=cost)
        before = task(torch.arange(29)).item()
        A.prune(task)
        assert task(torch.arange(29)).item() == pytest.approx(before, rel=1e-5)
        kept[cost] = task.layer.heads
    assert kept == {0.0: 4, 3.0: 1}
    with pytest.raises(InputError, match="no layer has a gate to close"):
        train(Line(), **SETTINGS, gate_penalty=0.1)


def test_gates_close_at_the_rates_that_weights_learn_with() -> None:
    left = {}
    for rate in (0.1, 0.0):
        task = Copy()
        train(
            task,
            **{**SETTINGS, "epochs": 40, "learning_rate": 2e-3},
            gate_penalty=3.0,
            gate_learning_rate=rate,
        )
        A.prune(task)
        left[rate] = task.layer.heads
    assert left == {0.1: 1, 0.0: 4}
