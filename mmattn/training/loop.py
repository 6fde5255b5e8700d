"""A short training loop: any task, on the device that is there, resumable to the same numbers.

A task is a module whose `forward(batch)` is the loss; the loop knows nothing else about it. Every
epoch draws its random numbers from (seed, epoch) alone, so a run that was killed and resumed passes
through exactly the states of one that was not.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mmattn import attention
from mmattn.errors import InputError
from mmattn.training import checkpoint

__all__ = ["History", "Task", "train"]

log = logging.getLogger(__name__)


class Task(nn.Module, ABC):
    """What is trained: holds the model as a submodule, gives batches, a loss and a validation score."""

    @abstractmethod
    def batches(self, epoch: int, generator: torch.Generator) -> Iterable[Any]:
        """The batches of one epoch, drawn with `generator` only."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """The loss of one batch, a scalar."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Validation figures; the first one, higher is better, decides which epoch is kept.

        Nothing, where nothing is held out: then the last epoch is kept.
        """


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


def train(
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    until: int = 0,
    weight_decay: float = 0.01,
    warmup: float = 0.05,
    schedule: Literal["cosine", "constant"] = "cosine",
    clip: float = 1.0,
    accumulate: int = 1,
    patience: int = 0,
    average: float = 0.0,
    gate_penalty: float = 0.0,
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto",
    seed: int = 0,
    folder: str | Path | None = None,
    resume: bool = True,
    tracker: str | None = None,
    progress: bool = True,
    label: str = "training",
) -> History:
    """Train the task and leave the best weights, by validation, in it.

    Args:
        task: what to train; moved to the device that accelerate chooses.
        epochs: passes over `task.batches` that the schedule is made for.
        until: stop after this epoch, in the middle of the schedule; 0 goes to its end.
        learning_rate: peak rate of AdamW.
        weight_decay: on matrices only, not on biases, norms and other vectors.
        warmup: share of all steps in which the rate rises from 0.
        schedule: what the rate does after the warm-up.
        clip: largest norm of the gradient.
        accumulate: batches an optimizer step.
        patience: stop after so many epochs without a better validation figure; 0 never stops.
        average: decay of a moving average of the weights, which is then what is validated and kept
            (Polyak and Juditsky, 1992); 0 takes the weights as they are.
        gate_penalty: what an open head costs: this times the expected number of open heads is added to
            the loss, in programs with a `head_gate` (see `mmattn.attention.gate_penalty`). Closing heads
            takes time: a task whose `validate` returns nothing keeps the last epoch, where most are.
        precision: "auto" is bf16 on a GPU that has it and full precision elsewhere.
        seed: of every random number drawn in training.
        folder: where `last.safetensors` is written after each epoch; None keeps nothing.
        resume: go on from `last.safetensors` where there is one.
        tracker: an accelerate tracker ("tensorboard", "wandb", ...).
        progress: show a bar.
        label: what the bar is called.

    Returns:
        The history, also of the epochs before a resume.

    Raises:
        InputError: the loss became NaN or infinite (epoch and step are named), or the checkpoint is
            of another task or of other settings; a gate penalty without a gate.
    """
    from accelerate import Accelerator

    settings = {
        "epochs": epochs,
        "until": until,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup": warmup,
        "schedule": schedule,
        "clip": clip,
        "accumulate": accumulate,
        "average": average,
        "gate_penalty": gate_penalty,
        "seed": seed,
    }
    accelerator = Accelerator(
        mixed_precision=_precision(precision),
        gradient_accumulation_steps=accumulate,
        log_with=tracker,
        project_dir=None if folder is None else str(folder),
    )
    if tracker is not None:
        accelerator.init_trackers(label, config=settings)
    optimizer = torch.optim.AdamW(_groups(task, weight_decay), lr=learning_rate)
    ready, optimizer = accelerator.prepare(task, optimizer)
    state = _State(ready, optimizer, History(), _Average(task, average) if average else None)
    last = None if folder is None else Path(folder) / "last.safetensors"
    if last is not None and resume and last.exists():
        state.restore(last, settings)
        log.info("resumed from %s after epoch %d", last, len(state.history.rows))

    first = len(state.history.rows) + 1
    bar = tqdm(
        range(first, (until or epochs) + 1), desc=label, unit="epoch", disable=not progress or None,
        initial=first - 1, total=until or epochs,
    )  # fmt: skip
    for epoch in bar:
        if _exhausted(state.history, epoch, patience):
            break
        row = _epoch(accelerator, task, state, epoch, settings)
        task.eval()
        with torch.no_grad(), state.averaged():
            row |= task.validate()
            state.keep(epoch, row)
        if last is not None and accelerator.is_main_process:
            state.save(last, settings)
        if tracker is not None:
            accelerator.log({key: value for key, value in row.items() if key != "epoch"}, step=epoch)
        bar.set_postfix({key: f"{value:.4g}" for key, value in row.items() if key not in ("epoch", "rate")})
    bar.close()
    if tracker is not None:
        accelerator.end_training()
    if state.best:
        task.load_state_dict(state.best)
    task.eval()
    return state.history


def _epoch(
    accelerator: Any, task: Task, state: _State, epoch: int, settings: dict[str, Any]
) -> dict[str, float]:
    """One pass: every random number comes from (seed, epoch), nothing is carried over."""
    ready, optimizer = state.module, state.optimizer
    torch.manual_seed(settings["seed"] * 1_000_003 + epoch)
    generator = torch.Generator().manual_seed(settings["seed"] * 1_000_003 + epoch)
    ready.train()
    batches = list(task.batches(epoch, generator))
    losses = []
    rate = 0.0
    for step, batch in enumerate(batches):
        done = epoch - 1 + (step + 1) / len(batches)
        rate = settings["learning_rate"] * _rate(done / settings["epochs"], settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with accelerator.accumulate(ready):
            loss = ready(batch)
            if settings["gate_penalty"]:
                loss = loss + settings["gate_penalty"] * attention.gate_penalty(task)
            if not torch.isfinite(loss):
                raise InputError(
                    f"training: the loss is {loss.item()} in epoch {epoch}, step {step + 1} of "
                    f"{len(batches)}; a smaller learning rate than {settings['learning_rate']} may help"
                )
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(ready.parameters(), settings["clip"])
            optimizer.step()
            optimizer.zero_grad()
        if state.average is not None and accelerator.sync_gradients:
            state.average.update()
        losses.append(loss.detach())
    mean = float(torch.stack(losses).float().mean()) if losses else 0.0
    return {"epoch": epoch, "loss": mean, "rate": rate}


def _rate(done: float, settings: dict[str, Any]) -> float:
    """Share of the peak rate after the share `done` of all steps."""
    if done < settings["warmup"]:
        return done / settings["warmup"]
    if settings["schedule"] == "constant":
        return 1.0
    left = (done - settings["warmup"]) / max(1 - settings["warmup"], 1e-9)
    return 0.5 * (1 + math.cos(math.pi * min(left, 1.0)))


def _exhausted(history: History, epoch: int, patience: int) -> bool:
    return patience > 0 and epoch - 1 - history.best_epoch >= patience and history.best_epoch > 0


def _groups(task: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in task.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


class _Average:
    """A moving average of the trained weights, which forgets its start quickly."""

    def __init__(self, task: nn.Module, decay: float):
        self.weights = {name: p for name, p in task.named_parameters() if p.requires_grad}
        self.decay = decay
        self.steps = 0
        self.mean = {name: weight.detach().clone() for name, weight in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimizer."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (self.steps + 10))
        for name, weight in self.weights.items():
            self.mean[name].lerp_(weight, share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The task holds the average; at the end it has its own weights again."""
        own = {name: weight.detach().clone() for name, weight in self.weights.items()}
        try:
            self._put(self.mean)
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(values[name])


