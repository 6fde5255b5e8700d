"""The body of the page of a run with tasks: what its templates are filled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mmattn.encoders.base import Unreadable
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.examples import TaskExample
from mmattn.reports.box_overlay import draw_boxes
from mmattn.reports.results import ABLATION_LABELS, AblationKind, Curve, Panel
from mmattn.reports.sentences import format_signed, join_words, task_metric_label
from mmattn.reports.svg import Axis, Chart, bar, chart, dot, dots
from mmattn.reports.tasks.results import TaskAblation, TaskOutcome, TaskReport

__all__ = ["TASK_FILTERS", "task_context"]

_IMAGE_SIDE = 480  # pixels of an image with boxes
_MAX_CLASSES_SHOWN = 30  # a larger confusion matrix cannot be read
_PERTURBATION_LABELS = {"attack": "gradient attack", "all": "noise on all modalities"}


def task_context(report: TaskReport) -> dict[str, Any]:
    """Return the variables of the templates.

    Args:
        report: of tasks.
    """
    return {
        "verdict": [_summary_sentence(task) for task in report.tasks],
        "needed": _needed_contents(report),
        "gains": _gains(report),
        "sections": [_task_section(task) for task in report.tasks],
    }


@dataclass(frozen=True)
class _AblationRow:
    """One content that is taken away.

    Args:
        content: which.
        changes: way -> change of the primary figure.
        svg: their dots.
        verdict: what the drop says, in a few words.
    """

    content: str
    changes: Mapping[AblationKind, Interval]
    svg: Markup
    verdict: str


@dataclass(frozen=True)
class _ShownExample:
    """An example with its image: boxes are drawn on it, large.

    Args:
        case: the example.
        image: to show; None without one.
        is_large: shown large.
    """

    case: TaskExample
    image: Any
    is_large: bool


@dataclass(frozen=True)
class _TaskSection:
    """A task with all that is drawn of it."""

    task: TaskOutcome
    examples: Sequence[_ShownExample]
    ablations: Sequence[_AblationRow]
    ablation_kinds: Mapping[AblationKind, str]
    subsets: Sequence[tuple[str, Interval, Markup]]
    robustness: tuple[Panel, Chart] | None
    confusion_rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]


def _task_section(task: TaskOutcome) -> _TaskSection:
    taken = [ablation for ablation in task.ablations if ablation.kind != "subset"]
    return _TaskSection(
        task=task,
        examples=[_show_example(case, task.class_names) for case in task.examples.cases],
        ablations=_ablation_rows(task, taken),
        ablation_kinds={
            kind: way for kind, way in ABLATION_LABELS.items() if any(entry.kind == kind for entry in taken)
        },
        subsets=_subsets(task),
        robustness=_robustness_chart(task),
        confusion_rows=_confusion_rows(task),
    )


def _show_example(case: TaskExample, class_names: Sequence[str]) -> _ShownExample:
    if case.predicted_boxes is None and case.target_boxes is None:
        return _ShownExample(case, case.image, is_large=False)
    if case.image is None:
        return _ShownExample(case, None, is_large=True)
    try:
        drawn = draw_boxes(
            case.image, case.target_boxes, case.predicted_boxes,
            labels=class_names, long_side=_IMAGE_SIDE, legend=False,
        )  # fmt: skip
    except Unreadable:
        return _ShownExample(case, None, is_large=True)
    return _ShownExample(case, drawn, is_large=True)


def _summary_sentence(task: TaskOutcome) -> str:
    """What came out, in words; nothing is claimed that an interval does not bear out."""
    interval = task.metrics[task.primary_metric]
    label = task_metric_label(task.primary_metric)
    sentence = f"{task.name}: {label} {interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})."
    if not task.gain:
        return sentence
    change, alone = task.gain[task.primary_metric], task.single_task[task.primary_metric]
    apart = f"{format_signed(change.mean)} ({format_signed(change.low)} to {format_signed(change.high)})"
    return (
        sentence
        + {
            "gained": f" Joint training is better than single-task training ({alone.mean:.4f}): {apart}.",
            "lost": f" Joint training is worse than single-task training ({alone.mean:.4f}): {apart}.",
            "even": f" Joint and single-task training ({alone.mean:.4f}) cannot be told apart: {apart}.",
        }[task.outcome]
    )


def _needed_contents(report: TaskReport) -> str:
    """The contents that a task cannot do without, as far as the intervals tell."""
    words = []
    for task in report.tasks:
        dropped = [ablation for ablation in task.ablations if ablation.kind == "drop"]
        if needed := [entry.content for entry in dropped if _ablation_verdict(task, entry) == "needed"]:
            words.append(f"For {task.name}, {join_words(needed)} cannot be left out.")
    return " ".join(words)


def _gains(report: TaskReport) -> list[tuple[TaskOutcome, Markup]]:
    """Together minus alone by each task's first figure, on one axis."""
    compared = [task for task in report.tasks if task.gain]
    axis = _axis([task.gain[task.primary_metric] for task in compared])
    return [
        (task, dot(task.gain[task.primary_metric], axis, highlight=task.outcome == "gained"))
        for task in compared
    ]


