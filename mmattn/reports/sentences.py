"""Sentences that summarize the numbers of a report; a claim is made only if its interval supports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Ablation, RecommendationReport

__all__ = [
    "describe_gaps",
    "describe_index_cost",
    "describe_outcome",
    "describe_subgroups",
    "format_signed",
    "join_words",
    "metric_label",
    "summarize_ablations",
    "task_metric_label",
]  # fmt: skip

# Minimum cosine margin, same item over different items, of two aligned modalities.
_ALIGNMENT_MARGIN = 0.1

_TASK_METRIC_LABELS = {
    "wer": "Word error rate",
    "cer": "Character error rate",
    "f1": "F1",
    "macro f1": "Macro F1",
    "ap50": "AP50",
    "map": "mAP",
    "bleu": "BLEU",
    "chrf": "chrF",
    "eer": "Equal error rate",
    "min_dcf": "Minimum detection cost",
}
_METRIC_LABELS = {"ndcg": "nDCG", "mrr": "MRR", "hit": "Hit rate", "map": "MAP"}


def metric_label(metric: str) -> str:
    """Return the display name of a ranking metric.

    Args:
        metric: name with or without a cutoff.

    Example:
        >>> metric_label("ndcg@20"), metric_label("recall@20")
        ('nDCG@20', 'Recall@20')
    """
    name, at, cutoff = metric.partition("@")
    return _METRIC_LABELS.get(name, name.capitalize()) + at + cutoff


def task_metric_label(metric: str) -> str:
    """Return the display name of a task metric; a short unknown name is taken for an acronym.

    Args:
        metric: name of the metric.

    Example:
        >>> task_metric_label("wer"), task_metric_label("macro f1"), task_metric_label("word accuracy")
        ('Word error rate', 'Macro F1', 'Word accuracy')
        >>> task_metric_label("rmse")
        'RMSE'
    """
    if metric in _TASK_METRIC_LABELS:
        return _TASK_METRIC_LABELS[metric]
    return metric.upper() if len(metric) <= 4 else metric[:1].upper() + metric[1:]


def format_signed(value: float) -> str:
    """Format a difference with its sign and four decimals.

    Args:
        value: the difference.

    Example:
        >>> format_signed(0.01234), format_signed(-0.5)
        ('+0.0123', '−0.5000')
    """
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def join_words(words: Sequence[str]) -> str:
    """Join words as an English enumeration.

    Args:
        words: any number of words.

    Example:
        >>> join_words(["text", "image", "table"])
        'text, image and table'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def describe_outcome(report: RecommendationReport) -> str:
    """Describe how our system compares with the strongest baseline.

    Args:
        report: the report. A `verdict` of its own is returned as it is.
    """
    if report.verdict:
        return report.verdict
    metric, label = report.primary, metric_label(report.primary)
    ours = report.ours.metrics[metric]
    our_interval = f"{report.ours.label} reaches {label} {ours.mean:.4f} ({ours.low:.4f} to {ours.high:.4f})"
    baseline = report.strongest_baseline
    if baseline is None:
        return f"{our_interval}. No baseline was evaluated, so the result cannot be put into context."
    against = f"the strongest baseline, {baseline.label}, {baseline.metrics[metric].mean:.4f}"
    difference = baseline.difference.get(metric)
    if difference is None:
        return (
            f"{our_interval}; {against}. Without a paired difference, no claim is made about which is better."
        )
    apart = f"{format_signed(difference.mean)} ({_format_bounds(difference)})"
    if not difference.excludes_zero:
        return (
            f"{report.ours.label} and {baseline.label} cannot be told apart: {label} {ours.mean:.4f} against "
            f"{baseline.metrics[metric].mean:.4f}, and the paired difference of {apart} includes zero."
        )
    better, worse = (report.ours, baseline) if difference.mean > 0 else (baseline, report.ours)
    among = len(report.systems) - 1
    rank = f", the strongest of {among} baselines" if worse is baseline and among > 1 else ""
    return (
        f"{better.label} beats {worse.label}{rank}: {label} {better.metrics[metric].mean:.4f} against "
        f"{worse.metrics[metric].mean:.4f}. The paired difference, mmattn minus the baseline, is {apart} "
        "and excludes zero."
    )


