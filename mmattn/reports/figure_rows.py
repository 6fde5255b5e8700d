"""The rows of the report's figures: what stands in each, and its drawing, on axes that rows share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.experiments.index_cost import Served
from mmattn.reports.results import OURS, Curve, Kind, Knockout, Panel, Report, Stratum, System
from mmattn.reports.sentences import metric_label
from mmattn.reports.svg import Axis, bar, dot, dots

__all__ = [
    "KnockoutRow",
    "bars",
    "difference_rows",
    "knockout_rows",
    "served_panels",
    "strata_groups",
    "subset_rows",
]


@dataclass(frozen=True)
class KnockoutRow:
    """One part of what the model is given.

    Args:
        name: of the part.
        inner: whether it is one of several encoders of a content.
        changes: way -> change of the primary metric; None where it was not paired.
        drawing: their dots.
        meaning: what the drop says, in a few words.
        without: the drop, for its own figures.
    """

    name: str
    inner: bool
    changes: Mapping[Kind, Interval | None]
    drawing: Markup
    meaning: str
    without: Knockout | None


def bars(report: Report, metric: str) -> list[tuple[System, Interval, Markup]]:
    """Every system by one metric, the best first."""
    axis = Axis(0.0, 1.02 * max(system.metrics[metric].high for system in report.systems) or 1.0, ())
    ordered = sorted(report.systems, key=lambda system: -system.metrics[metric].mean)
    return [(s, s.metrics[metric], bar(s.metrics[metric], axis, s.name == OURS)) for s in ordered]


def difference_rows(report: Report) -> list[tuple[System, Interval, Markup]]:
    """Ours minus each rival by the primary metric, the hardest rival first."""
    compared = [s for s in report.systems if report.primary in s.difference]
    compared.sort(key=lambda system: system.difference[report.primary].mean)
    intervals = [system.difference[report.primary] for system in compared]
    axis = _symmetric(intervals)
    return [(s, i, dot(i, axis, ours=i.low > 0)) for s, i in zip(compared, intervals, strict=True)]


def knockout_rows(report: Report) -> list[KnockoutRow]:
    """Every part with its change of the primary metric in each way; encoders after their content."""
    taken = [one for one in report.knockouts if one.kind != "subset"]
    axis = _symmetric([one.change[report.primary] for one in taken if report.primary in one.change])
    names = dict.fromkeys(one.part or one.label for one in taken)
    rows = []
    for name in sorted(names, key=lambda name: list(names).index(name.partition(".")[0])):
        own = {one.kind: one for one in taken if (one.part or one.label) == name}
        changes = {kind: one.change.get(report.primary) for kind, one in own.items()}
        marks = [(change, kind) for kind, change in changes.items() if change is not None]
        rows.append(
            KnockoutRow(
                name=name.partition(".")[2] or name,
                inner="." in name,
                changes=changes,
                drawing=dots(marks, axis) if marks else Markup(""),
                meaning=_meaning(changes["drop"]) if "drop" in changes else "",
                without=own.get("drop"),
            )
        )
    return rows


def subset_rows(report: Report) -> list[tuple[str, Interval, Markup]]:
    """Every subset of the contents, and all of them, the best first."""
    found = [(one.label, one.metrics[report.primary]) for one in report.knockouts if one.kind == "subset"]
    if not found:
        return []
    found.append(("all together", report.ours.metrics[report.primary]))
    axis = Axis(0.0, 1.02 * max(interval.high for _, interval in found) or 1.0, ())
    found.sort(key=lambda pair: -pair[1].mean)
    return [(name, interval, bar(interval, axis, name == "all together")) for name, interval in found]


def strata_groups(report: Report) -> dict[str, list[tuple[Stratum, Markup]]]:
    """What is divided -> its strata, with the dots of ours and of the strongest rival."""
    rival = report.strongest_rival
    shown = [rival.name, OURS] if rival else [OURS]
    ends = [stratum.systems[name].high for stratum in report.strata for name in shown]
    axis = Axis(0.0, 1.05 * max(ends, default=1.0) or 1.0, ())
    groups: dict[str, list[tuple[Stratum, Markup]]] = {}
    for stratum in report.strata:
        marks = [(stratum.systems[name], "own" if name == OURS else "other") for name in shown]
        groups.setdefault(stratum.group, []).append((stratum, dots(marks, axis, zero=False)))
    return groups


def served_panels(served: Served) -> list[Panel]:
    """Against queries per second: how much of the exact result is found, and the task metric."""
    titles = {"recall": "Found of what exact search finds", "metric": metric_label(served.metric)}
    panels = []
    for what, title in titles.items():
        curves = []
        for label, points in ((f"index ({served.kind})", served.points), ("exact search", (served.exact,))):
            ordered = sorted(points, key=lambda point: point.queries_per_second)
            height = [point.recall if what == "recall" else point.metric.mean for point in ordered]
            if ordered:
                speeds = tuple(point.queries_per_second for point in ordered)
                curves.append(Curve(label, speeds, tuple(height)))
        panels.append(Panel(title, "queries per second", tuple(curves), log=True, dots=True))
    return panels


def _meaning(change: Interval | None) -> str:
    if change is None:
        return "no paired interval"
    if change.high < 0:
        return "earns its place"
    return "better without" if change.low > 0 else "no effect shown"


def _symmetric(intervals: Sequence[Interval]) -> Axis:
    """An axis with zero in sight and a little air at the ends."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - air, max(ends) + air, ())
