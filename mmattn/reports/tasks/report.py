"""The page of a run with tasks: one HTML file that needs nothing from outside, and metrics.json beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.files import write_json, write_text
from mmattn.reports.results import WAYS, Curve, Kind, Panel
from mmattn.reports.sentences import figure_label, joined, signed
from mmattn.reports.svg import TONES, Axis, Chart, bar, chart, dot, dots
from mmattn.reports.tables import write_tables
from mmattn.reports.tasks.results import Taken, TaskOutcome, TaskReport
from mmattn.reports.tasks.tables import task_tables
from mmattn.reports.templating import environment

__all__ = ["render_tasks", "write_task_report"]

_CLASSES_SHOWN = 30  # a larger confusion matrix cannot be read
_DISTURBED = {"attack": "attack along the gradient", "all": "noise on everything"}


def write_task_report(path: str | os.PathLike[str], report: TaskReport) -> None:
    """Write the page to `path`, and metrics.json, tables.md and tables.tex beside it, each atomically.

    Example:
        >>> import tempfile
        >>> from mmattn.evaluation.statistics.bootstrap import bootstrap
        >>> digit = TaskOutcome(
        ...     name="digit", head="classification", target="digit", data="toy", kind="class",
        ...     reads=("image",), parts={"test": 2}, primary="accuracy", lower=frozenset(),
        ...     metrics={"accuracy": bootstrap([0.0, 1.0])})
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_task_report(folder / "report.html", TaskReport("A toy", (digit,), {"seeds": [0]}))
        >>> sorted(file.name for file in folder.iterdir())
        ['metrics.json', 'report.html', 'tables.md', 'tables.tex']
    """
    page = render_tasks(report)
    write_json(Path(path).with_name("metrics.json"), report.to_json())
    write_tables(path, task_tables(report))
    write_text(path, page)


def render_tasks(report: TaskReport) -> str:
    """The page as a string of HTML."""
    page = environment()
    page.filters |= {
        "figure": figure_label,
        "number": lambda value: f"{value:.4f}",
        "signed": signed,
        "count": lambda value: f"{value:,}",
        "percent": lambda value: f"{value:.1%}",
    }
    return page.get_template("tasks.html.j2").render(
        report=report,
        verdict=[_said(task) for task in report.tasks],
        worth=_worth(report),
        gains=_gains(report),
        shown=[_shown(task, report) for task in report.tasks],
        tones=TONES,
        charts=[(panel, chart(panel)) for panel in report.panels if panel.curves],
        provenance={"protocol": report.protocol, **report.provenance},
    )


@dataclass(frozen=True)
class _TakenRow:
    """One content that is taken away.

    Args:
        part: which.
        changes: way -> change of the primary figure.
        drawing: their dots.
        meaning: what the drop says, in a few words.
    """

    part: str
    changes: Mapping[Kind, Interval]
    drawing: Markup
    meaning: str


@dataclass(frozen=True)
class _Shown:
    """A task with all that is drawn of it."""

    task: TaskOutcome
    taken: Sequence[_TakenRow]
    ways: Mapping[Kind, str]
    subsets: Sequence[tuple[str, Interval, Markup]]
    noise: tuple[Panel, Chart] | None
    matrix: Sequence[tuple[str, Sequence[tuple[int, float]]]]


def _shown(task: TaskOutcome, report: TaskReport) -> _Shown:
    taken = [one for one in task.taken if one.kind != "subset"]
    return _Shown(
        task=task,
        taken=_taken_rows(task, taken),
        ways={kind: way for kind, way in WAYS.items() if any(one.kind == kind for one in taken)},
        subsets=_subsets(task),
        noise=_noise(task),
        matrix=_matrix(task),
    )


def _said(task: TaskOutcome) -> str:
    """What came out, in words; nothing is claimed that an interval does not bear out."""
    own = task.metrics[task.primary]
    said = f"{task.name}: {figure_label(task.primary)} {own.mean:.4f} ({own.low:.4f} to {own.high:.4f})."
    if not task.gain:
        return said
    change, alone = task.gain[task.primary], task.alone[task.primary]
    apart = f"{signed(change.mean)} ({signed(change.low)} to {signed(change.high)})"
    return (
        said
        + {
            "gained": f" Trained together it is better than alone ({alone.mean:.4f}): {apart}.",
            "lost": f" Trained together it is worse than alone ({alone.mean:.4f}): {apart}.",
            "even": f" Together and alone ({alone.mean:.4f}) cannot be told apart: {apart}.",
        }[task.outcome]
    )


def _worth(report: TaskReport) -> str:
    """The contents that a task cannot do without, as far as the intervals tell."""
    words = []
    for task in report.tasks:
        dropped = [one for one in task.taken if one.kind == "drop"]
        if needed := [one.part for one in dropped if _meaning(task, one) == "needed"]:
            words.append(f"For {task.name}, {joined(needed)} cannot be left out.")
    return " ".join(words)


def _gains(report: TaskReport) -> list[tuple[TaskOutcome, Markup]]:
    """Together minus alone by each task's first figure, on one axis."""
    compared = [task for task in report.tasks if task.gain]
    axis = _axis([task.gain[task.primary] for task in compared])
    return [(task, dot(task.gain[task.primary], axis, ours=task.outcome == "gained")) for task in compared]


