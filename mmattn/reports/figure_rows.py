"""The rows of the report's figures: what stands in each, and its drawing, on axes that rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.experiments.index_cost import IndexCost
from mmattn.reports.results import OURS, Ablation, AblationKind, Curve, Panel, Report, Subgroup, System
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
    """One part of what the model is given.

    Args:
        name: of the part.
        is_encoder: whether it is one of several encoders of a content.
        changes: way -> change of the primary metric; None where it was not paired.
        svg: their dots.
        interpretation: what the drop says, in a few words.
        dropped: the drop, for its own figures.
    """

    name: str
    is_encoder: bool
    changes: Mapping[AblationKind, Interval | None]
    svg: Markup
    interpretation: str
    dropped: Ablation | None


def metric_bars(report: Report, metric: str) -> list[tuple[System, Interval, Markup]]:
    """Every system by one metric, the best first."""
    axis = Axis(0.0, 1.02 * max(system.metrics[metric].high for system in report.systems) or 1.0, ())
    ordered = sorted(report.systems, key=lambda system: -system.metrics[metric].mean)
    return [(s, s.metrics[metric], bar(s.metrics[metric], axis, s.name == OURS)) for s in ordered]


def difference_rows(report: Report) -> list[tuple[System, Interval, Markup]]:
    """Ours minus each rival by the primary metric, the hardest rival first."""
    compared = [s for s in report.systems if report.primary in s.difference]
    compared.sort(key=lambda system: system.difference[report.primary].mean)
    intervals = [system.difference[report.primary] for system in compared]
    axis = _axis_around_zero(intervals)
    return [(s, i, dot(i, axis, highlight=i.low > 0)) for s, i in zip(compared, intervals, strict=True)]


def ablation_rows(report: Report) -> list[AblationRow]:
    """Every part with its change of the primary metric in each way; encoders after their content."""
    taken = [one for one in report.ablations if one.kind != "subset"]
    axis = _axis_around_zero([one.change[report.primary] for one in taken if report.primary in one.change])
    names = dict.fromkeys(one.part or one.label for one in taken)
    rows = []
    for name in sorted(names, key=lambda name: list(names).index(name.partition(".")[0])):
        own = {one.kind: one for one in taken if (one.part or one.label) == name}
        changes = {kind: one.change.get(report.primary) for kind, one in own.items()}
        marks = [(change, kind) for kind, change in changes.items() if change is not None]
        rows.append(
            AblationRow(
                name=name.partition(".")[2] or name,
                is_encoder="." in name,
                changes=changes,
                svg=dots(marks, axis) if marks else Markup(""),
                interpretation=_interpret(changes["drop"]) if "drop" in changes else "",
                dropped=own.get("drop"),
            )
        )
    return rows


def subset_rows(report: Report) -> list[tuple[str, Interval, Markup]]:
    """Every subset of the contents, and all of them, the best first."""
    found = [(one.label, one.metrics[report.primary]) for one in report.ablations if one.kind == "subset"]
    if not found:
        return []
    found.append(("all together", report.ours.metrics[report.primary]))
    axis = Axis(0.0, 1.02 * max(interval.high for _, interval in found) or 1.0, ())
    found.sort(key=lambda pair: -pair[1].mean)
    return [(name, interval, bar(interval, axis, name == "all together")) for name, interval in found]


def subgroup_rows(report: Report) -> dict[str, list[tuple[Subgroup, Markup]]]:
    """What is divided -> its strata, with the dots of ours and of the strongest rival."""
    rival = report.strongest_baseline
    shown = [rival.name, OURS] if rival else [OURS]
    ends = [stratum.systems[name].high for stratum in report.subgroups for name in shown]
    axis = Axis(0.0, 1.05 * max(ends, default=1.0) or 1.0, ())
    groups: dict[str, list[tuple[Subgroup, Markup]]] = {}
    for stratum in report.subgroups:
        marks = [(stratum.systems[name], "own" if name == OURS else "other") for name in shown]
        groups.setdefault(stratum.group, []).append((stratum, dots(marks, axis, zero=False)))
    return groups


def index_cost_panels(index_cost: IndexCost) -> list[Panel]:
    """Against queries per second: how much of the exact result is found, and the task metric."""
    titles = {"recall": "Found of what exact search finds", "metric": metric_label(index_cost.metric)}
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
        return "earns its place"
    return "better without" if change.low > 0 else "no effect shown"


def _axis_around_zero(intervals: Sequence[Interval]) -> Axis:
    """An axis with zero in sight and a little air at the ends."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - air, max(ends) + air, ())
