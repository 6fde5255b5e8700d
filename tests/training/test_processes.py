"""Accumulation, precision, trackers, and several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lines import Line, train
from torch import nn

from mmattn import InputError
from mmattn.errors import MissingDependency
from mmattn.training import accelerator

SETTINGS: dict[str, Any] = {"epochs": 3, "learning_rate": 0.05, "progress": False}


def test_accumulated_batches_are_one_large_batch() -> None:
    class Even(Line):
        def __init__(self, size: int):
            super().__init__(size, dropout=0.0)
            self.x, self.y = self.x[:30], self.y[:30]

        def batches(self, epoch: int, generator: torch.Generator) -> Any:
            yield from torch.randperm(30, generator=generator).split(self.size)

    small, large = Even(5), Even(15)
    entry = train(small, **SETTINGS, grad_accumulation=3)
    other = train(large, **SETTINGS)
    assert [row["loss"] for row in entry.rows] == pytest.approx([row["loss"] for row in other.rows], rel=1e-5)
    for name, value in large.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value)


@pytest.mark.parametrize("norm", [0.0, 0.125])
def test_the_gradient_s_norm_is_clipped(norm: float) -> None:
    task = Line(31, dropout=0.0)
    before = [parameter.detach().clone() for parameter in task.parameters()]
    task(torch.arange(31)).backward()
    free = torch.cat([p.grad.flatten() for p in task.parameters() if p.grad is not None]).norm()
    assert free > 1
    once = {**SETTINGS, "epochs": 1, "learning_rate": 1e-3, "warmup_ratio": 0.0}
    train(task, **once, optimizer="sgd", weight_decay=0.0, max_grad_norm=norm)
    moved = torch.cat([(p - q).flatten() for p, q in zip(task.parameters(), before, strict=True)]).norm()
    assert moved.item() == pytest.approx(1e-3 * (norm or free.item()), rel=1e-3)


def test_bf16_runs_on_the_cpu_and_the_task_gets_its_forward_back() -> None:
    class Look(Line):
        seen: torch.dtype | None = None

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            self.seen = self.net(self.x[batch]).dtype
            return super().forward(batch)

    task = Look()
    train(task, **SETTINGS, precision="bf16")
    assert task.seen == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in task.parameters())
    task(torch.arange(31))
    assert task.seen == torch.float32
    train(task, **SETTINGS, precision="no")  # another precision in the same process
    assert task.seen == torch.float32


def test_fp16_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="got fp16 on the CPU, expected bf16, no or auto there"):
        train(Line(), **SETTINGS, precision="fp16")
    with pytest.raises(InputError, match=r"no precision 'bf-16'. Did you mean 'bf16'\?"):
        train(Line(), **SETTINGS, precision="bf-16")


def test_tensorboard_gets_a_row_an_epoch(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = train(
        Line(), **SETTINGS, folder=tmp_path, loggers=["tensorboard"], optimizer_options={"eps": 1e-7}
    )
    reader = events.EventAccumulator(str(tmp_path / "mmattn")).Reload()
    for key in ("loss", "rate", "score"):
        logged = [(event.step, event.value) for event in reader.Scalars(key)]
        assert logged == [(row["epoch"], pytest.approx(row[key])) for row in history.rows]


def test_what_trackers_refuse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tracker 'tensorbord'. Did you mean 'tensorboard'\?"):
        train(Line(), **SETTINGS, folder=tmp_path, loggers=["tensorbord"])
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        MissingDependency, match=r"'tensorboard' is not installed: pip install 'mmattn\[track\]'"
    ):
        train(Line(), **SETTINGS, folder=tmp_path, loggers=["tensorboard"])
    with pytest.raises(MissingDependency, match="'wandb' is not installed: pip install wandb"):
        train(Line(), **SETTINGS, folder=tmp_path, loggers=["wandb"])
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    with pytest.raises(InputError, match="'tensorboard' writes files: expected a folder"):
        train(Line(), **SETTINGS, loggers=["tensorboard"])


SCRIPT = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from accelerate import PartialState
from lines import Line, train
from mmattn.training import state
from mmattn.files import write_json
import torch

out, rank = Path(sys.argv[1]), int(os.environ["RANK"])
saves, original = [], state.TrainingState.save
state.TrainingState.save = lambda self, *given: (saves.append(1), original(self, *given))
task = Line()
validated, ask = [], task.validate
task.validate = lambda: (validated.append(1), ask())[1]
history = train(task, **json.loads(sys.argv[3]), folder=out / "run")
again = train(Line(), **json.loads(sys.argv[3]), folder=out / "run")  # reads, and does nothing more
write_json(out / f"rank-{rank}.json", {
    "rows": history.rows, "again": again.rows, "saves": len(saves), "validated": len(validated),
    "weights": torch.cat([value.flatten() for value in task.state_dict().values()]).tolist(),
    "processes": PartialState().num_processes, "forwards": task.forwards,
})
PartialState().destroy_process_group()
"""


def test_two_processes_give_the_numbers_of_one(tmp_path: Path) -> None:
    """Seven batches an epoch: two steps of two each for each process, and a last one of three batches."""
    settings = {**SETTINGS, "ema_decay": 0.9, "patience": 5, "grad_accumulation": 2, "save_every": 1}
    whole = Line()
    expected = train(whole, **{**settings, "grad_accumulation": 4})
    script = tmp_path / "two.py"
    script.write_text(SCRIPT, encoding="utf-8")
    # What `accelerate launch` starts for several GPUs; on CPUs it would want MPI, where this takes gloo.
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script),
        str(tmp_path), str(Path(__file__).parent), json.dumps(settings),
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    weights = torch.cat([value.flatten() for value in whole.state_dict().values()])
    for actual in ranks:
        assert actual["processes"] == 2
        assert actual["rows"] == actual["again"] == ranks[0]["rows"]
        for row, wanted in zip(actual["rows"], expected.rows, strict=True):
            assert row == pytest.approx(wanted, rel=1e-5)
        torch.testing.assert_close(torch.tensor(actual["weights"]), weights, rtol=1e-4, atol=1e-5)
        assert actual["forwards"] == 3 * 4  # four rounds an epoch
    # Two steps an epoch, each saved, and the epoch's end; only the main process writes and validates.
    assert [rank["saves"] for rank in ranks] == [3 * 3, 0]
    assert [rank["validated"] for rank in ranks] == [3, 0]


def test_a_parameter_that_a_batch_does_not_use_keeps_its_value() -> None:
    task = Line()
    task.unused = nn.Parameter(torch.ones(3, 5))
    train(task, **SETTINGS)
    torch.testing.assert_close(task.unused.detach(), torch.ones(3, 5))
