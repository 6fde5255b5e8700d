"""A short training loop: any task, on the devices that are there, resumable to the same numbers.

A task is a module whose `forward(batch)` is the loss; the loop knows nothing else about it. Every
batch draws its random numbers from (seed, epoch, number of the batch) alone, so a run that was killed
and resumed, or that is shared by several processes, passes through the states of one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmattn.training.accelerator import close_trackers, open_accelerator, open_trackers
from mmattn.training.ema import Average
from mmattn.training.epoch_runner import Run
from mmattn.training.optimizers import build_optimizer
from mmattn.training.parameter_groups import parameter_groups
from mmattn.training.schedule import Schedule
from mmattn.training.state import History, State
from mmattn.training.tasks.base import Task

__all__ = ["History", "Task", "train"]

log = logging.getLogger(__name__)


def train(
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    until: int = 0,
    optimizer: str = "adamw",
    optimizer_options: Mapping[str, Any] | None = None,
    weight_decay: float = 0.01,
    rates: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
    schedule: str = "cosine",
    warmup: float = 0.05,
    decay: float = 0.1,
    decay_epochs: int = 10,
    clip: float = 1.0,
    accumulate: int = 1,
    patience: int = 0,
    average: float = 0.0,
    gate_penalty: float = 0.0,
    gate_rate: float = 0.1,
    precision: str = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
    save_every: int = 0,
    resume: bool = True,
    track: Sequence[str] = (),
    progress: bool = True,
    label: str = "training",
) -> History:
    """Train the task and leave the best weights, by validation, in it.

    In several processes (`accelerate launch`) the batches are dealt out: an optimizer step takes
    `accumulate` batches of each process, which gives the numbers of one process with `accumulate` as
    many times larger. The main process alone validates, reports and writes.

    Args:
        task: what to train; moved to the device that accelerate chooses.
        epochs: passes over `task.batches` that the schedule is made for.
        until: stop after this epoch, in the middle of the schedule; 0 goes to its end.
        learning_rate: peak rate.
        optimizer: one of `mmattn.training.optimizers.OPTIMIZERS`.
        optimizer_options: its further keyword arguments.
        weight_decay: on weights, not on biases, norms and parameters of attention programs.
        rates: part of the task -> factor on its rate (see `mmattn.training.parameter_groups`).
        layer_decay: factor on the rate from each layer of a trained encoder to the one below it.
        schedule: what the rate does after the warm-up (see `mmattn.training.schedule`).
        warmup: share of all steps in which the rate rises from 0.
        decay: factor on the rate in the schedules "step", "exponential" and "plateau".
        decay_epochs: epochs in which it falls by that; for "plateau", epochs without a better score.
        clip: largest norm of the gradient; 0 leaves it as it is.
        accumulate: batches an optimizer step takes in each process; their mean loss is followed.
        patience: stop after so many epochs without a better validation figure; 0 never stops.
        average: decay of a moving average of the weights, which is then what is validated and kept;
            0 takes the weights as they are.
        gate_penalty: what an open head costs: this times the expected number of open heads is added to
            the loss, in programs with a `head_gate` (see `mmattn.attention.gate_penalty`).
        gate_rate: peak rate of the gates where that costs something: to close they go five units, which the
            rate of weights does not bring them in thousands of steps; 0 lets them learn as the rest does.
        precision: "auto" is bf16 on a GPU that has it and full precision elsewhere; or "no", "bf16", "fp16".
        seed: of every random number drawn in training.
        folder: where `last.safetensors` is written after each epoch; None keeps nothing.
        save_every: write it after so many optimizer steps within an epoch, too; 0 does not.
        resume: go on from `last.safetensors` where there is one.
        track: accelerate's trackers ("tensorboard", "wandb", "mlflow") that get a row an epoch.
        progress: show a bar.
        label: what the bar, and the run of a tracker, is called.

    Returns:
        The history, also of the epochs before a resume.

    Raises:
        InputError: the loss became NaN or infinite (epoch and batch are named), a setting is not what
            it may be, or the checkpoint is of another task or of other settings; a gate penalty
            without a gate.
        MissingDependency: a tracker is not installed.
    """
    accelerator = open_accelerator(precision, track, folder)
    # Every setting that changes the numbers: a checkpoint goes on under the same ones only.
    settings = {
        "epochs": epochs, "until": until, "learning_rate": learning_rate, "optimizer": optimizer,
        "optimizer_options": dict(optimizer_options or {}), "weight_decay": weight_decay,
        "rates": dict(rates or {}), "layer_decay": layer_decay, "schedule": schedule, "warmup": warmup,
        "decay": decay, "decay_epochs": decay_epochs, "clip": clip,
        "accumulate": accumulate * accelerator.num_processes, "average": average,
        "gate_penalty": gate_penalty, "gate_rate": gate_rate, "precision": accelerator.mixed_precision,
        "seed": seed,
    }  # fmt: skip
    groups = parameter_groups(
        task, learning_rate=learning_rate, weight_decay=weight_decay, rates=rates, layer_decay=layer_decay,
        gate_rate=gate_rate if gate_penalty else 0.0,
    )  # fmt: skip
    plain = build_optimizer(optimizer, groups, optimizer_options)
    steps = [math.ceil(task.batch_count(epoch + 1) / settings["accumulate"]) for epoch in range(epochs)]
    scheduled = Schedule(schedule, plain, steps=steps, warmup=warmup, decay=decay, decay_epochs=decay_epochs)
    ready, prepared = accelerator.prepare(task, plain)
    state = State(task, prepared, scheduled, Average(task, average) if average else None, accelerator.scaler)
    last = None if folder is None else Path(folder) / "last.safetensors"
    if last is not None and resume and last.exists():
        state.restore(last, settings)
        log.info("resumed from %s after epoch %d", last, len(state.history.rows))
    open_trackers(accelerator, label, settings)
    shown = progress and accelerator.is_main_process
    with tqdm(
        desc=label, unit="step", total=sum(steps[: until or epochs]), initial=scheduled.taken,
        disable=None if shown else True,
    ) as bar:  # fmt: skip
        run = Run(accelerator, task, ready, state, settings, last, save_every, bar)
        while len(state.history.rows) < (until or epochs) and not state.history.exhausted(patience):
            row = run.epoch(len(state.history.rows) + 1)
            accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=row["epoch"])
    close_trackers(accelerator)
    accelerator.unwrap_model(ready, keep_fp32_wrapper=False)  # the task's forward is its own again
    if state.best:
        task.load_state_dict(state.best)
    task.eval()
    return state.history
