"""From the seeds of a run with tasks to its report: intervals, gains, knockouts, curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn import schema
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_metrics, paired_bootstrap_metrics
from mmattn.evaluation.tasks.classification import confusion_matrix
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection
from mmattn.experiments.ablation import ABLATION_PREFIXES
from mmattn.experiments.provenance import common_provenance
from mmattn.experiments.tasks.data import TaskData
from mmattn.experiments.tasks.examples import examples_of
from mmattn.experiments.tasks.run import TaskExperiment
from mmattn.experiments.tasks.seed import FULL, SINGLE_TASK, TaskSeedResult
from mmattn.reports.results import AblationKind, Curve, Panel
from mmattn.reports.tasks.report import write_task_report
from mmattn.reports.tasks.results import ClassRow, Perturbation, TaskAblation, TaskOutcome, TaskReport
from mmattn.training.loop import History

__all__ = ["summarise_tasks"]


def summarise_tasks(run: TaskExperiment, results: Sequence[TaskSeedResult]) -> TaskReport:
    """Write report.html and metrics.json into the run's folder."""
    report = TaskReport(
        title=run.config.name,
        tasks=tuple(_outcome(run, task, results) for task in run.tasks.values()),
        protocol={
            **schema.to_mapping(run.config.protocol),
            "weighting": schema.to_mapping(run.config.weighting),
            "intervals": "95% bootstrap over test items",
        },
        protocol_sentences=_protocol_sentences(run, results),
        data={one.card.name: _describe_dataset(one) for one in run.data.datasets.values()},
        panels=tuple(_learning_curves(run, results)),
        provenance=common_provenance(run, results),
    )
    write_task_report(run.folder / "report.html", report)
    return report


def _outcome(run: TaskExperiment, task: TaskData, results: Sequence[TaskSeedResult]) -> TaskOutcome:
    def counts(variant: str) -> list[NDArray[np.float64]]:
        return [result.counts[task.name][variant] for result in results]

    figures, whole = task.metrics.compute, counts(FULL)
    has_alone = all(SINGLE_TASK in result.counts[task.name] for result in results)
    return TaskOutcome(
        name=task.name,
        head=task.config.head.name,
        target=task.config.target,
        data=task.card,
        kind=task.kind,
        inputs=task.inputs,
        parts=results[0].parts[task.name],
        primary_metric=task.metrics.primary_metric,
        lower_is_better=task.metrics.lower_is_better,
        metrics={**bootstrap_metrics(whole, figures), **_average_precision(task, results)},
        single_task=bootstrap_metrics(counts(SINGLE_TASK), figures) if has_alone else {},
        gain=paired_bootstrap_metrics(whole, counts(SINGLE_TASK), figures) if has_alone else {},
        ablations=tuple(_ablations(run, task, results)),
        perturbations=tuple(_perturbations(task, results)),
        classes=_class_rows(task, whole),
        confusion=_confusion(task, results),
        class_names=task.metrics.class_names,
        examples=examples_of(task, results[0], run.data.samples, run.config.sources),
    )


def _average_precision(task: TaskData, results: Sequence[TaskSeedResult]) -> dict[str, Interval]:
    """Of boxes: no function of counts, with a bootstrap of its own."""
    if task.kind != "boxes":
        return {}
    found = bootstrap_detection([one.predictions[task.name] for one in results], task.part_targets("test"))
    return {name: found[name] for name in ("ap50", "map")}


def _common_variants(task: TaskData, results: Sequence[TaskSeedResult]) -> list[str]:
    """Those that every seed has, in the order of the first."""
    return [
        name
        for name in results[0].counts[task.name]
        if all(name in result.counts[task.name] for result in results)
    ]


def _ablations(
    run: TaskExperiment, task: TaskData, results: Sequence[TaskSeedResult]
) -> Iterator[TaskAblation]:
    kinds: dict[str, AblationKind] = {prefix: kind for kind, prefix in ABLATION_PREFIXES.items()} | {
        "only": "subset"
    }
    whole = [result.counts[task.name][FULL] for result in results]
    contents = list(dict.fromkeys(run.config.sources[name] for name in task.inputs))
    for name in _common_variants(task, results):
        prefix, dash, part = name.partition("-")
        if not dash or prefix not in kinds:
            continue
        counts = [result.counts[task.name][name] for result in results]
        metrics = bootstrap_metrics(counts, task.metrics.compute)
        change = paired_bootstrap_metrics(counts, whole, task.metrics.compute)
        kind = kinds[prefix]
        yield TaskAblation(name, part.replace("+", " + "), kind, metrics, change)
        if kind == "drop" and part in contents and run.config.robustness.subsets:
            # A subset that lacks one content is the drop of that content: measured once, shown as both.
            left = [content for content in contents if content != part]
            yield TaskAblation("only-" + "+".join(left), " + ".join(left), "subset", metrics, change)


