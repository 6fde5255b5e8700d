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

from mmattn.training.accelerator import finish_loggers, open_accelerator, start_loggers
from mmattn.training.ema import ExponentialMovingAverage
from mmattn.training.epoch_runner import EpochRunner
from mmattn.training.optimizers import build_optimizer
from mmattn.training.parameter_groups import parameter_groups
from mmattn.training.schedule import LearningRateSchedule
from mmattn.training.state import History, TrainingState
from mmattn.training.tasks.base import Task

__all__ = ["History", "Task", "train"]

log = logging.getLogger(__name__)


def train(
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    stop_after_epoch: int = 0,
    optimizer: str = "adamw",
    optimizer_options: Mapping[str, Any] | None = None,
    weight_decay: float = 0.01,
    lr_multipliers: Mapping[str, float] | None = None,
    layer_decay: float = 1.0,
    schedule: str = "cosine",
    warmup_ratio: float = 0.05,
    lr_decay: float = 0.1,
    lr_decay_epochs: int = 10,
    max_grad_norm: float = 1.0,
    grad_accumulation: int = 1,
    patience: int = 0,
    ema_decay: float = 0.0,
    gate_penalty: float = 0.0,
    gate_learning_rate: float = 0.1,
    precision: str = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
    save_every: int = 0,
    resume: bool = True,
    loggers: Sequence[str] = (),
    progress: bool = True,
    run_name: str = "training",
) -> History:
    """Train the task and leave the best weights, by validation, in it.

    In several processes (`accelerate launch`) the batches are dealt out: an optimizer step takes
    `grad_accumulation` batches of each process, which gives the numbers of one process with
    `grad_accumulation` as many times larger. The main process alone validates, reports and writes.

    Args:
        task: what to train; moved to the device that accelerate chooses.
        epochs: passes over `task.batches` that the schedule is made for.
        stop_after_epoch: stop after this epoch, in the middle of the schedule; 0 goes to its end.
        learning_rate: peak rate.
        optimizer: one of `mmattn.training.optimizers.OPTIMIZERS`.
        optimizer_options: its further keyword arguments.
        weight_decay: on weights, not on biases, norms and parameters of attention programs.
        lr_multipliers: part of the task -> factor on its rate (see `mmattn.training.parameter_groups`).
        layer_decay: factor on the rate from each layer of a trained encoder to the one below it.
        schedule: what the rate does after the warm-up (see `mmattn.training.schedule`).
        warmup_ratio: share of all steps in which the rate rises from 0.
        lr_decay: factor on the rate in the schedules "step", "exponential" and "plateau".
        lr_decay_epochs: epochs in which it falls by that; for "plateau", epochs without a better score.
        max_grad_norm: largest norm of the gradient; 0 leaves it as it is.
        grad_accumulation: batches an optimizer step takes in each process; their mean loss is followed.
        patience: stop after so many epochs without a better validation figure; 0 never stops.
        ema_decay: decay of a moving average of the weights, which is then what is validated and kept;
            0 takes the weights as they are.
        gate_penalty: what an open head costs: this times the expected number of open heads is added to
            the loss, in programs with a `head_gate` (see `mmattn.attention.gate_penalty`).
        gate_learning_rate: peak rate of the gates where that costs something: to close they go five units,
            which the
            rate of weights does not bring them in thousands of steps; 0 lets them learn as the rest does.
        precision: "auto" is bf16 on a GPU that has it and full precision elsewhere; or "no", "bf16", "fp16".
        seed: of every random number drawn in training.
        folder: where `last.safetensors` is written after each epoch; None keeps nothing.
        save_every: write it after so many optimizer steps within an epoch, too; 0 does not.
        resume: go on from `last.safetensors` where there is one.
        loggers: accelerate's trackers ("tensorboard", "wandb", "mlflow") that get a row an epoch.
        progress: show a bar.
        run_name: what the bar, and the run of a tracker, is called.

    Returns:
        The history, also of the epochs before a resume.

    Raises:
        InputError: the loss became NaN or infinite (epoch and batch are named), a setting is not what
            it may be, or the checkpoint is of another task or of other settings; a gate penalty
            without a gate.
        MissingDependency: a tracker is not installed.
    """
    accelerator = open_accelerator(precision, loggers, folder)
    # Every setting that changes the numbers: a checkpoint goes on under the same ones only.
    settings = {
        "epochs": epochs, "until": stop_after_epoch, "learning_rate": learning_rate, "optimizer": optimizer,
        "optimizer_options": dict(optimizer_options or {}), "weight_decay": weight_decay,
        "rates": dict(lr_multipliers or {}), "layer_decay": layer_decay, "schedule": schedule,
        "warmup": warmup_ratio,
        "decay": lr_decay, "decay_epochs": lr_decay_epochs, "clip": max_grad_norm,
        "accumulate": grad_accumulation * accelerator.num_processes, "average": ema_decay,
        "gate_penalty": gate_penalty, "gate_rate": gate_learning_rate,
        "precision": accelerator.mixed_precision,
        "seed": seed,
    }  # fmt: skip
    groups = parameter_groups(
        task, learning_rate=learning_rate, weight_decay=weight_decay, lr_multipliers=lr_multipliers,
        layer_decay=layer_decay,
        gate_learning_rate=gate_learning_rate if gate_penalty else 0.0,
    )  # fmt: skip
    plain = build_optimizer(optimizer, groups, optimizer_options)
    steps = [math.ceil(task.num_batches(epoch + 1) / settings["accumulate"]) for epoch in range(epochs)]
    scheduled = LearningRateSchedule(
        schedule,
        plain,
        steps_per_epoch=steps,
        warmup_ratio=warmup_ratio,
        lr_decay=lr_decay,
        lr_decay_epochs=lr_decay_epochs,
    )
    ready, prepared = accelerator.prepare(task, plain)
    state = TrainingState(
        task,
        prepared,
        scheduled,
        ExponentialMovingAverage(task, ema_decay) if ema_decay else None,
        accelerator.scaler,
    )
    last = None if folder is None else Path(folder) / "last.safetensors"
    if last is not None and resume and last.exists():
        state.restore(last, settings)
        log.info("resumed from %s after epoch %d", last, len(state.history.rows))
    start_loggers(accelerator, run_name, settings)
    shown = progress and accelerator.is_main_process
    with tqdm(
        desc=run_name, unit="step", total=sum(steps[: stop_after_epoch or epochs]),
        initial=scheduled.steps_taken,
        disable=None if shown else True,
    ) as bar:  # fmt: skip
        run = EpochRunner(accelerator, task, ready, state, settings, last, save_every, bar)
        while len(state.history.rows) < (stop_after_epoch or epochs) and not state.history.should_stop(
            patience
        ):
            row = run.run_epoch(len(state.history.rows) + 1)
            accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=row["epoch"])
    finish_loggers(accelerator)
    accelerator.unwrap_model(ready, keep_fp32_wrapper=False)  # the task's forward is its own again
    if state.best:
        task.load_state_dict(state.best)
    task.eval()
    return state.history
