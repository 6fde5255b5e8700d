"""The items that tasks learn from: of one card or of several, side by side in one list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.array_types import Bools, Ints
from mmattn.data.dataset import Dataset
from mmattn.data.reader import read_dataset
from mmattn.errors import InputError, PluginError, did_you_mean
from mmattn.evaluation.tasks.task_metrics import TaskMetrics
from mmattn.experiments.config import FitConfig, TaskConfig
from mmattn.heads.base import SupervisedHead
from mmattn.registry import heads as head_registry
from mmattn.types import Sample

__all__ = ["PARTS", "TaskData", "TaskRunData", "read_task_data"]

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TaskData:
    """What one task learns from and is measured on.

    Args:
        name: of the task.
        config: what the file says of it.
        head: class of its head.
        card: name of its data set.
        targets: [I] one raw target an item of all cards; None if unknown, and for items of other cards.
        parts: part ("train", "validation", "test") -> rows whose target is known and that have something to
            read, ascending.
        inputs: encoders that it may read and whose contents its items have.
        metrics: how it is measured.
    """

    name: str
    config: TaskConfig
    head: type[SupervisedHead]
    card: str
    targets: Sequence[Any]
    parts: Mapping[str, Ints]
    inputs: tuple[str, ...]
    metrics: TaskMetrics

    def part_targets(self, part: str) -> list[Any]:
        """Return the targets of a part.

        Args:
            part: its name.
        """
        return [self.targets[row] for row in self.parts[part]]

    def seed_split(self, seed: int, validation_fraction: float) -> dict[str, Ints]:
        """Return the parts of a seed; validation is drawn from training if the card has no such part.

        Args:
            seed: of the draw.
            validation_fraction: fraction of the training items.
        """
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
        samples: all items of all cards; ids begin with the card's name if there are several.
        tasks: name -> its data.
    """

    datasets: Mapping[Path, Dataset]
    samples: tuple[Sample, ...]
    tasks: Mapping[str, TaskData]


def read_task_data(config: FitConfig) -> TaskRunData:
    """Read the cards, and check that every task finds what it needs.

    Args:
        config: of a run with tasks.

    Raises:
        InputError: a broken card, a target column that is not there or does not suit its head, no split
            column, a part without targets; the task is named.
    """
    paths = dict.fromkeys(config.card_path(name) for name in config.tasks)
    datasets = {path: read_dataset(path, config.data.reject_limit) for path in paths}
    sizes = [len(dataset.items) for dataset in datasets.values()]
    offsets = dict(zip(paths, np.cumsum([0, *sizes]), strict=False))
    samples = [
        Sample(f"{dataset.card.name}/{item.id}", item.content) if len(datasets) > 1 else item
        for dataset in datasets.values()
        for item in dataset.items
    ]
    tasks = {}
    for name in config.tasks:
        path = config.card_path(name)
        tasks[name] = _read_task(name, config, datasets[path], offsets[path], len(samples))
    return TaskRunData(datasets, tuple(samples), tasks)


def _read_task(name: str, config: FitConfig, dataset: Dataset, offset: int, num_samples: int) -> TaskData:
    task, where = config.tasks[name], f"tasks.{name}"
    head = _load_head(where, task)
    card_targets = _card_targets(where, task, head, dataset)
    try:
        metrics = head.metrics([target for target in card_targets if target is not None], task.metric)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    targets: list[Any] = [None] * num_samples
    targets[offset : offset + len(card_targets)] = card_targets
    inputs = tuple(
        encoder
        for encoder, source in config.sources.items()
        if encoder in (task.inputs or config.encoders)
        and any(source in item.content for item in dataset.items)
    )
    if not inputs:
        raise InputError(
            f"{where}: {dataset.card.name} has nothing for the encoders "
            f"{', '.join(task.inputs or config.encoders)}; its contents are {', '.join(dataset.modalities)}"
        )
    sources = {config.sources[encoder] for encoder in inputs}
    readable = np.array([not sources.isdisjoint(item.content) for item in dataset.items])
    parts = _parts(where, task.target, card_targets, readable, dataset)
    shifted = {part: rows + offset for part, rows in parts.items()}
    data = TaskData(name, task, head, dataset.card.name, targets, shifted, inputs, metrics)
    _log_task(data)
    return data


def _load_head(where: str, task: TaskConfig) -> type[SupervisedHead]:
    """The class of the task's head."""
    try:
        head = head_registry.load(task.head.name)
    except PluginError as error:
        raise InputError(f"{where}.head: {error}") from error
    if not (isinstance(head, type) and issubclass(head, SupervisedHead)):
        raise InputError(
            f"{where}.head: {task.head.name!r} does not learn from targets, expected a subclass of "
            "mmattn.heads.base.SupervisedHead"
        )
    return head


def _card_targets(
    where: str, task: TaskConfig, head: type[SupervisedHead], dataset: Dataset
) -> tuple[Any, ...]:
    """The targets of the card's items."""
    role = _column_role(dataset, task.target)
    if task.target not in dataset.targets:
        content = f", where it is content ({role})" if role else ""
        raise InputError(
            f"{where}.target: no target {task.target!r} in {dataset.card.name}{content}."
            f"{did_you_mean(task.target, dataset.targets)}"
        )
    if role not in head.target_roles:
        roles = " or ".join(head.target_roles) or "no column"
        raise InputError(
            f"{where}: the head {task.head.name!r} learns from {roles}, and {task.target!r} is {role} in "
            f"{dataset.card.name}"
        )
    return dataset.targets[task.target]


def _column_role(dataset: Dataset, column: str) -> str:
    """The role of a column: that of its target, where it has one among several uses."""
    uses = dataset.card.items.columns.get(column, ())
    return next((use.role for use in uses if use.is_target), uses[0].role if uses else "")


def _parts(
    where: str, column: str, targets: Sequence[Any], readable: Bools, dataset: Dataset
) -> dict[str, Ints]:
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
    unseen = task.head.unseen_targets(task.part_targets("train"), task.part_targets("test"))
    if unseen:
        log.warning(
            "task %s: never seen in training, so never predicted: %s", task.name, ", ".join(unseen[:10])
        )
