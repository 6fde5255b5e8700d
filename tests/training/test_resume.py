"""A killed training goes on to the very numbers of one that was not, whatever it was doing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lines import Line, train

SETTINGS: dict[str, Any] = {"epochs": 6, "learning_rate": 0.05, "progress": False, "lr_decay": 0.5}
WAYS: dict[str, dict[str, Any]] = {
    "cosine": {"schedule": "cosine", "warmup_ratio": 0.3},
    "constant": {"schedule": "constant"},
    "step": {"schedule": "step", "lr_decay_epochs": 2},
    "exponential": {"schedule": "exponential", "lr_decay_epochs": 1},
    "plateau": {"schedule": "plateau", "lr_decay_epochs": 1},
    "grad_accumulation": {"grad_accumulation": 3},  # seven batches an epoch: the last step has one only
    "ema_decay": {"ema_decay": 0.9},
    "sgd": {"optimizer": "sgd", "optimizer_options": {"momentum": 0.9}, "learning_rate": 0.01},
    "adagrad": {"optimizer": "adagrad"},
    "lion": {"optimizer": "lion", "learning_rate": 0.005},  # timm's
    "bf16": {"precision": "bf16"},
}


class Stop(Exception):
    """Stands for a kill."""


def interrupted(task: Line, after: int) -> Line:
    """The task, which ends the training at its forward number `after`."""

    def stop(*_: Any) -> None:
        if task.forwards + 1 == after:
            raise Stop

    task.net.register_forward_pre_hook(stop)
    return task


def same(one: Line, other: Line) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("after", [18, 22])  # in the middle of epoch 3, and at the first batch of epoch 4
def test_every_way_of_training_resumes_to_the_same_numbers(way: str, after: int, tmp_path: Path) -> None:
    settings = {**SETTINGS, **WAYS[way]}
    whole = Line()
    expected = train(whole, **settings)
    broken = interrupted(Line(), after)
    with pytest.raises(Stop):
        train(broken, **settings, folder=tmp_path, save_every=1)
    resumed = Line()
    history = train(resumed, **settings, folder=tmp_path, save_every=1)
    assert history == expected
    # Only what was not done was done again: with every step saved, at most one step's batches.
    assert resumed.forwards <= 6 * 7 - (after - 1) + settings.get("grad_accumulation", 1)
    same(whole, resumed)


def test_a_kill_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    settings = {**SETTINGS, "ema_decay": 0.9, "grad_accumulation": 2, "warmup_ratio": 0.3}
    whole = Line()
    expected = train(whole, **settings)
    script = (
        f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from lines import Line, train\n"
        f"settings = json.loads({json.dumps(settings)!r})\n"
        f"train(Line(kill=26), **settings, folder={str(tmp_path)!r}, save_every=2)"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    resumed = Line()
    assert train(resumed, **settings, folder=tmp_path) == expected
    same(whole, resumed)


def test_patience_is_kept_over_a_resume(tmp_path: Path) -> None:
    settings = {**SETTINGS, "epochs": 60, "patience": 2, "learning_rate": 0.5}
    expected = train(Line(), **settings)
    assert len(expected.rows) < 60
    with pytest.raises(Stop):
        train(interrupted(Line(), 10), **settings, folder=tmp_path)
    assert train(Line(), **settings, folder=tmp_path) == expected
    assert train(Line(), **settings, folder=tmp_path) == expected  # a finished one stays as it is
