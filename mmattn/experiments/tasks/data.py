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
from mmattn.data.reader import read
from mmattn.errors import InputError, PluginError, nearest
from mmattn.evaluation.tasks.speaker_verification import VoicesMeasure
from mmattn.evaluation.tasks.task_metrics import Measure, measure_for
from mmattn.evaluation.tasks.translation import TranslationMeasure
from mmattn.experiments.tasks.config import TaskConfig, TaskFitConfig
from mmattn.heads.base import SupervisedHead
from mmattn.registry import heads as head_registry
from mmattn.types import Sample

__all__ = ["PARTS", "TaskData", "TaskItems", "read_items"]

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
# What a head of each kind learns from, by the role of the column.
_ROLES: Mapping[str, tuple[str, ...]] = {
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
        reads: encoders that it may look at and whose contents its items have.
        kind: of its head.
        measure: how it is measured.
    """

    name: str
    config: TaskConfig
    card: str
    targets: Sequence[Any]
    parts: Mapping[str, NDArray[np.int64]]
    reads: tuple[str, ...]
    kind: str
    measure: Measure

    def learned(self, part: str) -> list[Any]:
        """The targets of a part."""
        return [self.targets[row] for row in self.parts[part]]

    def drawn(self, seed: int, share: float) -> dict[str, NDArray[np.int64]]:
        """The parts of a seed: training items are drawn for validation where the card has no such part."""
        if len(self.parts["validation"]):
            return dict(self.parts)
        rows = np.random.default_rng(seed).permutation(self.parts["train"])
        cut = max(1, round(share * len(rows)))
        return {"train": np.sort(rows[cut:]), "validation": np.sort(rows[:cut]), "test": self.parts["test"]}


@dataclass(frozen=True)
class TaskItems:
    """Everything that a run with tasks reads.

    Args:
        datasets: the cards' data, by path.
        samples: all items of all cards; ids begin with the card's name where there are several.
        tasks: name -> its data.
    """

    datasets: Mapping[Path, Dataset]
    samples: tuple[Sample, ...]
    tasks: Mapping[str, TaskData]


def read_items(config: TaskFitConfig) -> TaskItems:
    """Read the cards, and check that every task finds what it needs.

    Raises:
        InputError: a broken card, a target column that is not there or does not suit its head, no split
            column, a part without targets; the task is named.
    """
    paths = dict.fromkeys(config.card_of(name) for name in config.tasks)
    datasets = {path: read(path, config.data.reject_limit) for path in paths}
    offsets = dict(zip(paths, np.cumsum([0, *(len(one.items) for one in datasets.values())]), strict=False))
    samples = [
        Sample(f"{one.card.name}/{item.id}", item.content) if len(datasets) > 1 else item
        for one in datasets.values()
        for item in one.items
    ]
    tasks = {
        name: _task(name, config, datasets[config.card_of(name)], offsets[config.card_of(name)], len(samples))
        for name in config.tasks
    }
    return TaskItems(datasets, tuple(samples), tasks)


def _task(name: str, config: TaskFitConfig, dataset: Dataset, first: int, total: int) -> TaskData:
    task, where = config.tasks[name], f"tasks.{name}"
    kind = _kind(where, task)
    own = _own_targets(where, task, kind, dataset)
    targets: list[Any] = [None] * total
    targets[first : first + len(own)] = own
    reads = tuple(
        encoder
        for encoder, source in config.sources.items()
        if encoder in (task.reads or config.encoders)
        and any(source in item.content for item in dataset.items)
    )
    if not reads:
        raise InputError(
            f"{where}: {dataset.card.name} has nothing for the encoders "
            f"{', '.join(task.reads or config.encoders)}; its contents are {', '.join(dataset.modalities)}"
        )
    seen = {config.sources[encoder] for encoder in reads}
    readable = np.array([not seen.isdisjoint(item.content) for item in dataset.items])
    parts = _parts(where, task.target, own, readable, dataset)
    placed = {part: rows + first for part, rows in parts.items()}
    measure = _measure(kind, task, own)
    found = TaskData(name, task, dataset.card.name, targets, placed, reads, kind, measure)
    _say(found)
    return found


def _kind(where: str, task: TaskConfig) -> str:
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
    if head.kind not in _ROLES:
        raise InputError(f"{where}.head: {task.head.name!r} gives a {head.kind}, which is not measured here")
    return head.kind


def _measure(kind: str, task: TaskConfig, targets: Sequence[Any]) -> Measure:
    if kind == "text" and task.measure == "translation":
        return TranslationMeasure()
    return VoicesMeasure() if kind == "vector" else measure_for(kind, targets)


def _own_targets(where: str, task: TaskConfig, kind: str, dataset: Dataset) -> tuple[Any, ...]:
    """The targets of the card's items."""
    role = _role(dataset, task.target)
    if task.target not in dataset.targets:
        content = f", where it is content ({role})" if role else ""
        raise InputError(
            f"{where}.target: no target {task.target!r} in {dataset.card.name}{content}."
            f"{nearest(task.target, dataset.targets)}"
        )
    if role not in _ROLES[kind]:
        raise InputError(
            f"{where}: the head {task.head.name!r} learns from {' or '.join(_ROLES[kind])}, and "
            f"{task.target!r} is {role} in {dataset.card.name}"
        )
    return dataset.targets[task.target]


def _role(dataset: Dataset, column: str) -> str:
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


def _say(task: TaskData) -> None:
    counts = {part: len(rows) for part, rows in task.parts.items()}
    log.info(
        "task %s: %s of %r from %s; %d items to learn from, %s to choose on, %d to test",
        task.name, task.config.head.name, task.config.target, ", ".join(task.reads), counts["train"],
        counts["validation"] or "some of them", counts["test"],
    )  # fmt: skip
    if task.kind == "class":
        unseen = sorted(set(task.learned("test")) - set(task.learned("train")))
        if unseen:
            log.warning(
                "task %s: never seen in training, so never predicted: %s", task.name, ", ".join(unseen[:10])
            )
