"""What the report of a run with tasks is made of, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Kind, Panel
from mmattn.reports.tasks.examples import TaskExample

__all__ = ["ClassRow", "Disturbance", "Taken", "TaskOutcome", "TaskReport"]

Metrics = Mapping[str, Interval]


@dataclass(frozen=True)
class Taken:
    """The finished model with a content taken away, or with some of the contents alone.

    Args:
        name: key in metrics.json, for example "without-image".
        part: what is taken away; of a subset what is left, joined by " + ".
        kind: in which way, or "subset".
        metrics: figure -> its mean and interval.
        change: figure -> the paired interval of this minus the whole.
    """

    name: str
    part: str
    kind: Kind
    metrics: Metrics
    change: Metrics


@dataclass(frozen=True)
class Disturbance:
    """The finished model on tokens that are disturbed.

    Args:
        what: the modality that the noise is on, "all", or "attack".
        level: how strong, as a share of the tokens' norm.
        metrics: figure -> its mean and interval.
    """

    what: str
    level: float
    metrics: Metrics


@dataclass(frozen=True)
class ClassRow:
    """One class, label, entity type: means over the seeds."""

    name: str
    precision: float
    recall: float
    f1: float
    true: int


@dataclass(frozen=True)
class TaskOutcome:
    """Everything about one task.

    Args:
        name: of the task.
        head: name of its head in the registry.
        target: the column that it learns.
        data: name of its data set.
        kind: of the head.
        reads: the encoders that it may look at.
        parts: part -> items, of the first seed.
        primary: the figure that choices are made by.
        lower: figures of which less is better.
        metrics: figure -> its mean and interval.
        alone: the same, trained by itself; empty where that was not done.
        gain: figure -> the paired interval of together minus alone.
        taken: knockouts and subsets.
        disturbed: noise and attacks.
        classes: one row a class.
        names: of the classes, in the order of the confusion matrix.
        confusion: [C, C] counts over all seeds, truth in rows; None where samples have no single class.
        examples: predictions to look at.
    """

    name: str
    head: str
    target: str
    data: str
    kind: str
    reads: tuple[str, ...]
    parts: Mapping[str, int]
    primary: str
    lower: frozenset[str]
    metrics: Metrics
    alone: Metrics = field(default_factory=dict)
    gain: Metrics = field(default_factory=dict)
    taken: tuple[Taken, ...] = ()
    disturbed: tuple[Disturbance, ...] = ()
    classes: tuple[ClassRow, ...] = ()
    names: tuple[str, ...] = ()
    confusion: NDArray[np.int64] | None = None
    examples: tuple[TaskExample, ...] = ()

    @property
    def outcome(self) -> str:
        """Together against alone, as far as the interval tells: "gained", "lost", "even", or ""."""
        if not self.gain:
            return ""
        change = self.gain[self.primary]
        if not change.excludes_zero:
            return "even"
        return "gained" if (change.mean > 0) != (self.primary in self.lower) else "lost"

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return {
            "head": self.head,
            "target": self.target,
            "data": self.data,
            "parts": dict(self.parts),
            "primary": self.primary,
            "figures": _plain(self.metrics),
            "alone": _plain(self.alone),
            "gain": _plain(self.gain),
            "outcome": self.outcome,
            "knockouts": {one.name: _plain(one.metrics) for one in self.taken},
            "changes": {one.name: _plain(one.change) for one in self.taken},
            "disturbed": [
                {"what": one.what, "level": one.level, "figures": _plain(one.metrics)}
                for one in self.disturbed
            ],
            "classes": [vars(row) for row in self.classes],
            "confusion": None
            if self.confusion is None
            else {"names": list(self.names), "counts": self.confusion.tolist()},
        }


@dataclass(frozen=True)
class TaskReport:
    """Everything the page shows and metrics.json holds.

    Args:
        title: of the run.
        tasks: one outcome each.
        protocol: settings for machines, into metrics.json as they are.
        protocol_words: the same for people, a sentence or two each.
        data: name of a data set -> what is said of it.
        panels: learning curves.
        provenance: section -> a mapping or a text.
    """

    title: str
    tasks: tuple[TaskOutcome, ...]
    protocol: Mapping[str, Any]
    protocol_words: Sequence[str] = ()
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    panels: tuple[Panel, ...] = ()
    provenance: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json; `systems` has every task's figures in one row, as other runs do."""
        systems = {"mmattn": self._row("metrics")}
        if any(task.alone for task in self.tasks):
            systems["alone"] = self._row("alone")
        return {
            "protocol": dict(self.protocol),
            "systems": systems,
            "tasks": {task.name: task.to_json() for task in self.tasks},
        }

    def _row(self, which: str) -> dict[str, Any]:
        return {
            f"{task.name} {figure}": interval.to_json()
            for task in self.tasks
            for figure, interval in getattr(task, which).items()
        }


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in metrics.items()}
