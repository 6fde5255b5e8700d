"""The items that tasks learn from: of one card or of several, side by side in one list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError, PluginError, did_you_mean
from mmattn.evaluation.tasks.metrics_by_kind import metrics_for_kind
from mmattn.evaluation.tasks.speaker_verification import SpeakerVerificationMetrics
from mmattn.evaluation.tasks.task_metrics import TaskMetrics
from mmattn.evaluation.tasks.translation import TranslationMetrics
from mmattn.experiments.tasks.config import TaskConfig, TaskFitConfig
from mmattn.heads.base import SupervisedHead
from mmattn.registry import heads as head_registry
from mmattn.types import Sample

__all__ = ["PARTS", "TaskData", "TaskRunData", "read_task_data"]

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
# What a head of each kind learns from, by the role of the column.
_TARGET_ROLES: Mapping[str, tuple[str, ...]] = {
    "class": ("label",),
    "labels": ("labels",),
    "tags": ("tags",),
    "text": ("transcript", "label"),
    "boxes": ("boxes",),
    "vector": ("label",),
}


@dataclass(frozen=True)
class TaskData:
    """What one task learns from and is measured on.

    Args:
        name: of the task.
        config: what the file says of it.
        card: name of its data set.
        targets: [I] one raw target an item of all cards; None where not known, and for items of other cards.
        parts: part ("train", "validation", "test") -> rows whose target is known and that have something to
            read, ascending.
        inputs: encoders that it may look at and whose contents its items have.
        kind: of its head.
        metrics: how it is measured.
    """

    name: str
    config: TaskConfig
    card: str
    targets: Sequence[Any]
    parts: Mapping[str, NDArray[np.int64]]
    inputs: tuple[str, ...]
    kind: str
    metrics: TaskMetrics

    def part_targets(self, part: str) -> list[Any]:
        """The targets of a part."""
        return [self.targets[row] for row in self.parts[part]]

    def seed_split(self, seed: int, validation_fraction: float) -> dict[str, NDArray[np.int64]]:
        """The parts of a seed: training items are drawn for validation where the card has no such part."""
        if len(self.parts["validation"]):
            return dict(self.parts)
        rows = np.random.default_rng(seed).permutation(self.parts["train"])
        cut = max(1, round(validation_fraction * len(rows)))
        return {"train": np.sort(rows[cut:]), "validation": np.sort(rows[:cut]), "test": self.parts["test"]}


@dataclass(frozen=True)
class TaskRunData:
    """Everything that a run with tasks reads.

    Args:
        datasets: the cards' data, by path.
        samples: all items of all cards; ids begin with the card's name where there are several.
        tasks: name -> its data.
    """

    datasets: Mapping[Path, Dataset]
    samples: tuple[Sample, ...]
    tasks: Mapping[str, TaskData]


def read_task_data(config: TaskFitConfig) -> TaskRunData:
    """Read the cards, and check that every task finds what it needs.

    Raises:
        InputError: a broken card, a target column that is not there or does not suit its head, no split
            column, a part without targets; the task is named.
    """
    paths = dict.fromkeys(config.card_path(name) for name in config.tasks)
    datasets = {path: read_dataset(path, config.data.reject_limit) for path in paths}
    offsets = dict(zip(paths, np.cumsum([0, *(len(one.items) for one in datasets.values())]), strict=False))
    samples = [
        Sample(f"{one.card.name}/{item.id}", item.content) if len(datasets) > 1 else item
        for one in datasets.values()
        for item in one.items
    ]
    tasks = {
        name: _read_task(
            name, config, datasets[config.card_path(name)], offsets[config.card_path(name)], len(samples)
        )
        for name in config.tasks
    }
    return TaskRunData(datasets, tuple(samples), tasks)


def _read_task(name: str, config: TaskFitConfig, dataset: Dataset, offset: int, num_samples: int) -> TaskData:
    task, where = config.tasks[name], f"tasks.{name}"
    kind = _head_kind(where, task)
    own = _card_targets(where, task, kind, dataset)
    targets: list[Any] = [None] * num_samples
    targets[offset : offset + len(own)] = own
    reads = tuple(
        encoder
        for encoder, source in config.sources.items()
        if encoder in (task.inputs or config.encoders)
        and any(source in item.content for item in dataset.items)
    )
    if not reads:
        raise InputError(
            f"{where}: {dataset.card.name} has nothing for the encoders "
            f"{', '.join(task.inputs or config.encoders)}; its contents are {', '.join(dataset.modalities)}"
        )
    seen = {config.sources[encoder] for encoder in reads}
    readable = np.array([not seen.isdisjoint(item.content) for item in dataset.items])
    parts = _parts(where, task.target, own, readable, dataset)
    placed = {part: rows + offset for part, rows in parts.items()}
    measure = _task_metrics(kind, task, own)
    found = TaskData(name, task, dataset.card.name, targets, placed, reads, kind, measure)
    _log_task(found)
    return found


def _head_kind(where: str, task: TaskConfig) -> str:
    """The kind of the task's head."""
    try:
        head = head_registry.load(task.head.name)
    except PluginError as error:
        raise InputError(f"{where}.head: {error}") from error
    if not (isinstance(head, type) and issubclass(head, SupervisedHead)):
        raise InputError(
            f"{where}.head: {task.head.name!r} does not learn from targets, expected a head for classes, "
            "labels, tags, text, boxes or voices"
        )
    if head.kind not in _TARGET_ROLES:
        raise InputError(f"{where}.head: {task.head.name!r} gives a {head.kind}, which is not measured here")
    return head.kind


