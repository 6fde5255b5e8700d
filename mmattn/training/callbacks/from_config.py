"""The callbacks that a configuration asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmattn.training.callbacks.early_stopping import EarlyStopping
from mmattn.training.callbacks.ema import WeightAveraging
from mmattn.training.callbacks.head_gates import HeadGatePenalty
from mmattn.training.callbacks.loggers import Loggers

if TYPE_CHECKING:
    from mmattn.training.callbacks.base import Callback
    from mmattn.training.loop_config import LoopConfig

__all__ = ["callbacks_from_config"]


def callbacks_from_config(config: LoopConfig, run_name: str) -> list[Callback]:
    """Return the callbacks for `gate_penalty`, `ema_decay`, `patience` and `loggers`.

    Args:
        config: settings of the training.
        run_name: name of the run in the loggers.

    Example:
        >>> from mmattn.training.loop_config import LoopConfig
        >>> config = LoopConfig(ema_decay=0.9, patience=0)
        >>> [type(callback).__name__ for callback in callbacks_from_config(config, "run")]
        ['WeightAveraging']
    """
    callbacks: list[Callback] = []
    if config.gate_penalty:
        callbacks.append(HeadGatePenalty(config.gate_penalty, config.gate_learning_rate))
    if config.ema_decay:
        callbacks.append(WeightAveraging(config.ema_decay))
    if config.patience:
        callbacks.append(EarlyStopping(config.patience))
    if config.loggers:
        callbacks.append(Loggers(run_name))
    return callbacks