def _ablation_rows(task: TaskOutcome, ablations: Sequence[TaskAblation]) -> list[_AblationRow]:
    axis = _axis([ablation.change[task.primary_metric] for ablation in ablations])
    rows = []
    for part in dict.fromkeys(ablation.content for ablation in ablations):
        by_kind = {ablation.kind: ablation for ablation in ablations if ablation.content == part}
        changes = {kind: value.change[task.primary_metric] for kind, value in by_kind.items()}
        drawing = dots([(change, kind) for kind, change in changes.items()], axis)
        rows.append(
            _AblationRow(
                part, changes, drawing, _ablation_verdict(task, by_kind["drop"]) if "drop" in by_kind else ""
            )
        )
    return rows


def _ablation_verdict(task: TaskOutcome, ablation: TaskAblation) -> str:
    change = ablation.change[task.primary_metric]
    if not change.excludes_zero:
        return "no effect shown"
    return (
        "needed" if (change.mean < 0) != (task.primary_metric in task.lower_is_better) else "better without"
    )


def _subsets(task: TaskOutcome) -> list[tuple[str, Interval, Markup]]:
    """Every subset of the contents, and all of them, the best first."""
    results = [
        (ablation.content, ablation.metrics[task.primary_metric])
        for ablation in task.ablations
        if ablation.kind == "subset"
    ]
    if not results:
        return []
    results.append(("all modalities", task.metrics[task.primary_metric]))
    axis = Axis(0.0, 1.02 * max(interval.high for _, interval in results) or 1.0, ())
    results.sort(key=lambda pair: pair[1].mean, reverse=task.primary_metric not in task.lower_is_better)
    return [(name, interval, bar(interval, axis, name == "all modalities")) for name, interval in results]


def _robustness_chart(task: TaskOutcome) -> tuple[Panel, Chart] | None:
    """The first figure against the strength of noise and of attacks, which begin at none of it."""
    curves = []
    for what in dict.fromkeys(perturbation.target for perturbation in task.perturbations):
        points = [perturbation for perturbation in task.perturbations if perturbation.target == what]
        levels = (0.0, *(entry.level for entry in points))
        height = (
            task.metrics[task.primary_metric].mean,
            *(entry.metrics[task.primary_metric].mean for entry in points),
        )
        curves.append(Curve(_PERTURBATION_LABELS.get(what, f"noise on {what}"), levels, height))
    if not curves:
        return None
    panel = Panel(
        task_metric_label(task.primary_metric),
        "strength relative to the token norm",
        tuple(curves),
        markers=True,
    )
    return panel, chart(panel)


def _confusion_rows(task: TaskOutcome) -> list[tuple[str, list[tuple[int, float]]]]:
    """True class -> (count, share of the row) of every class said."""
    if task.confusion is None or len(task.confusion) > _MAX_CLASSES_SHOWN or len(task.confusion) < 2:
        return []
    totals = task.confusion.sum(1, keepdims=True).clip(min=1)
    shares = task.confusion / totals
    return [
        (name, list(zip(row.tolist(), share.tolist(), strict=True)))
        for name, row, share in zip(task.class_names, task.confusion, shares, strict=True)
    ]


def _axis(intervals: Sequence[Interval]) -> Axis:
    """With zero in sight and a little air at the ends."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - air, max(ends) + air, ())


TASK_FILTERS: Mapping[str, Callable[..., Any]] = {
    "metric": task_metric_label,
    "percent": lambda value: f"{value:.1%}",
}