def _taken_rows(task: TaskOutcome, taken: Sequence[Taken]) -> list[_TakenRow]:
    axis = _axis([one.change[task.primary] for one in taken])
    rows = []
    for part in dict.fromkeys(one.part for one in taken):
        own = {one.kind: one for one in taken if one.part == part}
        changes = {kind: one.change[task.primary] for kind, one in own.items()}
        drawing = dots([(change, kind) for kind, change in changes.items()], axis)
        rows.append(_TakenRow(part, changes, drawing, _meaning(task, own["drop"]) if "drop" in own else ""))
    return rows


def _meaning(task: TaskOutcome, taken: Taken) -> str:
    change = taken.change[task.primary]
    if not change.excludes_zero:
        return "no effect shown"
    return "needed" if (change.mean < 0) != (task.primary in task.lower) else "better without"


def _subsets(task: TaskOutcome) -> list[tuple[str, Interval, Markup]]:
    """Every subset of the contents, and all of them, the best first."""
    found = [(one.part, one.metrics[task.primary]) for one in task.taken if one.kind == "subset"]
    if not found:
        return []
    found.append(("all together", task.metrics[task.primary]))
    axis = Axis(0.0, 1.02 * max(interval.high for _, interval in found) or 1.0, ())
    found.sort(key=lambda pair: pair[1].mean, reverse=task.primary not in task.lower)
    return [(name, interval, bar(interval, axis, name == "all together")) for name, interval in found]


def _noise(task: TaskOutcome) -> tuple[Panel, Chart] | None:
    """The first figure against the strength of noise and of attacks, which begin at none of it."""
    curves = []
    for what in dict.fromkeys(one.what for one in task.disturbed):
        own = [one for one in task.disturbed if one.what == what]
        levels = (0.0, *(one.level for one in own))
        height = (task.metrics[task.primary].mean, *(one.metrics[task.primary].mean for one in own))
        curves.append(Curve(_DISTURBED.get(what, f"noise on {what}"), levels, height))
    if not curves:
        return None
    panel = Panel(
        figure_label(task.primary), "strength, as a share of the tokens' norm", tuple(curves), dots=True
    )
    return panel, chart(panel)


def _matrix(task: TaskOutcome) -> list[tuple[str, list[tuple[int, float]]]]:
    """True class -> (count, share of the row) of every class said."""
    if task.confusion is None or len(task.confusion) > _CLASSES_SHOWN or len(task.confusion) < 2:
        return []
    totals = task.confusion.sum(1, keepdims=True).clip(min=1)
    shares = task.confusion / totals
    return [
        (name, list(zip(row.tolist(), share.tolist(), strict=True)))
        for name, row, share in zip(task.names, task.confusion, shares, strict=True)
    ]


def _axis(intervals: Sequence[Interval]) -> Axis:
    """With zero in sight and a little air at the ends."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - air, max(ends) + air, ())
