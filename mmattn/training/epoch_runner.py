"""The epochs of a training, and the steps of an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmattn.attention.layer.head_gates import gate_penalty
from mmattn.errors import InputError
from mmattn.training.state import EpochProgress, TrainingState
from mmattn.training.tasks.base import Task

__all__ = ["EpochRunner"]


@dataclass
class EpochRunner:
    """One call of `mmattn.training.loop.train`.

    Args:
        accelerator: knows the devices and the other processes.
        task: what is trained.
        wrapped_task: the task as accelerate wrapped it.
        state: where the training stands.
        settings: what `train` was asked for, as far as it changes the numbers.
        checkpoint_path: the checkpoint; None keeps nothing.
        save_every: steps between two checkpoints within an epoch; 0 for none.
        progress_bar: shows progress.
    """

    accelerator: Any
    task: Task
    wrapped_task: nn.Module
    state: TrainingState
    settings: Mapping[str, Any]
    checkpoint_path: Path | None
    save_every: int
    progress_bar: Any

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train what is left of an epoch, validate, keep the weights if they are the best.

        Returns:
            The epoch's row of the history.
        """
        state, running = self.state, self.state.epoch_progress
        generator = torch.Generator().manual_seed(self.settings["seed"] * 1_000_003 + epoch)
        batches = iter(self.task.batches(epoch, generator))
        for _ in islice(batches, running.batches_done):
            pass  # done before a kill: drawn again and passed over
        self.wrapped_task.train()
        while window := list(islice(batches, self.settings["accumulate"])):
            running.learning_rate = state.schedule.learning_rate
            self._step(epoch, window)
            running.batches_done += len(window)
            self.progress_bar.update()
            if self.save_every and state.schedule.steps_taken % self.save_every == 0:
                self._save()
        self._gather_loss()
        row = {
            "epoch": epoch,
            "loss": running.loss_sum / max(running.loss_count, 1),
            "rate": running.learning_rate,
        }
        self.task.eval()
        with torch.no_grad(), state.ema_weights():
            row, score = self._validate(row)
            state.record_epoch(row, float(epoch) if score is None else score)
        state.schedule.step_epoch(-row["loss"] if score is None else score)
        state.epoch_progress = EpochProgress()
        self._save()
        self.progress_bar.set_postfix({key: f"{value:.4g}" for key, value in row.items() if key != "rate"})
        return row

    def _step(self, epoch: int, window: Sequence[Any]) -> None:
        """One step of the optimizer along the mean gradient of the batches, dealt out to the processes.

        All processes do as many batches as the first: DDP waits for each of them. Those that are one
        batch short repeat another one, with no weight.
        """
        accelerator, state = self.accelerator, self.state
        processes, size = accelerator.num_processes, len(window)
        rounds = math.ceil(size / processes)
        state.optimizer.zero_grad()
        for turn in range(rounds):
            place = turn * processes + accelerator.process_index
            counts = place < size
            if turn < rounds - 1:
                with accelerator.no_sync(self.wrapped_task):
                    loss = self._backward(epoch, place, window)
            else:
                loss = self._backward(epoch, place, window)
            if counts:
                state.epoch_progress.loss_sum += loss
                state.epoch_progress.loss_count += 1
        if self.settings["clip"]:
            accelerator.clip_grad_norm_(self.wrapped_task.parameters(), self.settings["clip"])
        state.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:  # fp16 leaves out a step whose gradient overflows
            state.schedule.step()
            if state.ema is not None:
                state.ema.update()

    def _backward(self, epoch: int, position: int, window: Sequence[Any]) -> float:
        """Forward and backward of one batch, with its share of the step's gradient; its loss."""
        number = self.state.epoch_progress.batches_done + position % len(window) + 1
        _seed(self.settings["seed"], epoch, number)
        loss = self.wrapped_task(window[position % len(window)])
        if self.settings["gate_penalty"]:
            loss = loss + self.settings["gate_penalty"] * gate_penalty(self.task)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"training: the loss is {value} in epoch {epoch}, batch {number} of "
                f"{self.task.num_batches(epoch)}, after {self.state.schedule.steps_taken} optimizer steps; "
                "in the first batch that means NaN in the data or in the weights, later on try a learning "
                f"rate below {self.state.schedule.learning_rate:.3g}, a longer warm-up or full precision"
            )
        # DDP takes the mean over the processes.
        weight = self.accelerator.num_processes / len(window) if position < len(window) else 0.0
        self.accelerator.backward(loss * weight)
        return value

    def _validate(self, row: dict[str, float]) -> tuple[dict[str, float], float | None]:
        """The row with the validation figures and what the task reports, and the first figure.

        The main process asks for all.
        """
        from accelerate.utils import broadcast_object_list

        figures: dict[str, float] = {}
        if self.accelerator.is_main_process:
            _seed(self.settings["seed"], int(row["epoch"]), 0)
            figures = self.task.validate()
            row = row | self.task.extra_metrics()
        row, figures = broadcast_object_list([row, figures])
        return row | figures, next(iter(figures.values()), None)

    def _save(self) -> None:
        self._gather_loss()
        if self.checkpoint_path is not None and self.accelerator.is_main_process:
            self.state.save(self.checkpoint_path, dict(self.settings))

    def _gather_loss(self) -> None:
        """Put the losses of all processes into the main one's sum."""
        if self.accelerator.num_processes == 1:
            return
        running = self.state.epoch_progress
        mine = torch.tensor([running.loss_sum, running.loss_count], device=self.accelerator.device)
        total = self.accelerator.reduce(mine, "sum").tolist()
        main = self.accelerator.is_main_process
        running.loss_sum, running.loss_count = (total[0], int(total[1])) if main else (0.0, 0)


def _seed(seed: int, epoch: int, number: int) -> None:
    """Python's, NumPy's and torch's random numbers of one batch."""
    from accelerate.utils import set_seed

    set_seed(((seed * 1_000_003 + epoch) * 1_000_003 + number) % 2**32)
