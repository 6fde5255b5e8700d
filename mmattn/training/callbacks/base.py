"""Hooks of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from mmattn.training.state import TrainingState
    from mmattn.training.tasks.base import Task

__all__ = ["Callback"]


class Callback:
    """What happens beside the optimizer's steps; a subclass overrides the hooks that it needs.

    `mmattn.training.loop.train` calls the hooks of its own callbacks (early stopping, head gates, moving
    average, loggers: whatever `LoopConfig` asks for) and then those of the caller's, in order. With several
    processes every process calls them; `state.is_main_process` tells the main one apart.

    Example:
        >>> from mmattn.training.loop import Task
        >>> from mmattn.training.loop import LoopConfig, Task, train
        >>> class PrintLoss(Callback):
        ...     def on_epoch_end(self, state, row):
        ...         print(f"epoch {row['epoch']}: loss finite: {row['loss'] < float('inf')}")
        >>> import torch
        >>> class Line(Task):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = torch.nn.Linear(1, 1)
        ...     def batches(self, epoch, generator):
        ...         yield torch.rand(5, 1, generator=generator)
        ...     def forward(self, batch):
        ...         return (self.net(batch) - 2 * batch).square().mean()
        ...     def validate(self):
        ...         return {}
        >>> _ = train(Line(), LoopConfig(epochs=2), callbacks=[PrintLoss()], progress=False)
        epoch 1: loss finite: True
        epoch 2: loss finite: True
    """

    def settings(self) -> Mapping[str, Any]:
        """Return what changes the numbers of a training: a checkpoint resumes under equal settings only."""
        return {}

    def learning_rates(self, task: Task) -> Mapping[str, float]:
        """Return peak learning rates of parameters that do not follow the configuration.

        Args:
            task: the task before the first step.

        Returns:
            Parameter name in the task -> learning rate.
        """
        return {}

    def on_train_start(self, state: TrainingState) -> None:
        """Called once, after a checkpoint is restored and before the first step.

        Args:
            state: task, optimizer, schedule and history.
        """

    def on_loss(self, state: TrainingState, loss: Tensor) -> Tensor:
        """Return the loss to differentiate, called after every forward pass.

        Args:
            state: task, optimizer, schedule and history.
            loss: scalar loss of the batch.
        """
        return loss

    def on_step_end(self, state: TrainingState) -> None:
        """Called after every optimizer step that was not skipped.

        Args:
            state: task, optimizer, schedule and history.
        """

    def evaluation_weights(self, state: TrainingState) -> AbstractContextManager[None]:
        """Return a context in which the task holds the weights to validate and to keep.

        Args:
            state: task, optimizer, schedule and history.
        """
        return nullcontext()

    def on_epoch_end(self, state: TrainingState, row: Mapping[str, float]) -> None:
        """Called after every epoch, when it is validated and its checkpoint is written.

        Args:
            state: task, optimizer, schedule and history.
            row: "epoch", "loss", "rate" and the validation metrics.
        """

    def should_stop(self, state: TrainingState) -> bool:
        """Return whether training ends before the next epoch.

        Args:
            state: task, optimizer, schedule and history.
        """
        return False

    def on_train_end(self, state: TrainingState) -> None:
        """Called once, after the last epoch and before the best weights are restored.

        Args:
            state: task, optimizer, schedule and history.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold: nested dicts and lists of tensors, numbers and strings."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: from a checkpoint.
        """
