"""Early stopping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattn.training.callbacks.base import Callback

if TYPE_CHECKING:
    from mmattn.training.state import TrainingState

__all__ = ["EarlyStopping"]


class EarlyStopping(Callback):
    """Stop after several epochs without a better validation score.

    Args:
        patience: number of epochs, at least 1.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def should_stop(self, state: TrainingState) -> bool:
        history = state.history
        return history.best_epoch > 0 and len(history.rows) - history.best_epoch >= self.patience