class _State:
    """What a checkpoint holds: weights, optimizer, history, and the best weights so far."""

    def __init__(self, module: nn.Module, optimizer: Any, history: History, average: _Average | None):
        self.module, self.optimizer, self.history, self.average = module, optimizer, history, average
        self.best: dict[str, Tensor] = {}

    def averaged(self) -> AbstractContextManager[None]:
        """The task as it is validated: with the averaged weights, where they are asked for."""
        return nullcontext() if self.average is None else self.average.in_place()

    def keep(self, epoch: int, row: dict[str, float]) -> None:
        """Note the epoch; keep its weights where its first validation figure is the best so far."""
        self.history.rows.append(row)
        figures = (value for key, value in row.items() if key not in ("epoch", "loss", "rate"))
        score = next(figures, float(epoch))
        if score > self.history.best_score:
            self.history.best_epoch, self.history.best_score = epoch, score
            self.best = checkpoint.cpu_copy(self._weights())

    def _weights(self) -> dict[str, Tensor]:
        return getattr(self.module, "module", self.module).state_dict()

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        checkpoint.save(
            path,
            {
                "settings": settings,
                "weights": self._weights(),
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "average": None if self.average is None else [self.average.steps, self.average.mean],
                "history": {
                    "rows": self.history.rows,
                    "best_epoch": self.history.best_epoch,
                    "best_score": self.history.best_score,
                },
            },
        )

    def restore(self, path: Path, settings: dict[str, Any]) -> None:
        saved = checkpoint.load(path)
        if saved["settings"] != settings:
            changed = [key for key in settings if saved["settings"].get(key) != settings[key]]
            raise InputError(
                f"{path}: made with other settings ({', '.join(changed)}); "
                "start in another folder, or go on with the settings it was made with"
            )
        try:
            getattr(self.module, "module", self.module).load_state_dict(saved["weights"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: a checkpoint of another model ({reason})") from error
        self.history = History(**saved["history"])
        self.best = saved["best"]
        if self.average is not None:
            self.average.steps, mean = saved["average"]
            for name, value in mean.items():
                self.average.mean[name].copy_(value)
