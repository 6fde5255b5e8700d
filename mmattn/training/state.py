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
from mmattn.training.ema import Average
from mmattn.training.schedule import Schedule

__all__ = ["History", "Running", "State"]


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

    def exhausted(self, patience: int) -> bool:
        """Have `patience` epochs gone by since the best one?"""
        return patience > 0 and self.best_epoch > 0 and len(self.rows) - self.best_epoch >= patience


@dataclass
class Running:
    """The epoch that is under way.

    Attributes:
        batches: batches of it that are done, in all processes.
        loss: sum of this process's losses.
        counted: number of them.
        rate: of the last step.
    """

    batches: int = 0
    loss: float = 0.0
    counted: int = 0
    rate: float = 0.0


class State:
    """Weights, optimizer, schedule, average, history, and the best weights so far.

    Args:
        task: the module that is trained, not wrapped.
        optimizer: accelerate's.
        schedule: of its rates.
        average: of its weights, where one is kept.
        scaler: of fp16's gradients, where there is one.
    """

    def __init__(
        self,
        task: nn.Module,
        optimizer: Any,
        schedule: Schedule,
        average: Average | None = None,
        scaler: Any = None,
    ):
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.average, self.scaler = average, scaler
        self.history = History()
        self.running = Running()
        self.best: dict[str, Tensor] = {}

    def averaged(self) -> AbstractContextManager[None]:
        """The task as it is validated: with the averaged weights, where they are asked for."""
        return nullcontext() if self.average is None else self.average.in_place()

    def keep(self, row: dict[str, float], score: float) -> None:
        """Note the epoch; keep its weights where its score is the best so far."""
        self.history.rows.append(row)
        if score > self.history.best_score:
            self.history.best_epoch, self.history.best_score = len(self.history.rows), score
            self.best = checkpoint.cpu_copy(self.task.state_dict())

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write the checkpoint, atomically."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        content = {"settings": settings, "best": self.best, "history": asdict(self.history)}
        checkpoint.save(path, content | {"running": asdict(self.running)} | parts)

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
        self.history, self.running = History(**saved["history"]), Running(**saved["running"])
        self.best = saved["best"]

    def _parts(self) -> dict[str, Any]:
        parts = {
            "weights": self.task, "optimizer": self.optimizer, "schedule": self.schedule,
            "average": self.average, "scaler": self.scaler,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if part is not None}
