"""The report: one HTML file that needs nothing from outside; the same as JSON, Markdown, LaTeX beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmattn.files import write_json, write_text
from mmattn.reports import sentences
from mmattn.reports.figure_rows import (
    ablation_rows,
    difference_rows,
    index_cost_panels,
    metric_bars,
    subgroup_rows,
    subset_rows,
)
from mmattn.reports.results import ABLATION_LABELS, OURS, Example, Panel, Report
from mmattn.reports.svg import NUM_COLORS, chart
from mmattn.reports.tables import report_tables, write_tables
from mmattn.reports.templating import template_environment

__all__ = ["render_report", "write_report"]


def write_report(path: str | os.PathLike[str], report: Report) -> None:
    """Write the page to `path`, and metrics.json, tables.md and tables.tex beside it, each atomically.

    Args:
        path: of the HTML file, for example "runs/films/report.html".
        report: what it shows.

    Example:
        >>> import tempfile
        >>> from mmattn.evaluation.statistics.bootstrap import bootstrap
        >>> from mmattn.reports.results import DataSummary, System
        >>> ours = System("mmattn", "mmattn", {"recall@20": bootstrap([0.5, 1.0])})
        >>> data = DataSummary("toy", users=2, items=3, interactions=4, presence={"text": 3})
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder / "report.html", Report("A toy", data, (ours,), protocol={"seeds": [0]}))
        >>> sorted(file.name for file in folder.iterdir())
        ['metrics.json', 'report.html', 'tables.md', 'tables.tex']
    """
    page, tables = render_report(report), report_tables(report)
    write_json(Path(path).with_name("metrics.json"), report.to_json() | _report_sentences(report))
    write_tables(path, tables)
    write_text(path, page)


def render_report(report: Report) -> str:
    """Render the page as a string of HTML.

    Args:
        report: the report.
    """
    page = template_environment()
    page.filters |= {
        "metric": sentences.metric_label,
        "number": lambda value: f"{value:.4f}",
        "signed": sentences.format_signed,
        "count": lambda value: f"{value:,}",
        "share": _format_percent,
        "initials": _initials,
        "by_reason": _by_reason,
    }
    return page.get_template("report.html.j2").render(**_template_context(report))


def _report_sentences(report: Report) -> dict[str, str]:
    return {
        "verdict": sentences.describe_outcome(report),
        "ablation_summary": sentences.summarize_ablations(
            report.ablations, report.ours.metrics[report.primary], report.primary
        ),
    }


def _template_context(report: Report) -> dict[str, Any]:
    """Return the variables of the templates."""
    metrics = list(report.ours.metrics)
    cost, ablations = report.index_cost, ablation_rows(report)
    return {
        "report": report,
        "ours": OURS,
        **_report_sentences(report),
        "baseline": report.strongest_baseline,
        "tones": NUM_COLORS,
        "metrics": metrics,
        "best": {metric: max(s.metrics[metric].mean for s in report.systems) for metric in metrics},
        "bars": {metric: metric_bars(report, metric) for metric in metrics},
        "differences": difference_rows(report),
        "ablations": ablations,
        "ablation_kinds": {
            kind: label
            for kind, label in ABLATION_LABELS.items()
            if any(kind in row.changes for row in ablations)
        },
        "subsets": subset_rows(report),
        "gap_sentences": sentences.describe_gaps(report.modality_gaps),
        "subgroups": subgroup_rows(report),
        "subgroup_sentences": sentences.describe_subgroups(report),
        "index_cost_sentences": "" if cost is None else sentences.describe_index_cost(cost),
        "index_cost_charts": [] if cost is None else _draw_panels(index_cost_panels(cost)),
        "recall_charts": [] if report.recall_curve is None else _draw_panels([report.recall_curve]),
        "charts": _draw_panels(report.learning_curves),
        "provenance": {"protocol": report.protocol, **report.provenance},
        "level": f"{report.ours.metrics[report.primary].confidence_level:.0%}",
    }


def _by_reason(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    """Group examples by reason, in order of appearance."""
    reasons = dict.fromkeys(example.reason for example in examples)
    return [(reason, [example for example in examples if example.reason == reason]) for reason in reasons]


def _draw_panels(panels: Sequence[Panel]) -> list[tuple[Panel, Any]]:
    return [(panel, chart(panel)) for panel in panels if panel.curves]


def _format_percent(part: int, whole: int) -> str:
    """Format a percentage; 0% and 100% only if exact."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 0.1 or 99.9 < percent < 100:
        return f"{'<' if percent < 1 else '>'}{0.1 if percent < 1 else 99.9}%"
    return f"{percent:.1f}%".replace(".0%", "%")


def _initials(title: str) -> str:
    """Return one or two letters for the placeholder of an item without an image."""
    words = [word for word in title.split() if word[0].isalnum()]
    return "".join(word[0] for word in words[:2]).upper() or "?"
