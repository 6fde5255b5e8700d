"""What the numbers of a report say, in words; nothing is claimed that an interval does not bear out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmattn.evaluation.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from mmattn.evaluation.modality_gap import ModalityGap
    from mmattn.experiments.index_cost import IndexCost
    from mmattn.reports.results import Ablation, Report

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

_ALIGNMENT_MARGIN = (
    0.1  # how much closer, in cosine, the vectors of one item are where two contents share a space
)

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
    "min_dcf": "Least detection cost",
}
_METRIC_LABELS = {"ndcg": "nDCG", "mrr": "MRR", "hit": "Hit rate", "map": "MAP"}


def metric_label(metric: str) -> str:
    """How a metric's name is written for people.

    Example:
        >>> metric_label("ndcg@20"), metric_label("recall@20")
        ('nDCG@20', 'Recall@20')
    """
    name, at, cut = metric.partition("@")
    return _METRIC_LABELS.get(name, name.capitalize()) + at + cut


def task_metric_label(figure: str) -> str:
    """How a figure's name is written for people.

    Example:
        >>> task_metric_label("wer"), task_metric_label("macro f1"), task_metric_label("word accuracy")
        ('Word error rate', 'Macro F1', 'Word accuracy')
    """
    return _TASK_METRIC_LABELS.get(figure, figure[:1].upper() + figure[1:])


def format_signed(value: float) -> str:
    """A difference with its sign, to four places.

    Example:
        >>> format_signed(0.01234), format_signed(-0.5)
        ('+0.0123', '−0.5000')
    """
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def join_words(words: Sequence[str]) -> str:
    """A list as people write it.

    Example:
        >>> join_words(["text", "image", "table"])
        'text, image and table'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def describe_outcome(report: Report) -> str:
    """The outcome, from the strongest rival and the paired difference to it."""
    metric, label = report.primary, metric_label(report.primary)
    ours = report.ours.metrics[metric]
    own = f"{report.ours.label} reaches {label} {ours.mean:.4f} ({ours.low:.4f} to {ours.high:.4f})"
    rival = report.strongest_baseline
    if rival is None:
        return f"{own}. No rival was measured, so nothing can be said about how good that is."
    against = f"the strongest rival, {rival.label}, {rival.metrics[metric].mean:.4f}"
    difference = rival.difference.get(metric)
    if difference is None:
        return f"{own}; {against}. No paired difference was computed, so neither is called better."
    apart = f"{format_signed(difference.mean)} ({_format_bounds(difference)})"
    if not difference.excludes_zero:
        return (
            f"{report.ours.label} and {rival.label} cannot be told apart: {label} {ours.mean:.4f} against "
            f"{rival.metrics[metric].mean:.4f}, and the paired difference of {apart} includes zero."
        )
    better, worse = (report.ours, rival) if difference.mean > 0 else (rival, report.ours)
    among = len(report.systems) - 1
    rank = f", the strongest of {among} rivals" if worse is rival and among > 1 else ""
    return (
        f"{better.label} beats {worse.label}{rank}: {label} {better.metrics[metric].mean:.4f} against "
        f"{worse.metrics[metric].mean:.4f}. The paired difference, ours minus the rival's, is {apart} "
        "and excludes zero."
    )


def summarize_ablations(ablations: Sequence[Ablation], whole: Interval, metric: str) -> str:
    """Which contents earn their place, from what is lost without each; empty where none was dropped."""
    dropped = [one for one in ablations if one.kind == "drop" and metric in one.change]
    dropped = [one for one in dropped if one.part and "." not in one.part]
    if not dropped:
        return ""
    label = metric_label(metric)
    groups: dict[str, list[tuple[str, Interval]]] = {"needed": [], "unclear": [], "harmful": []}
    for one in dropped:
        change = one.change[metric]
        fate = "needed" if change.high < 0 else "harmful" if change.low > 0 else "unclear"
        groups[fate].append((one.part, change))
    words = []
    if groups["needed"]:
        names = join_words([name for name, _ in groups["needed"]])
        lost = join_words(
            [
                f"without {name} by {format_signed(c.mean)} ({_format_bounds(c)})"
                for name, c in groups["needed"]
            ]
        )
        verb = "earn their places" if len(groups["needed"]) > 1 else "earns its place"
        words.append(f"{_capitalize_first(names)} {verb}: {label} changes {lost}.")
    if groups["unclear"]:
        found = join_words([f"{name} ({_format_bounds(c)})" for name, c in groups["unclear"]])
        words.append(f"No effect is shown for {found}: the interval without it includes zero.")
    if groups["harmful"]:
        found = join_words(
            [f"{name} ({format_signed(c.mean)}, {_format_bounds(c)})" for name, c in groups["harmful"]]
        )
        words.append(f"It is better without {found}.")
    alone = [one for one in ablations if one.kind == "subset" and "+" not in one.part]
    if alone:
        best = max(alone, key=lambda one: one.metrics[metric].mean)
        words.append(
            f"Alone, {best.part} reaches the most, {best.metrics[metric].mean:.4f}, against "
            f"{whole.mean:.4f} of all together."
        )
    return " ".join(words)