def _perturbations(task: TaskData, results: Sequence[TaskSeedResult]) -> Iterator[Perturbation]:
    for name in _common_variants(task, results):
        kind, *words = name.split(" ")
        if kind not in ("noise", "attack"):
            continue
        counts = [result.counts[task.name][name] for result in results]
        what = " ".join(words[:-1]) or kind
        yield Perturbation(what, float(words[-1]), bootstrap_metrics(counts, task.metrics.compute))


def _class_rows(task: TaskData, counts: Sequence[NDArray[np.float64]]) -> tuple[ClassRow, ...]:
    rows = task.metrics.per_class(np.stack([counts.sum(0) for counts in counts]))
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


def _confusion(task: TaskData, results: Sequence[TaskSeedResult]) -> NDArray[np.int64] | None:
    if task.kind != "class":
        return None
    said = [name for result in results for name in result.predictions[task.name]]
    counts_CC, _ = confusion_matrix(said, task.part_targets("test") * len(results), task.metrics.class_names)
    return counts_CC


def _describe_dataset(dataset: Any) -> dict[str, Any]:
    summary = dataset.summary()
    card = dataset.card
    return {
        "about": " ".join(part for part in (card.description, card.licence) if part),
        "items": summary["items"],
        "presence": summary["presence"],
        "parts": {name or "none": count for name, count in summary["item_splits"].items()},
        "rejected": dict(summary["rejected"]),
    }


def _learning_curves(run: TaskExperiment, results: Sequence[TaskSeedResult]) -> Iterator[Panel]:
    """Loss and validation figure of every task, together and alone, a curve a seed."""
    for name, task in run.tasks.items():
        wanted = {f"loss {name}": f"{name}: training loss"}
        wanted[f"{name} {task.metrics.primary_metric}"] = (
            f"{name}: {task.metrics.primary_metric} on validation"
        )
        for key, title in wanted.items():
            curves = [
                *(_curve(f"seed {one.seed}", one.history, key) for one in results),
                *(
                    _curve(f"seed {one.seed}, alone", one.single_task_histories[name], key)
                    for one in results
                    if name in one.single_task_histories
                ),
            ]
            yield Panel(title, "epoch", tuple(curves))


def _curve(label: str, history: History, key: str) -> Curve:
    return Curve(
        label,
        x=tuple(row["epoch"] for row in history.rows),
        y=tuple(row[key] for row in history.rows),
        selected_x=float(history.best_epoch) if history.best_epoch and not key.startswith("loss ") else None,
    )


def _protocol_sentences(run: TaskExperiment, results: Sequence[TaskSeedResult]) -> tuple[str, ...]:
    config, several = run.config, len(run.tasks) > 1
    held_out = "the card's validation part"
    if not all(len(task.parts["validation"]) for task in run.tasks.values()):
        held_out += f", or {config.protocol.validation:.0%} of the training items where it has none"
    seeds = config.protocol.seeds
    best = "mean over the tasks of their first figures" if several else "first figure there"
    words = [
        "Training, validation and test are the parts that the card says. The test part was scored once, by "
        f"the finished models. Every choice was made on {held_out}: the epoch kept is the one with the best "
        f"{best}.",
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'} ({', '.join(map(str, seeds))}) of weights, "
        "batches and augmentation.",
    ]
    if several:
        weighting = config.weighting if isinstance(config.weighting, str) else config.weighting.get("name")
        words.append(
            "One model for all tasks: each step takes a batch of each, and their losses are joined by "
            f"{weighting} weights."
        )
    if results[0].single_task_histories:
        words.append(
            "Alone: a model of the same encoders and core with that head only, the same seed, as many steps "
            "with as many items of the task; its epoch is chosen by its own figure."
        )
    return tuple(words)
