"""Rows of the report's figures with their drawings, on common axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import (
    OURS,
    Ablation,
    AblationKind,
    Curve,
    Panel,
    RecommendationReport,
    Subgroup,
    System,
)
from mmattn.reports.sentences import metric_label
from mmattn.reports.svg import Axis, bar, dot, dots

__all__ = [
    "AblationRow",
    "ablation_rows",
    "difference_rows",
    "index_cost_panels",
    "metric_bars",
    "subgroup_rows",
    "subset_rows",
]


@dataclass(frozen=True)
class AblationRow:
    """The ablations of one modality or encoder.

    Args:
        name: name of the modality or encoder.
        is_encoder: whether it is one of several encoders of a modality.
        changes: kind of ablation -> change of the primary metric; None without a paired interval.
        svg: dots of the changes.
        interpretation: short interpretation of the drop.
        dropped: the ablation of kind "drop", if any.
    """

    name: str
    is_encoder: bool
    changes: Mapping[AblationKind, Interval | None]
    svg: Markup
    interpretation: str
    dropped: Ablation | None


def metric_bars(report: RecommendationReport, metric: str) -> list[tuple[System, Interval, Markup]]:
    """Return a bar per system, best first.

    Args:
        report: the report.
        metric: metric name.
    """
    axis = Axis(0.0, 1.02 * max(system.metrics[metric].high for system in report.systems) or 1.0, ())
    ordered = sorted(report.systems, key=lambda system: -system.metrics[metric].mean)
    return [(s, s.metrics[metric], bar(s.metrics[metric], axis, s.name == OURS)) for s in ordered]


def difference_rows(report: RecommendationReport) -> list[tuple[System, Interval, Markup]]:
    """Return the difference to each baseline on the primary metric, smallest first.

    Args:
        report: the report.
    """
    compared = [s for s in report.systems if report.primary in s.difference]
    compared.sort(key=lambda system: system.difference[report.primary].mean)
    intervals = [system.difference[report.primary] for system in compared]
    axis = _axis_around_zero(intervals)
    return [(s, i, dot(i, axis, highlight=i.low > 0)) for s, i in zip(compared, intervals, strict=True)]


def ablation_rows(report: RecommendationReport) -> list[AblationRow]:
    """Return the changes of the primary metric by input; encoders follow their modality.

    Args:
        report: the report.
    """
    ablations = [ablation for ablation in report.ablations if ablation.kind != "subset"]
    axis = _axis_around_zero(
        [ablation.change[report.primary] for ablation in ablations if report.primary in ablation.change]
    )
    names = dict.fromkeys(ablation.part or ablation.label for ablation in ablations)
    rows = []
    for name in sorted(names, key=lambda name: list(names).index(name.partition(".")[0])):
        by_kind = {
            ablation.kind: ablation for ablation in ablations if (ablation.part or ablation.label) == name
        }
        changes = {kind: ablation.change.get(report.primary) for kind, ablation in by_kind.items()}
        marks = [(change, kind) for kind, change in changes.items() if change is not None]
        rows.append(
            AblationRow(
                name=name.partition(".")[2] or name,
                is_encoder="." in name,
                changes=changes,
                svg=dots(marks, axis) if marks else Markup(""),
                interpretation=_interpret(changes["drop"]) if "drop" in changes else "",
                dropped=by_kind.get("drop"),
            )
        )
    return rows


def subset_rows(report: RecommendationReport) -> list[tuple[str, Interval, Markup]]:
    """Return a bar per subset of modalities and for all modalities, best first.

    Args:
        report: the report.
    """
    subsets = [
        (ablation.label, ablation.metrics[report.primary])
        for ablation in report.ablations
        if ablation.kind == "subset"
    ]
    if not subsets:
        return []
    subsets.append(("all modalities", report.ours.metrics[report.primary]))
    axis = Axis(0.0, 1.02 * max(interval.high for _, interval in subsets) or 1.0, ())
    subsets.sort(key=lambda pair: -pair[1].mean)
    return [(name, interval, bar(interval, axis, name == "all modalities")) for name, interval in subsets]


def subgroup_rows(report: RecommendationReport) -> dict[str, list[tuple[Subgroup, Markup]]]:
    """Return the subgroups of each group, with the dots of mmattn and the strongest baseline.

    Args:
        report: the report.
    """
    baseline = report.strongest_baseline
    names = [baseline.name, OURS] if baseline else [OURS]
    ends = [subgroup.systems[name].high for subgroup in report.subgroups for name in names]
    axis = Axis(0.0, 1.05 * max(ends, default=1.0) or 1.0, ())
    groups: dict[str, list[tuple[Subgroup, Markup]]] = {}
    for subgroup in report.subgroups:
        marks = [(subgroup.systems[name], "own" if name == OURS else "other") for name in names]
        groups.setdefault(subgroup.group, []).append((subgroup, dots(marks, axis, zero=False)))
    return groups


def index_cost_panels(index_cost: IndexCost) -> list[Panel]:
    """Return panels of recall and of the task metric against queries per second.

    Args:
        index_cost: measured index cost.
    """
    titles = {"recall": "Recall of exact search", "metric": metric_label(index_cost.metric)}
    panels = []
    for what, title in titles.items():
        curves = []
        for label, points in (
            (f"index ({index_cost.index_type})", index_cost.operating_points),
            ("exact search", (index_cost.exact_search,)),
        ):
            ordered = sorted(points, key=lambda point: point.queries_per_second)
            height = [point.recall if what == "recall" else point.metric.mean for point in ordered]
            if ordered:
                speeds = tuple(point.queries_per_second for point in ordered)
                curves.append(Curve(label, speeds, tuple(height)))
        panels.append(Panel(title, "queries per second", tuple(curves), log_x=True, markers=True))
    return panels


def _interpret(change: Interval | None) -> str:
    if change is None:
        return "no paired interval"
    if change.high < 0:
        return "contributes"
    return "better without" if change.low > 0 else "no effect shown"


def _axis_around_zero(intervals: Sequence[Interval]) -> Axis:
    """Return an axis that contains zero, with a margin."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    margin = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - margin, max(ends) + margin, ())
