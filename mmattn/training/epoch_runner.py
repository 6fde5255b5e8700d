"""The epochs of a training, and the steps of an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmattn.errors import InputError
from mmattn.training.state import EpochProgress, TrainingState

if TYPE_CHECKING:
    from mmattn.training.callbacks.base import Callback

__all__ = ["EpochRunner"]


@dataclass
class EpochRunner:
    """Runs the epochs of one call of `mmattn.training.loop.train`.

    Args:
        wrapped_task: the task as accelerate wrapped it.
        state: task, optimizer, schedule and history.
        callbacks: hooks.
        max_grad_norm: largest norm of the gradient; 0 does not clip.
        save_every: steps between two checkpoints within an epoch; 0 for none.
        checkpoint_path: the checkpoint; None keeps nothing.
        progress_bar: shows progress.
    """

    wrapped_task: nn.Module
    state: TrainingState
    callbacks: Sequence[Callback]
    max_grad_norm: float
    save_every: int
    checkpoint_path: Path | None
    progress_bar: Any

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train what is left of an epoch, validate, keep the weights if they are the best.

        Args:
            epoch: its number, from 1.

        Returns:
            The epoch's row of the history.

        Raises:
            InputError: the loss became NaN or infinite.
        """
        state, running = self.state, self.state.epoch_progress
        generator = torch.Generator().manual_seed(state.settings["seed"] * 1_000_003 + epoch)
        batches = iter(state.task.batches(epoch, generator))
        for _ in islice(batches, running.batches_done):
            pass  # done before a kill: drawn again and passed over
        self.wrapped_task.train()
        while window := list(islice(batches, state.settings["grad_accumulation"])):
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
        state.task.eval()
        with torch.no_grad(), ExitStack() as weights:
            for callback in self.callbacks:
                weights.enter_context(callback.evaluation_weights(state))
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
        state, accelerator = self.state, self.state.accelerator
        processes, size = accelerator.num_processes, len(window)
        rounds = math.ceil(size / processes)
        state.optimizer.zero_grad()
        for turn in range(rounds):
            position = turn * processes + accelerator.process_index
            counts = position < size
            if turn < rounds - 1:
                with accelerator.no_sync(self.wrapped_task):
                    loss = self._backward(epoch, position, window)
            else:
                loss = self._backward(epoch, position, window)
            if counts:
                state.epoch_progress.loss_sum += loss
                state.epoch_progress.loss_count += 1
        if self.max_grad_norm:
            accelerator.clip_grad_norm_(self.wrapped_task.parameters(), self.max_grad_norm)
        state.optimizer.step()
        if not accelerator.optimizer_step_was_skipped:  # fp16 leaves out a step whose gradient overflows
            state.schedule.step()
            for callback in self.callbacks:
                callback.on_step_end(state)

    def _backward(self, epoch: int, position: int, window: Sequence[Any]) -> float:
        """Forward and backward of one batch, with its share of the step's gradient; its loss."""
        state, accelerator = self.state, self.state.accelerator
        number = state.epoch_progress.batches_done + position % len(window) + 1
        _seed(state.settings["seed"], epoch, number)
        loss = self.wrapped_task(window[position % len(window)])
        for callback in self.callbacks:
            loss = callback.on_loss(state, loss)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"training: the loss is {value} in epoch {epoch}, batch {number} of "
                f"{state.task.num_batches(epoch)}, after {state.schedule.steps_taken} optimizer steps; "
                "in the first batch that means NaN in the data or in the weights, later on try a learning "
                f"rate below {state.schedule.learning_rate:.3g}, a longer warm-up or full precision"
            )
        # DDP takes the mean over the processes.
        weight = accelerator.num_processes / len(window) if position < len(window) else 0.0
        accelerator.backward(loss * weight)
        return value

    def _validate(self, row: dict[str, float]) -> tuple[dict[str, float], float | None]:
        """Return the row with the validation metrics and the task's extra metrics, and the score.

        The main process validates for all.
        """
        from accelerate.utils import broadcast_object_list

        metrics: dict[str, float] = {}
        if self.state.is_main_process:
            _seed(self.state.settings["seed"], int(row["epoch"]), 0)
            metrics = self.state.task.validate()
            row = row | self.state.task.extra_metrics()
        row, metrics = broadcast_object_list([row, metrics])
        return row | metrics, next(iter(metrics.values()), None)

    def _save(self) -> None:
        self._gather_loss()
        if self.checkpoint_path is not None and self.state.is_main_process:
            self.state.save(self.checkpoint_path)

    def _gather_loss(self) -> None:
        """Put the losses of all processes into the main one's sum."""
        accelerator, running = self.state.accelerator, self.state.epoch_progress
        if accelerator.num_processes == 1:
            return
        mine = torch.tensor([running.loss_sum, running.loss_count], device=accelerator.device)
        total = accelerator.reduce(mine, "sum").tolist()
        main = accelerator.is_main_process
        running.loss_sum, running.loss_count = (total[0], int(total[1])) if main else (0.0, 0)


def _seed(seed: int, epoch: int, number: int) -> None:
    """Python's, NumPy's and torch's random numbers of one batch."""
    from accelerate.utils import set_seed

    set_seed(((seed * 1_000_003 + epoch) * 1_000_003 + number) % 2**32)
