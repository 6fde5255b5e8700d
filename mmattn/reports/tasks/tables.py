"""Tables of a run with tasks: figures, gains, what is taken away, noise, classes."""

from __future__ import annotations

from mmattn.reports.results import WAYS
from mmattn.reports.sentences import figure_label
from mmattn.reports.tables import Table, change, value
from mmattn.reports.tasks.results import TaskOutcome, TaskReport

__all__ = ["task_tables"]


def task_tables(report: TaskReport) -> list[Table]:
    """One of all tasks' figures; then, of each task, those that it has something to say in."""
    found = [_figures(report)]
    for task in report.tasks:
        found += [_taken(task), _subsets(task), _disturbed(task), _classes(task)]
    return [table for table in found if table.rows]


def _figures(report: TaskReport) -> Table:
    compared = any(task.gain for task in report.tasks)
    rows = [
        (
            task.name, figure_label(name), value(interval),
            *((value(task.alone[name]) if name in task.alone else "-",
               change(task.gain[name]) if name in task.gain else "-") if compared else ()),
        )
        for task in report.tasks
        for name, interval in task.metrics.items()
    ]  # fmt: skip
    return Table(
        f"{report.title}: mean and 95% interval over test items",
        ("task", "figure", *(("together", "alone", "together minus alone") if compared else ("mmattn",))),
        tuple(rows),
    )


def _taken(task: TaskOutcome) -> Table:
    parts = dict.fromkeys(one.part for one in task.taken if one.kind != "subset")
    own = {(one.part, one.kind): change(one.change[task.primary]) for one in task.taken}
    kinds = [kind for kind in WAYS if any((part, kind) in own for part in parts)]
    return Table(
        f"{task.name}: change of {figure_label(task.primary)} when a content is taken away, paired",
        ("content", *(WAYS[kind] for kind in kinds)),
        tuple((part, *(own.get((part, kind), "-") for kind in kinds)) for part in parts),
    )


def _subsets(task: TaskOutcome) -> Table:
    subsets = [one for one in task.taken if one.kind == "subset"]
    return Table(
        f"{task.name}: with some of the contents only",
        ("contents", *map(figure_label, task.metrics)),
        tuple(
            (one.part, *(value(one.metrics[name]) if name in one.metrics else "-" for name in task.metrics))
            for one in subsets
        ),
    )


def _disturbed(task: TaskOutcome) -> Table:
    return Table(
        f"{task.name}: {figure_label(task.primary)} on disturbed tokens; strength as a share of the norm",
        ("noise on, or attack", "strength", figure_label(task.primary)),
        tuple((one.what, f"{one.level:g}", value(one.metrics[task.primary])) for one in task.disturbed),
    )


def _classes(task: TaskOutcome) -> Table:
    return Table(
        f"{task.name}: classes, means over the seeds",
        ("class", "precision", "recall", "F1", "true"),
        tuple(
            (row.name, f"{row.precision:.4f}", f"{row.recall:.4f}", f"{row.f1:.4f}", f"{row.true:,}")
            for row in task.classes
        ),
    )
