"""What the report of a run with tasks is made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.examples import TaskExamples
from mmattn.reports.results import AblationKind, Report

__all__ = ["ClassRow", "Perturbation", "TaskAblation", "TaskOutcome", "TaskReport"]

Metrics = Mapping[str, Interval]


@dataclass(frozen=True)
class TaskAblation:
    """The finished model with a content taken away, or with some of the contents alone.

    Args:
        name: key in metrics.json, for example "without-image".
        content: what is taken away; of a subset what is left, joined by " + ".
        kind: in which way, or "subset".
        metrics: figure -> its mean and interval.
        change: figure -> the paired interval of this minus the whole.
    """

    name: str
    content: str
    kind: AblationKind
    metrics: Metrics
    change: Metrics


@dataclass(frozen=True)
class Perturbation:
    """The finished model on tokens that are disturbed.

    Args:
        target: the modality that the noise is on, "all", or "attack".
        level: how strong, as a share of the tokens' norm.
        metrics: figure -> its mean and interval.
    """

    target: str
    level: float
    metrics: Metrics


@dataclass(frozen=True)
class ClassRow:
    """One class, label, entity type: means over the seeds."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class TaskOutcome:
    """Everything about one task.

    Args:
        name: of the task.
        head: name of its head in the registry.
        target: the column that it learns.
        data: name of its data set.
        inputs: the encoders that it may read.
        parts: part -> items, of the first seed.
        primary_metric: the figure that choices are made by.
        lower_is_better: figures of which less is better.
        metrics: figure -> its mean and interval.
        single_task: the same, trained by itself; empty where that was not done.
        gain: figure -> the paired interval of together minus alone.
        ablations: contents taken away, and subsets.
        perturbations: noise and attacks.
        classes: one row a class.
        class_names: of the classes, in the order of the confusion matrix.
        confusion: [C, C] counts over all seeds, truth in rows; None where samples have no single class.
        examples: predictions to look at.
    """

    name: str
    head: str
    target: str
    data: str
    inputs: tuple[str, ...]
    parts: Mapping[str, int]
    primary_metric: str
    lower_is_better: frozenset[str]
    metrics: Metrics
    single_task: Metrics = field(default_factory=dict)
    gain: Metrics = field(default_factory=dict)
    ablations: tuple[TaskAblation, ...] = ()
    perturbations: tuple[Perturbation, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    class_names: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None
    examples: TaskExamples = field(default_factory=TaskExamples)

    @property
    def outcome(self) -> str:
        """Together against alone, as far as the interval tells: "gained", "lost", "even", or ""."""
        if not self.gain:
            return ""
        change = self.gain[self.primary_metric]
        if not change.excludes_zero:
            return "even"
        return "gained" if (change.mean > 0) != (self.primary_metric in self.lower_is_better) else "lost"

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "head": self.head,
            "target": self.target,
            "data": self.data,
            "parts": dict(self.parts),
            "primary_metric": self.primary_metric,
            "metrics": _intervals_to_json(self.metrics),
            "single_task": _intervals_to_json(self.single_task),
            "gain": _intervals_to_json(self.gain),
            "outcome": self.outcome,
            "ablations": {ablation.name: _intervals_to_json(ablation.metrics) for ablation in self.ablations},
            "ablation_changes": {
                ablation.name: _intervals_to_json(ablation.change) for ablation in self.ablations
            },
            "perturbations": [
                {
                    "target": perturbation.target,
                    "level": perturbation.level,
                    "metrics": _intervals_to_json(perturbation.metrics),
                }
                for perturbation in self.perturbations
            ],
            "classes": [vars(row) for row in self.classes],
            "confusion": None
            if self.confusion is None
            else {"class_names": list(self.class_names), "counts": self.confusion.tolist()},
        }


@dataclass(frozen=True, kw_only=True)
class TaskReport(Report):
    """The report of tasks.

    Args:
        tasks: one outcome each.
        data: name of a data set -> counts and origin.
    """

    tasks: tuple[TaskOutcome, ...]
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json; `systems` has the metrics of all tasks in one row."""
        systems = {"mmattn": self._row("metrics")}
        if any(task.single_task for task in self.tasks):
            systems["single_task"] = self._row("single_task")
        tasks = {task.name: task.to_json() for task in self.tasks}
        return {**super().to_json(), "systems": systems, "tasks": tasks}

    def _row(self, which: str) -> dict[str, Any]:
        return {
            f"{task.name} {figure}": interval.to_json()
            for task in self.tasks
            for figure, interval in getattr(task, which).items()
        }


def _intervals_to_json(metrics: Metrics) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in metrics.items()}
