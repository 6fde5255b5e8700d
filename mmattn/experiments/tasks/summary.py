"""From the seeds of a run with tasks to its report: intervals, gains, knockouts, curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn import schema
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_figures, paired_figures
from mmattn.evaluation.tasks.classification import confusion
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection
from mmattn.experiments.ablation import PREFIXES
from mmattn.experiments.provenance import made_with
from mmattn.experiments.tasks.data import TaskData
from mmattn.experiments.tasks.run import TaskRun
from mmattn.experiments.tasks.seed import ALONE, WHOLE, TaskResult
from mmattn.reports.results import Curve, Kind, Panel
from mmattn.reports.tasks.examples import examples_of
from mmattn.reports.tasks.report import write_task_report
from mmattn.reports.tasks.results import ClassRow, Disturbance, Taken, TaskOutcome, TaskReport
from mmattn.training.loop import History

__all__ = ["summarise_tasks"]


def summarise_tasks(run: TaskRun, results: Sequence[TaskResult]) -> TaskReport:
    """Write report.html and metrics.json into the run's folder."""
    report = TaskReport(
        title=run.config.name,
        tasks=tuple(_outcome(run, task, results) for task in run.tasks.values()),
        protocol={
            **schema.to_mapping(run.config.protocol),
            "weighting": schema.to_mapping(run.config.weighting),
            "intervals": "95% bootstrap over test items",
        },
        protocol_words=_in_words(run, results),
        data={one.card.name: _described(one) for one in run.items.datasets.values()},
        panels=tuple(_panels(run, results)),
        provenance=made_with(run, results),
    )
    write_task_report(run.folder / "report.html", report)
    return report


def _outcome(run: TaskRun, task: TaskData, results: Sequence[TaskResult]) -> TaskOutcome:
    def counts(variant: str) -> list[NDArray[np.float64]]:
        return [result.counts[task.name][variant] for result in results]

    figures, whole = task.measure.figures, counts(WHOLE)
    has_alone = all(ALONE in result.counts[task.name] for result in results)
    return TaskOutcome(
        name=task.name,
        head=task.config.head.name,
        target=task.config.target,
        data=task.card,
        kind=task.kind,
        reads=task.reads,
        parts=results[0].parts[task.name],
        primary=task.measure.primary,
        lower=task.measure.lower,
        metrics={**bootstrap_figures(whole, figures), **_average_precision(task, results)},
        alone=bootstrap_figures(counts(ALONE), figures) if has_alone else {},
        gain=paired_figures(whole, counts(ALONE), figures) if has_alone else {},
        taken=tuple(_taken(run, task, results)),
        disturbed=tuple(_disturbed(task, results)),
        classes=_classes(task, whole),
        confusion=_confusion(task, results),
        names=task.measure.names,
        examples=examples_of(task, results[0], run.items.samples, run.config.sources),
    )


def _average_precision(task: TaskData, results: Sequence[TaskResult]) -> dict[str, Interval]:
    """Of boxes: no function of counts, with a bootstrap of its own."""
    if task.kind != "boxes":
        return {}
    found = bootstrap_detection([one.predictions[task.name] for one in results], task.learned("test"))
    return {name: found[name] for name in ("ap50", "map")}


def _variants(task: TaskData, results: Sequence[TaskResult]) -> list[str]:
    """Those that every seed has, in the order of the first."""
    return [
        name
        for name in results[0].counts[task.name]
        if all(name in result.counts[task.name] for result in results)
    ]


def _taken(run: TaskRun, task: TaskData, results: Sequence[TaskResult]) -> Iterator[Taken]:
    kinds: dict[str, Kind] = {prefix: kind for kind, prefix in PREFIXES.items()} | {"only": "subset"}
    whole = [result.counts[task.name][WHOLE] for result in results]
    contents = list(dict.fromkeys(run.config.sources[name] for name in task.reads))
    for name in _variants(task, results):
        prefix, dash, part = name.partition("-")
        if not dash or prefix not in kinds:
            continue
        counts = [result.counts[task.name][name] for result in results]
        metrics = bootstrap_figures(counts, task.measure.figures)
        change = paired_figures(counts, whole, task.measure.figures)
        kind = kinds[prefix]
        yield Taken(name, part.replace("+", " + "), kind, metrics, change)
        if kind == "drop" and part in contents and run.config.robustness.subsets:
            # A subset that lacks one content is the drop of that content: measured once, shown as both.
            left = [content for content in contents if content != part]
            yield Taken("only-" + "+".join(left), " + ".join(left), "subset", metrics, change)


def _disturbed(task: TaskData, results: Sequence[TaskResult]) -> Iterator[Disturbance]:
    for name in _variants(task, results):
        kind, *words = name.split(" ")
        if kind not in ("noise", "attack"):
            continue
        counts = [result.counts[task.name][name] for result in results]
        what = " ".join(words[:-1]) or kind
        yield Disturbance(what, float(words[-1]), bootstrap_figures(counts, task.measure.figures))


def _classes(task: TaskData, whole: Sequence[NDArray[np.float64]]) -> tuple[ClassRow, ...]:
    rows = task.measure.rows(np.stack([counts.sum(0) for counts in whole]))
    return tuple(
        ClassRow(
            name=name,
            precision=float(columns["precision"].mean()),
            recall=float(columns["recall"].mean()),
            f1=float(columns["f1"].mean()),
            true=int(columns["true"][0]),
        )
        for name, columns in rows.items()
        if columns["true"].any()
    )


def _confusion(task: TaskData, results: Sequence[TaskResult]) -> NDArray[np.int64] | None:
    if task.kind != "class":
        return None
    said = [name for result in results for name in result.predictions[task.name]]
    counts_CC, _ = confusion(said, task.learned("test") * len(results), task.measure.names)
    return counts_CC


def _described(dataset: Any) -> dict[str, Any]:
    summary = dataset.summary()
    card = dataset.card
    return {
        "about": " ".join(part for part in (card.description, card.licence) if part),
        "items": summary["items"],
        "presence": summary["presence"],
        "parts": {name or "none": count for name, count in summary["item_splits"].items()},
        "rejected": dict(summary["rejected"]),
    }


def _panels(run: TaskRun, results: Sequence[TaskResult]) -> Iterator[Panel]:
    """Loss and validation figure of every task, together and alone, a curve a seed."""
    for name, task in run.tasks.items():
        wanted = {f"loss {name}": f"{name}: training loss"}
        wanted[f"{name} {task.measure.primary}"] = f"{name}: {task.measure.primary} on validation"
        for key, title in wanted.items():
            curves = [
                *(_curve(f"seed {one.seed}", one.history, key) for one in results),
                *(
                    _curve(f"seed {one.seed}, alone", one.alone[name], key)
                    for one in results
                    if name in one.alone
                ),
            ]
            yield Panel(title, "epoch", tuple(curves))


def _curve(label: str, history: History, key: str) -> Curve:
    return Curve(
        label,
        x=tuple(row["epoch"] for row in history.rows),
        y=tuple(row[key] for row in history.rows),
        chosen=float(history.best_epoch) if history.best_epoch and not key.startswith("loss ") else None,
    )


def _in_words(run: TaskRun, results: Sequence[TaskResult]) -> tuple[str, ...]:
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
    if results[0].alone:
        words.append(
            "Alone: a model of the same encoders and core with that head only, the same seed, as many steps "
            "with as many items of the task; its epoch is chosen by its own figure."
        )
    return tuple(words)
