"""A short training loop: any task, on the devices that are there, resumable to the same numbers.

A task is a module whose `forward(batch)` is the loss; the loop knows nothing else about it. Everything beside
the optimizer's steps (early stopping, moving average, gate penalty, loggers, the caller's own code) is a
callback. Every batch draws its random numbers from (seed, epoch, number of the batch) alone, so a run that
was killed and resumed, or that is shared by several processes, passes through the states of one that was not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mmattn.training.accelerator import open_accelerator
from mmattn.training.callbacks.base import Callback
from mmattn.training.callbacks.from_config import callbacks_from_config
from mmattn.training.epoch_runner import EpochRunner
from mmattn.training.loop_config import LoopConfig
from mmattn.training.optimizers import build_optimizer
from mmattn.training.parameter_groups import parameter_groups
from mmattn.training.schedule import LearningRateSchedule
from mmattn.training.state import History, TrainingState
from mmattn.training.tasks.base import Task

__all__ = ["Callback", "History", "LoopConfig", "Task", "train"]

log = logging.getLogger(__name__)


def train(
    task: Task,
    config: LoopConfig | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    stop_after_epoch: int = 0,
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    run_name: str = "training",
) -> History:
    """Train the task and leave the best weights, by validation, in it.

    In several processes (`accelerate launch`) the batches are dealt out: an optimizer step takes
    `grad_accumulation` batches of each process, which gives the numbers of one process with
    `grad_accumulation` as many times larger. The main process alone validates, reports and writes.

    Args:
        task: what to train; moved to the device that accelerate chooses.
        config: settings; left out, the defaults of `LoopConfig`.
        callbacks: called after those that the configuration asks for.
        stop_after_epoch: stop after this epoch, in the middle of the schedule; 0 goes to its end.
        seed: of every random number drawn in training.
        folder: where `last.safetensors` is written after each epoch; None keeps nothing.
        resume: go on from `last.safetensors` if there is one.
        progress: show a bar.
        run_name: name of the bar and of the run in the loggers.

    Returns:
        The history, also of the epochs before a resume.

    Raises:
        InputError: the loss became NaN or infinite (epoch and batch are named), a setting is out of range,
            or the checkpoint is of another task or of other settings; a gate penalty without a gate.
        MissingDependency: a logger is not installed.

    Example:
        >>> import torch
        >>> class Line(Task):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(1, 1)
        ...     def batches(self, epoch, generator):
        ...         yield from torch.rand(8, 5, 1, generator=generator)
        ...     def forward(self, batch):
        ...         return (self.net(batch) - 2 * batch - 1).square().mean()
        ...     def validate(self):
        ...         return {"score": -self(torch.linspace(0, 1, 9)[:, None]).item()}
        >>> history = train(Line(), LoopConfig(epochs=20, learning_rate=0.1), progress=False)
        >>> history.best_score > -0.01
        True
    """
    config = config or LoopConfig()
    accelerator = open_accelerator(config.precision, config.loggers, folder)
    hooks = [*callbacks_from_config(config, run_name), *callbacks]
    settings = config.numeric_settings() | {
        "grad_accumulation": config.grad_accumulation * accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "seed": seed,
        "stop_after_epoch": stop_after_epoch,
    }
    own_rates: dict[str, float] = {}
    for hook in hooks:
        settings |= hook.settings()
        own_rates |= hook.learning_rates(task)
    groups = parameter_groups(
        task, learning_rate=config.learning_rate, weight_decay=config.weight_decay,
        lr_multipliers=config.lr_multipliers, layer_decay=config.layer_decay, learning_rates=own_rates,
    )  # fmt: skip
    optimizer = build_optimizer(config.optimizer, groups, config.optimizer_options)
    steps = [
        math.ceil(task.num_batches(epoch + 1) / settings["grad_accumulation"])
        for epoch in range(config.epochs)
    ]
    schedule = LearningRateSchedule(
        config.schedule, optimizer, steps_per_epoch=steps, warmup_ratio=config.warmup_ratio,
        lr_decay=config.lr_decay, lr_decay_epochs=config.lr_decay_epochs,
    )  # fmt: skip
    wrapped_task, wrapped_optimizer = accelerator.prepare(task, optimizer)
    stateful = {
        f"callback {number} ({type(hook).__name__})": hook
        for number, hook in enumerate(hooks)
        if type(hook).state_dict is not Callback.state_dict
    }
    state = TrainingState(task, wrapped_optimizer, schedule, accelerator, settings, stateful)
    last = None if folder is None else Path(folder) / "last.safetensors"
    if last is not None and resume and last.exists():
        state.restore(last)
        log.info("resumed from %s after epoch %d", last, len(state.history.rows))
    for hook in hooks:
        hook.on_train_start(state)
    num_epochs = stop_after_epoch or config.epochs
    with _progress_bar(state, run_name, sum(steps[:num_epochs]), progress) as bar:
        runner = EpochRunner(wrapped_task, state, hooks, config.max_grad_norm, config.save_every, last, bar)
        while len(state.history.rows) < num_epochs and not any(hook.should_stop(state) for hook in hooks):
            row = runner.run_epoch(len(state.history.rows) + 1)
            for hook in hooks:
                hook.on_epoch_end(state, row)
    for hook in hooks:
        hook.on_train_end(state)
    accelerator.unwrap_model(wrapped_task, keep_fp32_wrapper=False)  # the task's forward is its own again
    if state.best:
        task.load_state_dict(state.best)
    task.eval()
    return state.history


def _progress_bar(state: TrainingState, run_name: str, total: int, progress: bool) -> Any:
    shown = progress and state.is_main_process
    return tqdm(
        desc=run_name, unit="step", total=total, initial=state.schedule.steps_taken,
        disable=None if shown else True,
    )  # fmt: skip
