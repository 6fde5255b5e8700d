"""The report: one HTML file that needs nothing from outside, and the same numbers as JSON beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jinja2

from mmattn.evaluation.intervals import Interval
from mmattn.evaluation.pictures import thumbnail
from mmattn.evaluation.plots import Axis, bar, chart, dot
from mmattn.evaluation.results import OURS, Knockout, Report, System, metric_label, signed
from mmattn.files import write_json, write_text

__all__ = ["render", "write_report"]


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page to `path` and `metrics.json` beside it, each atomically.

    Args:
        path: of the HTML file, for example "runs/films/report.html".
        report: what it shows.

    Example:
        >>> import tempfile
        >>> from mmattn.evaluation.intervals import bootstrap
        >>> from mmattn.evaluation.results import DataSummary, System
        >>> ours = System("mmattn", "mmattn", {"recall@20": bootstrap([0.5, 1.0])})
        >>> data = DataSummary("toy", users=2, items=3, interactions=4, presence={"text": 3})
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder / "report.html", Report("A toy", data, (ours,), protocol={"seeds": [0]}))
        >>> sorted(file.name for file in folder.iterdir())
        ['metrics.json', 'report.html']
    """
    page = render(report)
    write_json(Path(path).with_name("metrics.json"), report.to_json())
    write_text(path, page)


def render(report: Report) -> str:
    """The page as a string of HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmattn.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": metric_label,
        "number": lambda value: f"{value:.4f}",
        "signed": signed,
        "count": lambda value: f"{value:,}",
        "share": _share,
        "initials": _initials,
        "thumbnail": thumbnail,
    }
    metrics = list(report.ours.metrics)
    return environment.get_template("report.html.j2").render(
        report=report,
        ours=OURS,
        metrics=metrics,
        best={metric: max(s.metrics[metric].mean for s in report.systems) for metric in metrics},
        bars={metric: _bars(report, metric) for metric in metrics},
        differences=_differences(report),
        knockouts=_knockouts(report),
        charts=[(panel, chart(panel)) for panel in report.panels if panel.curves],
        provenance={"protocol": report.protocol, **report.provenance},
        level=f"{report.ours.metrics[report.primary].level:.0%}",
    )


def _bars(report: Report, metric: str) -> list[tuple[System, Interval, Any]]:
    axis = Axis(0.0, 1.02 * max(system.metrics[metric].high for system in report.systems) or 1.0, ())
    ordered = sorted(report.systems, key=lambda system: -system.metrics[metric].mean)
    return [(s, s.metrics[metric], bar(s.metrics[metric], axis, s.name == OURS)) for s in ordered]


def _differences(report: Report) -> list[tuple[System, Interval, Any]]:
    """Ours minus each rival by the primary metric, the hardest rival first."""
    compared = [s for s in report.systems if report.primary in s.difference]
    compared.sort(key=lambda system: system.difference[report.primary].mean)
    intervals = [system.difference[report.primary] for system in compared]
    axis = _symmetric(intervals)
    return [(s, i, dot(i, axis, ours=i.low > 0)) for s, i in zip(compared, intervals, strict=True)]


def _knockouts(report: Report) -> list[tuple[Knockout, Interval | None, Any, str]]:
    """Each knockout with its change of the primary metric and what that change says."""
    axis = _symmetric([k.change[report.primary] for k in report.knockouts if report.primary in k.change])
    rows = []
    for knockout in report.knockouts:
        change = knockout.change.get(report.primary)
        drawing = "" if change is None else dot(change, axis, ours=change.high < 0)
        rows.append((knockout, change, drawing, _meaning(change)))
    return rows


def _meaning(change: Interval | None) -> str:
    if change is None:
        return "no paired interval"
    if change.high < 0:
        return "earns its place"
    return "better without" if change.low > 0 else "no effect shown"


def _symmetric(intervals: list[Interval]) -> Axis:
    """An axis with zero in sight and a little air at the ends."""
    ends = [0.0, *(end for interval in intervals for end in (interval.low, interval.high))]
    air = 0.06 * (max(ends) - min(ends)) or 1.0
    return Axis(min(ends) - air, max(ends) + air, ())


def _share(part: int, whole: int) -> str:
    """A percentage that says 100% or 0% only when that is exact."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1 or 99.9 < percent < 100:
        return f"{'<' if percent < 1 else '>'}{0.1 if percent < 1 else 99.9}%"
    return f"{percent:.1f}%".replace(".0%", "%")


def _initials(title: str) -> str:
    """One or two letters for the placeholder of an item without a picture."""
    words = [word for word in title.split() if word[0].isalnum()]
    return "".join(word[0] for word in words[:2]).upper() or "?"