def summarize_ablations(ablations: Sequence[Ablation], whole: Interval, metric: str) -> str:
    """Describe which modalities the system needs, from the change without each.

    Args:
        ablations: ablations of our system.
        whole: metric of the complete system.
        metric: name of the metric.

    Returns:
        Sentences; empty if no modality was dropped.
    """
    dropped = [
        ablation
        for ablation in ablations
        if ablation.kind == "drop" and metric in ablation.change
        if ablation.part and "." not in ablation.part
    ]
    if not dropped:
        return ""
    label = metric_label(metric)
    groups: dict[str, list[tuple[str, Interval]]] = {"needed": [], "unclear": [], "harmful": []}
    for ablation in dropped:
        change = ablation.change[metric]
        effect = "needed" if change.high < 0 else "harmful" if change.low > 0 else "unclear"
        groups[effect].append((ablation.part, change))
    sentences = []
    if groups["needed"]:
        names = join_words([name for name, _ in groups["needed"]])
        lost = join_words(
            [
                f"without {name} by {format_signed(c.mean)} ({_format_bounds(c)})"
                for name, c in groups["needed"]
            ]
        )
        verb = "contribute" if len(groups["needed"]) > 1 else "contributes"
        sentences.append(f"{_capitalize_first(names)} {verb} to the result: {label} changes {lost}.")
    if groups["unclear"]:
        names = join_words([f"{name} ({_format_bounds(c)})" for name, c in groups["unclear"]])
        sentences.append(f"No effect is shown for {names}: the interval of the change includes zero.")
    if groups["harmful"]:
        names = join_words(
            [f"{name} ({format_signed(c.mean)}, {_format_bounds(c)})" for name, c in groups["harmful"]]
        )
        sentences.append(f"The result is better without {names}.")
    single = [ablation for ablation in ablations if ablation.kind == "subset" and "+" not in ablation.part]
    if single:
        best = max(single, key=lambda ablation: ablation.metrics[metric].mean)
        sentences.append(
            f"The best single modality is {best.part} with {best.metrics[metric].mean:.4f}, compared with "
            f"{whole.mean:.4f} for all modalities."
        )
    return " ".join(sentences)


def describe_gaps(gaps: Mapping[str, ModalityGap]) -> str:
    """Describe which pairs of modalities are aligned in the embedding space.

    Args:
        gaps: "modality | modality" -> gap.

    Returns:
        Sentences; empty without a pair.
    """
    pairs: dict[bool, list[str]] = {True: [], False: []}
    for pair, gap in gaps.items():
        label = f"{pair.replace(' | ', ' with ')} ({gap.matched:.3f} versus {gap.unmatched:.3f})"
        pairs[gap.matched - gap.unmatched >= _ALIGNMENT_MARGIN].append(label)
    sentences = []
    if pairs[True]:
        sentences.append(
            f"Aligned: {join_words(pairs[True])}. "
            "The vectors of one item are closer than those of different items (mean cosines)."
        )
    if pairs[False]:
        sentences.append(
            f"Not aligned: {join_words(pairs[False])}. The vectors of one item are closer than those of "
            f"different items by less than {_ALIGNMENT_MARGIN} in cosine, so cross-modal search would not "
            "work. Recommendation does not require alignment."
        )
    return " ".join(sentences)


def describe_subgroups(report: RecommendationReport) -> str:
    """Describe the subgroups in which our system is better or worse than the strongest baseline.

    Args:
        report: the report.

    Returns:
        Sentences; empty without a baseline or subgroups.
    """
    if report.strongest_baseline is None:
        return ""
    ours, baseline = report.ours.label, report.strongest_baseline.label
    names: dict[str, list[str]] = {"better": [], "worse": [], "even": []}
    for subgroup in report.subgroups:
        if subgroup.outcome:
            names[subgroup.outcome].append(f"{subgroup.group} {subgroup.name}")
    sentences = []
    if names["better"]:
        sentences.append(f"{ours} is better than {baseline} for {join_words(names['better'])}.")
    if names["worse"]:
        sentences.append(f"{baseline} is better for {join_words(names['worse'])}.")
    if names["even"]:
        sentences.append(f"No difference is shown for {join_words(names['even'])}.")
    return " ".join(sentences)


def describe_index_cost(index_cost: IndexCost) -> str:
    """Describe how much of the metric is lost by the model, the vectors and the index.

    Args:
        index_cost: the losses.
    """
    label = metric_label(index_cost.metric)
    text = (
        f"The model loses {1 - index_cost.model_metric.mean:.4f} of a perfect {label} of 1. Replacing its "
        f"scores by vectors of width {index_cost.dim} loses another {_format_loss(index_cost.vector_loss)}."
    )
    cheap = next((point for point in index_cost.operating_points if point.loss.low <= 0), None)
    if cheap is not None:
        text += (
            f" The index ({index_cost.index_type}) has no measurable loss from {cheap.nprobe} probed "
            f"{'list' if cheap.nprobe == 1 else 'lists'} on: {_format_loss(cheap.loss)}, with "
            f"{cheap.recall:.1%} recall of exact search."
        )
    elif index_cost.operating_points:
        last = index_cost.operating_points[-1]
        text += (
            f" The index ({index_cost.index_type}) loses {_format_loss(last.loss)} at {last.nprobe} probed "
            f"lists, with {last.recall:.1%} recall of exact search."
        )
    if index_cost.operating_points and max(
        point.queries_per_second for point in index_cost.operating_points
    ) < (index_cost.exact_search.queries_per_second):
        text += f" Among {index_cost.n_items:,} items exact search is faster."
    return text


def _format_loss(interval: Interval) -> str:
    return f"{format_signed(interval.mean)} ({_format_bounds(interval)})"


def _format_bounds(interval: Interval) -> str:
    return f"{format_signed(interval.low)} to {format_signed(interval.high)}"


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]
