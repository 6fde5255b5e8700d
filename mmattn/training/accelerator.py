"""Where training runs, in which precision, and who is told: accelerate, its mistakes explained."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmattn.errors import InputError, MissingDependency, did_you_mean

__all__ = [
    "LOGGERS",
    "PRECISIONS",
    "distributed_state",
    "finish_loggers",
    "open_accelerator",
    "start_loggers",
]

PRECISIONS = ("auto", "no", "bf16", "fp16")
LOGGERS = {
    "tensorboard": "pip install 'mmattn[track]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
}


def distributed_state() -> Any:
    """The processes that `accelerate launch` or torchrun started, as an `accelerate.PartialState`."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # Accelerator reads this flag and PartialState does not: CPU processes would not find each other.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def open_accelerator(
    precision: str = "auto", loggers: Sequence[str] = (), folder: str | Path | None = None
) -> Any:
    """An `accelerate.Accelerator` for the device that is there, in one process or in several.

    Args:
        precision: one of `PRECISIONS`. "auto" is bf16 on a GPU that has it and full precision elsewhere.
        loggers: names in `LOGGERS`.
        folder: where trackers write that keep files.

    Raises:
        InputError: no such precision or tracker, fp16 without a GPU, TensorBoard without a folder.
        MissingDependency: a tracker is not installed; the message holds the command.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    if precision not in PRECISIONS:
        raise InputError(f"training: no precision {precision!r}.{did_you_mean(precision, PRECISIONS)}")
    # accelerate keeps the precision of a process's first Accelerator; the next training may want another.
    AcceleratorState._reset_state()
    device = Accelerator().device
    if precision == "fp16" and device.type == "cpu":
        raise InputError("training precision: got fp16 on the CPU, expected bf16, no or auto there")
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "no"
    _check_loggers(loggers, folder)
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=precision,
        log_with=list(loggers) or None,
        project_dir=None if folder is None else str(folder),
        # A batch without pictures gives the parameters of the picture's branch no gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def start_loggers(accelerator: Any, run_name: str, settings: Mapping[str, Any]) -> None:
    """Start a run with every logger.

    Args:
        accelerator: as `open_accelerator` returned it.
        run_name: of the run.
        settings: of the training.
    """
    if accelerator.log_with:
        folder = accelerator.project_dir
        accelerator.init_trackers(
            "mmattn",
            config={key: value if _is_scalar(value) else str(value) for key, value in settings.items()},
            init_kwargs={
                "wandb": {"name": run_name} | ({} if folder is None else {"dir": folder}),
                "mlflow": {"run_name": run_name},
            },
        )


def finish_loggers(accelerator: Any) -> None:
    """End the run with every logger.

    `Accelerator.end_training` would also take the processes apart, and another training may follow.

    Args:
        accelerator: as `open_accelerator` returned it.
    """
    for tracker in accelerator.trackers:
        tracker.finish()


def _check_loggers(loggers: Sequence[str], folder: str | Path | None) -> None:
    for name in loggers:
        if name not in LOGGERS:
            raise InputError(f"training: no tracker {name!r}.{did_you_mean(name, LOGGERS)}")
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(f"tracker {name!r} is not installed: {LOGGERS[name]}")
    if "tensorboard" in loggers and folder is None:
        raise InputError("tracker 'tensorboard' writes files: expected a folder for the training, got none")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str))
