"""What one seed of a run with tasks gave, and how it is kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmattn.boxes import Boxes
from mmattn.experiments.runner import save_seed
from mmattn.training.loop import History

__all__ = ["FULL", "SINGLE_TASK", "TaskSeedResult", "load_task_result", "save_task_result"]

FULL, SINGLE_TASK = "whole", "alone"


@dataclass(frozen=True)
class TaskSeedResult:
    """What one seed gave.

    Args:
        seed: of the training.
        counts: task -> variant -> [N, K] of its test items (see `mmattn.evaluation.tasks.task_metrics`).
            Variants
            are `FULL`, `SINGLE_TASK` (trained by itself), knockouts ("without-image", "only-text"), "noise
            0.5", "attack 0.1".
        predictions: task -> what the model said of its test items.
        history: of the training together.
        single_task_histories: task -> history of the training by itself.
        seconds: step -> how long it took.
        parts: task -> part -> how many items.
    """

    seed: int
    counts: Mapping[str, Mapping[str, NDArray[np.float64]]]
    predictions: Mapping[str, Sequence[Any]]
    history: History
    single_task_histories: Mapping[str, History] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def save_task_result(path: Path, result: TaskSeedResult) -> None:
    """Write `path` (.npz) and the notes beside it (.json)."""
    notes = {
        "seed": result.seed,
        "history": vars(result.history),
        "single_task_histories": {
            name: vars(history) for name, history in result.single_task_histories.items()
        },
        "seconds": dict(result.seconds),
        "parts": {name: dict(parts) for name, parts in result.parts.items()},
        "predictions": {
            name: [_prediction_to_json(one) for one in found] for name, found in result.predictions.items()
        },
    }
    arrays = {
        f"{task}/{variant}": values
        for task, found in result.counts.items()
        for variant, values in found.items()
    }
    save_seed(path, notes, arrays)


def load_task_result(path: Path) -> TaskSeedResult:
    """Read what `save_task_result` wrote."""
    notes: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    notes["history"] = History(**notes["history"])
    notes["single_task_histories"] = {
        name: History(**history) for name, history in notes["single_task_histories"].items()
    }
    notes["predictions"] = {
        name: [_prediction_from_json(one) for one in found] for name, found in notes["predictions"].items()
    }
    counts: dict[str, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            task, _, variant = key.partition("/")
            counts.setdefault(task, {})[variant] = arrays[key]
    return TaskSeedResult(counts=counts, **notes)


def _prediction_to_json(prediction: Any) -> Any:
    """A prediction as JSON; a vector is a list."""
    if isinstance(prediction, torch.Tensor):
        return prediction.tolist()
    if not isinstance(prediction, Boxes):
        return prediction
    scores = None if prediction.scores is None else prediction.scores.tolist()
    return {
        "boxes": prediction.boxes.tolist(), "labels": list(prediction.labels),
        "size": list(prediction.size), "scores": scores,
    }  # fmt: skip


def _prediction_from_json(value: Any) -> Any:
    """What `_prediction_to_json` was made of."""
    if not isinstance(value, dict):
        return value
    height, width = value["size"]
    scores = None if value["scores"] is None else torch.tensor(value["scores"], dtype=torch.float32)
    boxes = torch.tensor(value["boxes"], dtype=torch.float32).reshape(-1, 4)
    return Boxes(boxes, value["labels"], (height, width), scores)