def _task_metrics(kind: str, task: TaskConfig, targets: Sequence[Any]) -> TaskMetrics:
    if kind == "text" and task.metric == "translation":
        return TranslationMetrics()
    return SpeakerVerificationMetrics() if kind == "vector" else metrics_for_kind(kind, targets)


def _card_targets(where: str, task: TaskConfig, kind: str, dataset: Dataset) -> tuple[Any, ...]:
    """The targets of the card's items."""
    role = _column_role(dataset, task.target)
    if task.target not in dataset.targets:
        content = f", where it is content ({role})" if role else ""
        raise InputError(
            f"{where}.target: no target {task.target!r} in {dataset.card.name}{content}."
            f"{did_you_mean(task.target, dataset.targets)}"
        )
    if role not in _TARGET_ROLES[kind]:
        raise InputError(
            f"{where}: the head {task.head.name!r} learns from {' or '.join(_TARGET_ROLES[kind])}, and "
            f"{task.target!r} is {role} in {dataset.card.name}"
        )
    return dataset.targets[task.target]


def _column_role(dataset: Dataset, column: str) -> str:
    """The role of a column: that of its target, where it has one among several uses."""
    uses = dataset.card.items.columns.get(column, ())
    return next((use.role for use in uses if use.is_target), uses[0].role if uses else "")


def _parts(
    where: str, column: str, targets: Sequence[Any], readable: NDArray[np.bool_], dataset: Dataset
) -> dict[str, NDArray[np.int64]]:
    """Part -> the rows that can be learned from or tested."""
    if dataset.item_split is None:
        raise InputError(
            f"{where}: the card of {dataset.card.name} names no split column, expected one with the parts "
            f"{', '.join(PARTS)}"
        )
    known = np.array([target is not None for target in targets], dtype=bool)
    blind = int((known & ~readable).sum())
    if blind:
        log.info("%s: %d items have a %r and nothing that the task may read; left out", where, blind, column)
    parts = {part: np.flatnonzero(known & readable & (dataset.item_split == part)) for part in PARTS}
    for part, least in (("train", 2), ("test", 1)):
        if len(parts[part]) < least:
            raise InputError(
                f"{where}: {len(parts[part])} items of the part {part!r} in {dataset.card.name} have a "
                f"{column!r} and something to read, expected at least {least}"
            )
    return parts


def _log_task(task: TaskData) -> None:
    counts = {part: len(rows) for part, rows in task.parts.items()}
    log.info(
        "task %s: %s of %r from %s; %d items to learn from, %s to choose on, %d to test",
        task.name, task.config.head.name, task.config.target, ", ".join(task.inputs), counts["train"],
        counts["validation"] or "some of them", counts["test"],
    )  # fmt: skip
    if task.kind == "class":
        unseen = sorted(set(task.part_targets("test")) - set(task.part_targets("train")))
        if unseen:
            log.warning(
                "task %s: never seen in training, so never predicted: %s", task.name, ", ".join(unseen[:10])
            )
