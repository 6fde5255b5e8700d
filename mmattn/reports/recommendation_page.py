"""The body of a recommender's page: what its templates are filled with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmattn.reports import sentences
from mmattn.reports.figure_rows import (
    ablation_rows,
    difference_rows,
    index_cost_panels,
    metric_bars,
    subgroup_rows,
    subset_rows,
)
from mmattn.reports.results import ABLATION_LABELS, OURS, Example, RecommendationReport
from mmattn.reports.svg import draw_panels

__all__ = ["RECOMMENDATION_FILTERS", "recommendation_context", "recommendation_sentences"]


def recommendation_sentences(report: RecommendationReport) -> dict[str, str]:
    """Return the sentences that metrics.json holds beside the numbers.

    Args:
        report: of a recommender.
    """
    return {
        "verdict": sentences.describe_outcome(report),
        "ablation_summary": sentences.summarize_ablations(
            report.ablations, report.ours.metrics[report.primary], report.primary
        ),
    }


def recommendation_context(report: RecommendationReport) -> dict[str, Any]:
    """Return the variables of the templates.

    Args:
        report: of a recommender.
    """
    metrics = list(report.ours.metrics)
    cost, ablations = report.index_cost, ablation_rows(report)
    return {
        "ours": OURS,
        **recommendation_sentences(report),
        "baseline": report.strongest_baseline,
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
        "index_cost_charts": [] if cost is None else draw_panels(index_cost_panels(cost)),
        "recall_charts": [] if report.recall_curve is None else draw_panels([report.recall_curve]),
        "level": f"{report.ours.metrics[report.primary].confidence_level:.0%}",
    }


def _by_reason(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    """Group examples by reason, in order of appearance."""
    reasons = dict.fromkeys(example.reason for example in examples)
    return [(reason, [example for example in examples if example.reason == reason]) for reason in reasons]


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


RECOMMENDATION_FILTERS: Mapping[str, Callable[..., Any]] = {
    "metric": sentences.metric_label,
    "share": _format_percent,
    "initials": _initials,
    "by_reason": _by_reason,
}
