"""Experiment loggers (TensorBoard, Weights & Biases, MLflow) through accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmattn.training.accelerator import finish_loggers, start_loggers
from mmattn.training.callbacks.base import Callback

if TYPE_CHECKING:
    from mmattn.training.state import TrainingState

__all__ = ["Loggers"]


class Loggers(Callback):
    """Log a row an epoch to the loggers that the accelerator was opened with.

    Args:
        run_name: name of the run in the loggers.
    """

    def __init__(self, run_name: str):
        self.run_name = run_name

    def on_train_start(self, state: TrainingState) -> None:
        start_loggers(state.accelerator, self.run_name, state.settings)

    def on_epoch_end(self, state: TrainingState, row: Mapping[str, float]) -> None:
        values: dict[str, Any] = {key: value for key, value in row.items() if key != "epoch"}
        state.accelerator.log(values, step=row["epoch"])

    def on_train_end(self, state: TrainingState) -> None:
        finish_loggers(state.accelerator)
