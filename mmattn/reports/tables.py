"""Tables as plain text, Markdown and LaTeX."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.files import write_text
from mmattn.reports.results import ABLATION_LABELS, Ablation, RecommendationReport
from mmattn.reports.sentences import format_signed, metric_label

__all__ = ["Table", "format_difference", "format_interval", "report_tables", "write_tables"]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        "\N{MINUS SIGN}": "$-$", "|": "$|$", "<": "$<$", ">": "$>$",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read.

    Args:
        title: what it shows, with the unit and what the intervals are.
        columns: headings; the first column is text, the others are numbers.
        rows: as many cells each as there are columns.
        bold: (row, column) of the cells that stand out.

    Example:
        >>> table = Table("Recall@20", ("system", "mean"), (("ours", "0.31"), ("ridge", "0.21")), {(0, 1)})
        >>> print(table.to_markdown())
        **Recall@20**
        <BLANKLINE>
        | system | mean |
        | --- | ---: |
        | ours | **0.31** |
        | ridge | 0.21 |
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bold: frozenset[tuple[int, int]] | set[tuple[int, int]] = field(default_factory=frozenset)

    def to_text(self) -> str:
        """Format as aligned columns for a terminal."""
        table = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        ]
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Format as a Markdown pipe table with its title."""
        rule = " | ".join(["---", *["---:"] * (len(self.columns) - 1)])
        cells = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        for row, column in self.bold:
            cells[row][column] = f"**{cells[row][column]}**"
        lines = [" | ".join(row) for row in [self.columns, *cells]]
        body = "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])
        return f"**{self.title}**\n\n{body}"

    def to_latex(self) -> str:
        """Format as a LaTeX table environment, which needs the package booktabs."""
        cells = [[cell.translate(_LATEX) for cell in row] for row in self.rows]
        for row, column in self.bold:
            cells[row][column] = f"\\textbf{{{cells[row][column]}}}"
        head = " & ".join(name.translate(_LATEX) for name in self.columns)
        lines = [" & ".join(row) + r" \\" for row in cells]
        return "\n".join(
            [
                r"\begin{table}",
                rf"\caption{{{self.title.translate(_LATEX)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
                r"\toprule",
                rf"{head} \\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def write_tables(page: str | os.PathLike[str], tables: Sequence[Table]) -> None:
    """Write tables.md and tables.tex beside a page, each atomically.

    Args:
        page: path of the HTML page.
        tables: tables to write.
    """
    for name, form in (("tables.md", Table.to_markdown), ("tables.tex", Table.to_latex)):
        write_text(Path(page).with_name(name), "\n\n".join(map(form, tables)) + "\n")


def report_tables(report: RecommendationReport) -> list[Table]:
    """Build the tables of a report: systems, differences, ablations, subsets, subgroups and index cost.

    Args:
        report: the report.

    Returns:
        The tables with at least one row.
    """
    tables = [
        _systems(report),
        _differences(report),
        _ablations(report),
        _subsets(report),
        _subgroups(report),
    ]
    return [table for table in [*tables, _index_cost(report)] if table.rows]


def _systems(report: RecommendationReport) -> Table:
    metrics = list(report.ours.metrics)
    ordered = sorted(report.systems, key=lambda system: -system.metrics[report.primary].mean)
    best = {metric: max(entry.metrics[metric].mean for entry in ordered) for metric in metrics}
    return Table(
        f"{report.title}: systems, mean and 95% interval over users",
        ("system", *map(metric_label, metrics)),
        tuple(
            (entry.label, *(format_interval(entry.metrics[metric]) for metric in metrics))
            for entry in ordered
        ),
        {
            (row, column)
            for row, entry in enumerate(ordered)
            for column, metric in enumerate(metrics, 1)
            if entry.metrics[metric].mean == best[metric]
        },
    )


def _differences(report: RecommendationReport) -> Table:
    baselines = [system for system in report.systems if system.difference]
    metrics = [
        metric
        for metric in report.ours.metrics
        if all(metric in baseline.difference for baseline in baselines)
    ]
    return Table(
        "mmattn minus each baseline, paired by user",
        ("baseline", *map(metric_label, metrics)),
        tuple(
            (baseline.label, *(format_difference(baseline.difference[metric]) for metric in metrics))
            for baseline in baselines
        ),
    )


def _ablations(report: RecommendationReport) -> Table:
    metric = report.primary
    parts: dict[str, dict[str, Ablation]] = {}
    for ablation in report.ablations:
        if ablation.kind != "subset":
            parts.setdefault(ablation.part or ablation.label, {})[ablation.kind] = ablation
    kinds = [kind for kind in ABLATION_LABELS if any(kind in by_kind for by_kind in parts.values())]
    return Table(
        f"Ablations: change of {metric_label(metric)}, paired by user",
        ("input", *(ABLATION_LABELS[kind] for kind in kinds)),
        tuple(
            (part, *(format_difference(by_kind[kind].change[metric])
                     if kind in by_kind and by_kind[kind].change else "-" for kind in kinds))
            for part, by_kind in parts.items()
        ),
    )  # fmt: skip


def _subsets(report: RecommendationReport) -> Table:
    metrics = list(report.ours.metrics)
    subsets = sorted(
        (ablation for ablation in report.ablations if ablation.kind == "subset"),
        key=lambda ablation: -ablation.metrics[report.primary].mean,
    )
    return Table(
        "mmattn with a subset of the modalities",
        ("modalities", *map(metric_label, metrics)),
        tuple(
            (subset.part, *(format_interval(subset.metrics[metric]) for metric in metrics))
            for subset in subsets
        ),
    )


def _subgroups(report: RecommendationReport) -> Table:
    baseline = report.strongest_baseline
    compared = (baseline.label, "difference") if baseline else ()
    return Table(
        f"Subgroups: {metric_label(report.subgroups[0].metric)}" if report.subgroups else "Subgroups",
        ("subgroup", "users", report.ours.label, *compared),
        tuple(
            (
                f"{subgroup.group}: {subgroup.name}", f"{subgroup.systems[report.ours.name].n_samples:,}",
                format_interval(subgroup.systems[report.ours.name]),
                *((format_interval(subgroup.systems[baseline.name]),
                   format_difference(subgroup.difference) if subgroup.difference else "-")
                  if baseline else ()),
            )
            for subgroup in report.subgroups
        ),
    )  # fmt: skip


def _index_cost(report: RecommendationReport) -> Table:
    cost = report.index_cost
    points = [] if cost is None else [cost.exact_search, *cost.operating_points]
    return Table(
        "" if cost is None else f"Index cost: {cost.index_type}, width {cost.dim}, "
        f"{cost.n_items:,} items, {cost.n_queries:,} queries",
        ("lists probed", "recall of exact search", metric_label(report.primary), "index loss", "queries/s"),
        tuple(
            (
                str(point.nprobe or "all (exact)"), f"{point.recall:.4f}", format_interval(point.metric),
                format_difference(point.loss), f"{point.queries_per_second:,.0f}",
            )
            for point in points
        ),
    )  # fmt: skip


def format_interval(interval: Interval) -> str:
    """Format a value with its interval as a table cell.

    Args:
        interval: value with its interval.
    """
    return f"{interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def format_difference(interval: Interval) -> str:
    """Format a signed difference with its interval as a table cell.

    Args:
        interval: difference with its interval.
    """
    return f"{format_signed(interval.mean)} ({format_signed(interval.low)} to {format_signed(interval.high)})"