def describe_gaps(gaps: Mapping[str, ModalityGap]) -> str:
    """Which contents speak of an item in one space; empty without two contents."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for pair, gap in gaps.items():
        found = f"{pair.replace(' | ', ' with ')} ({gap.matched:.3f} against {gap.unmatched:.3f})"
        told[gap.matched - gap.unmatched >= _ALIGNMENT_MARGIN].append(found)
    words = []
    if told[True]:
        words.append(
            f"Aligned: {join_words(told[True])}. "
            "The vectors of one item are closer than those of different items."
        )
    if told[False]:
        words.append(
            f"Not aligned: {join_words(told[False])}. The vectors of one item are closer than those of different "
            f"items by less than {_ALIGNMENT_MARGIN} in cosine, so that neither would find the other. Recommending "
            "does not need that; searching across contents does."
        )
    return " ".join(words)


def describe_subgroups(report: Report) -> str:
    """Where ours is better than the strongest rival and where it is worse; empty without either."""
    if report.strongest_baseline is None:
        return ""
    ours, rival = report.ours.label, report.strongest_baseline.label
    told: dict[str, list[str]] = {"better": [], "worse": [], "even": []}
    for one in report.subgroups:
        if one.outcome:
            told[one.outcome].append(f"{one.group} {one.name}")
    words = []
    if told["better"]:
        words.append(f"{ours} is better than {rival} for {join_words(told['better'])}.")
    if told["worse"]:
        words.append(f"{rival} is better for {join_words(told['worse'])}.")
    if told["even"]:
        words.append(f"The two cannot be told apart for {join_words(told['even'])}.")
    return " ".join(words)


def describe_index_cost(index_cost: IndexCost) -> str:
    """What the model, the vectors and the index lose of a perfect 1."""
    label = metric_label(index_cost.metric)
    words = (
        f"Of a perfect {label} of 1 the model loses {1 - index_cost.model_metric.mean:.4f}. Vectors of width "
        f"{index_cost.dim} in place of its own scores lose {_format_loss(index_cost.vector_loss)} more."
    )
    cheap = next((point for point in index_cost.operating_points if point.loss.low <= 0), None)
    if cheap is not None:
        words += (
            f" The index ({index_cost.index_type}) loses nothing that can be shown from {cheap.nprobe} probed "
            f"{'list' if cheap.nprobe == 1 else 'lists'} on: {_format_loss(cheap.loss)}, while it finds "
            f"{cheap.recall:.1%} of what exact search finds."
        )
    elif index_cost.operating_points:
        last = index_cost.operating_points[-1]
        words += (
            f" The index ({index_cost.index_type}) loses {_format_loss(last.loss)} at {last.nprobe} probed lists, where it "
            f"finds {last.recall:.1%} of what exact search finds."
        )
    if index_cost.operating_points and max(
        point.queries_per_second for point in index_cost.operating_points
    ) < (index_cost.exact_search.queries_per_second):
        words += f" Among {index_cost.n_items:,} items exact search is the quicker one anyway."
    return words


def _format_loss(interval: Interval) -> str:
    return f"{format_signed(interval.mean)} ({_format_bounds(interval)})"


def _format_bounds(interval: Interval) -> str:
    return f"{format_signed(interval.low)} to {format_signed(interval.high)}"


def _capitalize_first(words: str) -> str:
    return words[:1].upper() + words[1:]
