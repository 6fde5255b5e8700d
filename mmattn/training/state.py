"""Where a training stands: everything that its checkpoint holds, and nothing else."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmattn.errors import InputError
from mmattn.training import checkpoint
from mmattn.training.ema import ExponentialMovingAverage
from mmattn.training.schedule import LearningRateSchedule

__all__ = ["EpochProgress", "History", "TrainingState"]


@dataclass
class History:
    """What happened: one row an epoch, and which epoch was kept.

    Attributes:
        rows: per epoch {"epoch", "loss", "rate", and the validation figures}.
        best_epoch: the epoch whose weights the model holds at the end (0: none was better than NaN).
        best_score: its validation figure.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf

    def should_stop(self, patience: int) -> bool:
        """Have `patience` epochs gone by since the best one?"""
        return patience > 0 and self.best_epoch > 0 and len(self.rows) - self.best_epoch >= patience


@dataclass
class EpochProgress:
    """The epoch that is under way.

    Attributes:
        batches_done: batches of it that are done, in all processes.
        loss_sum: sum of this process's losses.
        loss_count: number of them.
        learning_rate: of the last step.
    """

    batches_done: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    learning_rate: float = 0.0


class TrainingState:
    """Weights, optimizer, schedule, average, history, and the best weights so far.

    Args:
        task: the module that is trained, not wrapped.
        optimizer: accelerate's.
        schedule: of its rates.
        ema: of its weights, where one is kept.
        scaler: of fp16's gradients, where there is one.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizer: Any,
        schedule: LearningRateSchedule,
        ema: ExponentialMovingAverage | None = None,
        scaler: Any = None,
    ):
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.ema, self.scaler = ema, scaler
        self.history = History()
        self.epoch_progress = EpochProgress()
        self.best: dict[str, Tensor] = {}

    def ema_weights(self) -> AbstractContextManager[None]:
        """The task as it is validated: with the averaged weights, where they are asked for."""
        return nullcontext() if self.ema is None else self.ema.average_parameters()

    def record_epoch(self, row: dict[str, float], score: float) -> None:
        """Note the epoch; keep its weights where its score is the best so far."""
        self.history.rows.append(row)
        if score > self.history.best_score:
            self.history.best_epoch, self.history.best_score = len(self.history.rows), score
            self.best = checkpoint.cpu_copy(self.task.state_dict())

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the checkpoint, atomically."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        content = {"settings": settings, "best": self.best, "history": asdict(self.history)}
        checkpoint.save(path, content | {"running": asdict(self.epoch_progress)} | parts)

    def restore(self, path: Path, settings: dict[str, Any]) -> None:
        """Go on from the checkpoint.

        Raises:
            InputError: it was made with other settings, or by another model.
        """
        saved = checkpoint.load(path)
        before, now = saved["settings"], json.loads(json.dumps(settings))  # where a tuple is a list
        if before != now:
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise InputError(
                f"{path}: made with other settings ({', '.join(changed)}); "
                "start in another folder, or go on with the settings it was made with"
            )
        try:
            for name, part in self._parts().items():
                part.load_state_dict(saved[name])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: a checkpoint of another model ({reason})") from error
        self.history, self.epoch_progress = History(**saved["history"]), EpochProgress(**saved["running"])
        self.best = saved["best"]

    def _parts(self) -> dict[str, Any]:
        parts = {
            "weights": self.task, "optimizer": self.optimizer, "schedule": self.schedule,
            "average": self.ema, "scaler": self.scaler,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part is not None}
