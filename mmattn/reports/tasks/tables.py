"""Tables of a run with tasks: figures, gains, what is taken away, noise, classes."""

from __future__ import annotations

from mmattn.reports.results import ABLATION_LABELS
from mmattn.reports.sentences import task_metric_label
from mmattn.reports.tables import Table, format_difference, format_interval
from mmattn.reports.tasks.results import TaskOutcome, TaskReport

__all__ = ["task_tables"]


def task_tables(report: TaskReport) -> list[Table]:
    """Return a table of all tasks' metrics, and the further tables of each task.

    Args:
        report: of tasks.
    """
    tables = [_metrics_table(report)]
    for task in report.tasks:
        tables += [_ablation_table(task), _subset_table(task), _perturbation_table(task), _class_table(task)]
    return [table for table in tables if table.rows]


def _metrics_table(report: TaskReport) -> Table:
    compared = any(task.gain for task in report.tasks)
    rows = [
        (
            task.name, task_metric_label(name), format_interval(interval),
            *((format_interval(task.single_task[name]) if name in task.single_task else "-",
               format_difference(task.gain[name]) if name in task.gain else "-") if compared else ()),
        )
        for task in report.tasks
        for name, interval in task.metrics.items()
    ]  # fmt: skip
    return Table(
        f"{report.title}: mean and 95% interval over test items",
        ("task", "figure", *(("together", "alone", "together minus alone") if compared else ("mmattn",))),
        tuple(rows),
    )


def _ablation_table(task: TaskOutcome) -> Table:
    parts = dict.fromkeys(ablation.content for ablation in task.ablations if ablation.kind != "subset")
    by_kind = {
        (ablation.content, ablation.kind): format_difference(ablation.change[task.primary_metric])
        for ablation in task.ablations
    }
    kinds = [kind for kind in ABLATION_LABELS if any((part, kind) in by_kind for part in parts)]
    return Table(
        f"{task.name}: change of {task_metric_label(task.primary_metric)} when a content is taken away, "
        f"paired",
        ("content", *(ABLATION_LABELS[kind] for kind in kinds)),
        tuple((part, *(by_kind.get((part, kind), "-") for kind in kinds)) for part in parts),
    )


def _subset_table(task: TaskOutcome) -> Table:
    subsets = [ablation for ablation in task.ablations if ablation.kind == "subset"]
    return Table(
        f"{task.name}: with some of the contents only",
        ("contents", *map(task_metric_label, task.metrics)),
        tuple(
            (
                subset.content,
                *(
                    format_interval(subset.metrics[name]) if name in subset.metrics else "-"
                    for name in task.metrics
                ),
            )
            for subset in subsets
        ),
    )


def _perturbation_table(task: TaskOutcome) -> Table:
    return Table(
        f"{task.name}: {task_metric_label(task.primary_metric)} on disturbed tokens; strength as a share of "
        f"the norm",
        ("noise on, or attack", "strength", task_metric_label(task.primary_metric)),
        tuple(
            (
                perturbation.target,
                f"{perturbation.level:g}",
                format_interval(perturbation.metrics[task.primary_metric]),
            )
            for perturbation in task.perturbations
        ),
    )


def _class_table(task: TaskOutcome) -> Table:
    return Table(
        f"{task.name}: classes, means over the seeds",
        ("class", "precision", "recall", "F1", "true"),
        tuple(
            (row.name, f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", f"{row.support:,}")
            for row in task.classes
        ),
    )
