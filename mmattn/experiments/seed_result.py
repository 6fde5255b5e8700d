"""What one seed of a run gave, and how it is kept on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.array_types import Floats, Ints
from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.files import atomic_path, write_json
from mmattn.training.state import History

__all__ = ["FULL", "SINGLE_TASK", "RankingResult", "SeedResult", "TaskResult", "load_result", "save_result"]

FULL, SINGLE_TASK = "whole", "alone"


@dataclass(frozen=True)
class RankingResult:
    """What recommenders gave at the test.

    Args:
        values: system -> metric -> [U] per-user values, NaN for users without a positive.
        ablations: ablation -> metric -> [U] of our system with something taken away.
        subgroups: subgroup -> system -> [U] values, NaN for users that it does not concern.
        recall_at_cutoffs: system -> mean recall at each of `cutoffs`.
        cutoffs: rising cut-offs.
        modality_gaps: "content | content" -> how far apart their vectors lie.
        index_cost: what vectors and an index lose; None if that was not measured.
        example_users: why ("drawn", "best", "worst") -> users whose recommendations the report shows.
        example_items: the same -> [users, k] items that our system ranks first for them.
        baseline_settings: baseline -> settings that validation selected; empty if the file's own were taken.
        hybrid_settings: of a hybrid, as validation selected them; empty without one.
    """

    values: Mapping[str, Mapping[str, Floats]]
    ablations: Mapping[str, Mapping[str, Floats]]
    subgroups: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    recall_at_cutoffs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    cutoffs: Sequence[int] = ()
    modality_gaps: Mapping[str, ModalityGap] = field(default_factory=dict)
    index_cost: IndexCost | None = None
    example_users: Mapping[str, Ints] = field(default_factory=dict)
    example_items: Mapping[str, Ints] = field(default_factory=dict)
    baseline_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hybrid_settings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskResult:
    """What one task gave at the test.

    Args:
        counts: variant -> [N, K] counts of its test items (see `mmattn.evaluation.tasks.task_metrics`).
            Variants are `FULL`, `SINGLE_TASK` (trained by itself), ablations ("without-image", "only-text"),
            "noise all 0.5", "attack 0.1".
        predictions: [N] predictions as JSON values, see `SupervisedHead.prediction_to_json`.
        single_task_history: of the training by itself; None if there was none.
    """

    counts: Mapping[str, Floats]
    predictions: Sequence[Any]
    single_task_history: History | None = None


@dataclass(frozen=True)
class SeedResult:
    """What one seed gave.

    Args:
        seed: of the split and of the training.
        history: of the training.
        seconds: step -> how long it took.
        part_sizes: part -> number of interactions and items; of tasks, task -> part -> number of items.
        encoders: modality -> what the report says of its encoder.
        num_rejected: contents that could not be read.
        ranking: of a recommender and its baselines; None in a run with tasks.
        tasks: name -> result; empty for a recommender.
    """

    seed: int
    history: History
    seconds: Mapping[str, float]
    part_sizes: Mapping[str, Any]
    encoders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_rejected: int = 0
    ranking: RankingResult | None = None
    tasks: Mapping[str, TaskResult] = field(default_factory=dict)


def save_result(path: Path, result: SeedResult) -> None:
    """Write arrays to `path` (.npz) and everything else beside it (.json), each atomically.

    Args:
        path: of the .npz file.
        result: of a seed.
    """
    arrays: dict[str, Any] = {}
    write_json(path.with_suffix(".json"), _take_arrays(result, arrays))
    # Last, because its presence says that the seed is finished.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_result(path: Path) -> SeedResult:
    """Read what `save_result` wrote.

    Args:
        path: of the .npz file.
    """
    skeleton = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(path, allow_pickle=False) as arrays:
        values = _put_arrays(skeleton, arrays)
    ranking = values["ranking"]
    if ranking is not None:
        gaps = {name: ModalityGap(**gap) for name, gap in ranking["modality_gaps"].items()}
        cost = ranking["index_cost"]
        cost = None if cost is None else IndexCost.from_dict(cost)
        ranking = RankingResult(**{**ranking, "modality_gaps": gaps, "index_cost": cost})
    tasks = {}
    for name, task in values["tasks"].items():
        alone = task["single_task_history"]
        history = None if alone is None else History(**alone)
        tasks[name] = TaskResult(**{**task, "single_task_history": history})
    history = History(**values["history"])
    return SeedResult(**{**values, "history": history, "ranking": ranking, "tasks": tasks})


_ARRAY = "array"  # key of what stands for an array in the JSON file


def _take_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    """JSON values with references in place of arrays, which are added to `arrays`."""
    if isinstance(value, np.ndarray):
        key = str(len(arrays))
        arrays[key] = value
        return {_ARRAY: key}
    if isinstance(value, IndexCost):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _take_arrays(getattr(value, each.name), arrays) for each in fields(value)}
    if isinstance(value, Mapping):
        return {name: _take_arrays(part, arrays) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_take_arrays(part, arrays) for part in value]
    return value


def _put_arrays(value: Any, arrays: Mapping[str, Any]) -> Any:
    """What `_take_arrays` was given, with dataclasses as mappings."""
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {name: _put_arrays(part, arrays) for name, part in value.items()}
    return [_put_arrays(part, arrays) for part in value] if isinstance(value, list) else value
