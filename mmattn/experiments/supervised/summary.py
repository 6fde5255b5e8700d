"""From the seeds of a run with tasks to its report: intervals, gains, ablations, curves, examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mmattn import schema
from mmattn.array_types import Floats, Ints
from mmattn.data.dataset import Dataset
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_metrics, paired_bootstrap_metrics
from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples
from mmattn.experiments.ablation import ABLATION_PREFIXES
from mmattn.experiments.config import FitConfig
from mmattn.experiments.provenance import provenance
from mmattn.experiments.seed_result import FULL, SINGLE_TASK, SeedResult, TaskResult
from mmattn.experiments.summary import common_keys, learning_curve
from mmattn.experiments.supervised.data import TaskData, TaskRunData
from mmattn.reports.results import AblationKind, Panel
from mmattn.reports.tasks.results import ClassRow, Perturbation, TaskAblation, TaskOutcome, TaskReport

__all__ = ["summarize_tasks"]


def summarize_tasks(
    config: FitConfig,
    data: TaskRunData,
    results: Sequence[SeedResult],
    device: torch.device,
) -> TaskReport:
    """Return the report of a run with tasks.

    Args:
        config: of the run.
        data: its data.
        results: of all seeds.
        device: that it ran on.
    """
    return TaskReport(
        title=config.name,
        tasks=tuple(_outcome(config, data, task, results) for task in data.tasks.values()),
        protocol={
            "seeds": list(config.protocol.seeds),
            "validation": config.protocol.validation,
            "weighting": schema.to_mapping(config.weighting),
            "intervals": "95% bootstrap over test items",
        },
        protocol_sentences=_protocol_sentences(config, data, results),
        data={dataset.card.name: _describe_dataset(dataset) for dataset in data.datasets.values()},
        learning_curves=tuple(_learning_curves(data, results)),
        provenance=provenance(config, results, device),
    )


def _outcome(
    config: FitConfig, data: TaskRunData, task: TaskData, seeds: Sequence[SeedResult]
) -> TaskOutcome:
    results = [seed.tasks[task.name] for seed in seeds]
    compute, targets = task.metrics.compute, task.part_targets("test")
    decode = task.head.prediction_from_json
    predictions = [[decode(value) for value in result.predictions] for result in results]
    whole = [result.counts[FULL] for result in results]
    alone = [result.counts[SINGLE_TASK] for result in results if SINGLE_TASK in result.counts]
    has_alone = len(alone) == len(results)
    return TaskOutcome(
        name=task.name,
        head=task.config.head.name,
        target=task.config.target,
        data=task.card,
        inputs=task.inputs,
        parts=seeds[0].part_sizes[task.name],
        primary_metric=task.metrics.primary_metric,
        lower_is_better=task.metrics.lower_is_better,
        metrics=bootstrap_metrics(whole, compute) | task.metrics.extra_intervals(predictions, targets),
        single_task=bootstrap_metrics(alone, compute) if has_alone else {},
        gain=paired_bootstrap_metrics(whole, alone, compute) if has_alone else {},
        ablations=tuple(_ablations(config, task, results)),
        perturbations=tuple(_perturbations(task, results)),
        classes=_class_rows(task, whole),
        confusion=_confusion(task, predictions),
        class_names=task.metrics.class_names,
        examples=_examples(config, data, task, predictions[0]),
    )


def _ablations(config: FitConfig, task: TaskData, results: Sequence[TaskResult]) -> Iterator[TaskAblation]:
    kinds: dict[str, AblationKind] = {prefix: kind for kind, prefix in ABLATION_PREFIXES.items()} | {
        "only": "subset"
    }
    whole = [result.counts[FULL] for result in results]
    contents = list(config.modalities_by_source(task.inputs))
    for name in common_keys(results, "counts"):
        prefix, dash, part = name.partition("-")
        if not dash or prefix not in kinds:
            continue
        counts = [result.counts[name] for result in results]
        metrics = bootstrap_metrics(counts, task.metrics.compute)
        change = paired_bootstrap_metrics(counts, whole, task.metrics.compute)
        kind = kinds[prefix]
        yield TaskAblation(name, part.replace("+", " + "), kind, metrics, change)
        if kind == "drop" and part in contents and config.evaluation.subsets:
            # A subset that lacks one content is the drop of that content: measured once, shown as both.
            left = [content for content in contents if content != part]
            yield TaskAblation("only-" + "+".join(left), " + ".join(left), "subset", metrics, change)


def _perturbations(task: TaskData, results: Sequence[TaskResult]) -> Iterator[Perturbation]:
    for name in common_keys(results, "counts"):
        kind, *words = name.split(" ")
        if kind in ("noise", "attack"):
            counts = [result.counts[name] for result in results]
            metrics = bootstrap_metrics(counts, task.metrics.compute)
            yield Perturbation(" ".join(words[:-1]) or kind, float(words[-1]), metrics)


def _class_rows(task: TaskData, counts: Sequence[Floats]) -> tuple[ClassRow, ...]:
    rows = task.metrics.per_class(np.stack([of_seed.sum(0) for of_seed in counts]))
    return tuple(
        ClassRow(
            name=name,
            precision=float(columns["precision"].mean()),
            recall=float(columns["recall"].mean()),
            f1=float(columns["f1"].mean()),
            support=int(columns["support"][0]),
        )
        for name, columns in rows.items()
        if columns["support"].any()
    )


def _confusion(task: TaskData, predictions: Sequence[Sequence[Any]]) -> Ints | None:
    together = [prediction for of_seed in predictions for prediction in of_seed]
    return task.metrics.confusion(together, task.part_targets("test") * len(predictions))


def _examples(
    config: FitConfig, data: TaskRunData, task: TaskData, predictions: Sequence[Any]
) -> TaskExamples:
    sources = config.modalities_by_source(task.inputs)
    items = []
    for row, target, prediction in zip(
        task.parts["test"], task.part_targets("test"), predictions, strict=True
    ):
        sample = data.samples[row]
        contents = {name: content for name, content in sample.content.items() if name in sources}
        items.append(PredictedItem(sample.id, contents, target, prediction))
    return task.head.examples(items)


def _describe_dataset(dataset: Dataset) -> dict[str, Any]:
    summary, card = dataset.summary(), dataset.card
    return {
        "about": " ".join(part for part in (card.description, card.licence) if part),
        "items": summary["items"],
        "presence": summary["presence"],
        "parts": {name or "none": count for name, count in summary["item_splits"].items()},
        "rejected": dict(summary["rejected"]),
    }


def _learning_curves(data: TaskRunData, results: Sequence[SeedResult]) -> Iterator[Panel]:
    """Loss and validation metric of every task, joint and alone, a curve a seed."""
    for name, task in data.tasks.items():
        metric = task.metrics.primary_metric
        titles = {
            f"loss {name}": f"{name}: training loss",
            f"{name} {metric}": f"{name}: {metric} on validation",
        }
        for key, title in titles.items():
            histories = {f"seed {result.seed}": result.history for result in results}
            for result in results:
                if (alone := result.tasks[name].single_task_history) is not None:
                    histories[f"seed {result.seed}, alone"] = alone
            show = not key.startswith("loss ")
            curves = [
                learning_curve(label, history, key, show_selected=show)
                for label, history in histories.items()
            ]
            yield Panel(title, "epoch", tuple(curves))


def _protocol_sentences(
    config: FitConfig, data: TaskRunData, results: Sequence[SeedResult]
) -> tuple[str, ...]:
    several, seeds = len(data.tasks) > 1, config.protocol.seeds
    held_out = "the card's validation part"
    if not all(len(task.parts["validation"]) for task in data.tasks.values()):
        held_out += f", or {config.protocol.validation:.0%} of the training items if it has none"
    best = "mean score of the tasks" if several else "score"
    sentences = [
        "Training, validation and test are the parts that the card names. The test part was scored once, by "
        f"the finished models. Every choice was made on {held_out}: the epoch kept is the one with the best "
        f"{best} there.",
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({', '.join(map(str, seeds))}) of weights, "
        "batches and augmentation.",
    ]
    if several:
        weighting = config.weighting if isinstance(config.weighting, str) else config.weighting.get("name")
        sentences.append(
            "One model for all tasks: each step takes a batch of each, and their losses are combined by "
            f"{weighting} weights."
        )
    if any(task.single_task_history is not None for task in results[0].tasks.values()):
        sentences.append(
            "Single task: a model of the same encoders and core with that head only, the same seed, and as "
            "many steps with as many items of the task; its epoch is selected by its own score."
        )
    return tuple(sentences)
