"""The report: one HTML file that needs nothing from outside; the same as JSON, Markdown, LaTeX beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmattn.files import write_json, write_text
from mmattn.reports.recommendation_page import (
    RECOMMENDATION_FILTERS,
    recommendation_context,
    recommendation_sentences,
)
from mmattn.reports.results import RecommendationReport, Report
from mmattn.reports.sentences import format_signed
from mmattn.reports.svg import NUM_COLORS, draw_panels
from mmattn.reports.tables import Table, report_tables, write_tables
from mmattn.reports.tasks.page import TASK_FILTERS, task_context
from mmattn.reports.tasks.results import TaskReport
from mmattn.reports.tasks.tables import task_tables
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
        >>> report = RecommendationReport(title="A toy", data=data, systems=(ours,), protocol={"seeds": [0]})
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_report(folder / "report.html", report)
        >>> sorted(file.name for file in folder.iterdir())
        ['metrics.json', 'report.html', 'tables.md', 'tables.tex']
    """
    page, tables = render_report(report), _tables(report)
    metrics = report.to_json()
    if isinstance(report, RecommendationReport):
        metrics |= recommendation_sentences(report)
    write_json(Path(path).with_name("metrics.json"), metrics)
    write_tables(path, tables)
    write_text(path, page)


def render_report(report: Report) -> str:
    """Render the page as a string of HTML.

    Args:
        report: of a recommender or of tasks.
    """
    environment = template_environment()
    template, filters, context = _body(report)
    environment.filters |= {
        "number": lambda value: f"{value:.4f}",
        "signed": format_signed,
        "count": lambda value: f"{value:,}",
        **filters,
    }
    return environment.get_template(template).render(
        report=report,
        charts=draw_panels(report.learning_curves),
        tones=NUM_COLORS,
        provenance={"protocol": report.protocol, **report.provenance},
        **context,
    )


def _body(report: Report) -> tuple[str, Any, dict[str, Any]]:
    """Template, filters and variables of the kind of report."""
    if isinstance(report, RecommendationReport):
        return "recommendation.html.j2", RECOMMENDATION_FILTERS, recommendation_context(report)
    assert isinstance(report, TaskReport)
    return "tasks.html.j2", TASK_FILTERS, task_context(report)


def _tables(report: Report) -> list[Table]:
    if isinstance(report, RecommendationReport):
        return report_tables(report)
    assert isinstance(report, TaskReport)
    return task_tables(report)
