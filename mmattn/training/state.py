"""State of a training: what its checkpoint holds and what callbacks see."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from mmattn.errors import InputError
from mmattn.training import checkpoint

if TYPE_CHECKING:
    from mmattn.training.schedule import LearningRateSchedule
    from mmattn.training.tasks.base import Task

__all__ = ["EpochProgress", "History", "Stateful", "TrainingState"]


@dataclass
class History:
    """What happened: one row an epoch, and which epoch was kept.

    Attributes:
        rows: per epoch {"epoch", "loss", "rate", and the validation metrics}.
        best_epoch: the epoch whose weights the model holds at the end (0: none was better than NaN).
        best_score: its validation score.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf


@dataclass
class EpochProgress:
    """Progress within an unfinished epoch.

    Attributes:
        batches_done: batches done in this epoch, in all processes.
        loss_sum: sum of this process's losses.
        loss_count: number of them.
        learning_rate: of the last step.
    """

    batches_done: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    learning_rate: float = 0.0


class Stateful(Protocol):
    """Anything with a state that a checkpoint can hold."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """Restore the state.

        Args:
            state: as `state_dict` returned it.
        """


class TrainingState:
    """Task, optimizer, schedule, history, and the best weights so far.

    Args:
        task: the module that is trained, not wrapped.
        optimizer: accelerate's.
        schedule: of its learning rates.
        accelerator: accelerate's; it knows the device and the other processes.
        settings: what changes the numbers: a checkpoint of other settings is refused.
        stateful: name -> further parts of a checkpoint.
    """

    def __init__(
        self,
        task: Task,
        optimizer: Any,
        schedule: LearningRateSchedule,
        accelerator: Any,
        settings: Mapping[str, Any],
        stateful: Mapping[str, Stateful],
    ):
        self.task, self.optimizer, self.schedule = task, optimizer, schedule
        self.accelerator, self.settings = accelerator, dict(settings)
        self.history = History()
        self.epoch_progress = EpochProgress()
        self.best: dict[str, Tensor] = {}
        self._parts: dict[str, Stateful] = {"weights": task, "optimizer": optimizer, "schedule": schedule}
        if accelerator.scaler is not None:  # of fp16 gradients
            self._parts["scaler"] = accelerator.scaler
        self._parts |= stateful

    @property
    def is_main_process(self) -> bool:
        """Whether this process validates, logs and writes; True if there is only one."""
        return bool(self.accelerator.is_main_process)

    def record_epoch(self, row: dict[str, float], score: float) -> None:
        """Append an epoch to the history; keep its weights if its score is the best so far.

        Args:
            row: of the history.
            score: higher is better.
        """
        self.history.rows.append(row)
        if score > self.history.best_score:
            self.history.best_epoch, self.history.best_score = len(self.history.rows), score
            self.best = checkpoint.cpu_copy(self.task.state_dict())

    def save(self, path: Path) -> None:
        """Write the checkpoint, atomically.

        Args:
            path: of the file.
        """
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        content = {"settings": self.settings, "best": self.best, "history": asdict(self.history)}
        checkpoint.save(path, content | {"running": asdict(self.epoch_progress)} | parts)

    def restore(self, path: Path) -> None:
        """Restore everything from a checkpoint.

        Args:
            path: of the file.

        Raises:
            InputError: the checkpoint was made with other settings, or from another model.
        """
        saved = checkpoint.load(path)
        before, now = saved["settings"], json.loads(json.dumps(self.settings))  # tuples become lists
        if before != now:
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise InputError(
                f"{path}: made with other settings ({', '.join(changed)}); "
                "start in another folder, or go on with the settings it was made with"
            )
        try:
            for name, part in self._parts.items():
                part.load_state_dict(saved[name])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: a checkpoint of another model ({reason})") from error
        self.history, self.epoch_progress = History(**saved["history"]), EpochProgress(**saved["running"])
        self.best = saved["best"]
