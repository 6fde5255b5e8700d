"""What the numbers of a report say, in words; nothing is claimed that an interval does not bear out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmattn.evaluation.statistics.bootstrap import Interval

if TYPE_CHECKING:
    from mmattn.evaluation.modality_gap import Gap
    from mmattn.experiments.index_cost import Served
    from mmattn.reports.results import Knockout, Report

__all__ = [
    "figure_label", "gaps_in_words", "joined", "metric_label", "served_in_words", "signed", "strata_in_words",
    "verdict", "worth",
]  # fmt: skip

_ALIGNED = 0.1  # how much closer, in cosine, the vectors of one item are where two contents share a space

_FIGURE_LABELS = {
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


def figure_label(figure: str) -> str:
    """How a figure's name is written for people.

    Example:
        >>> figure_label("wer"), figure_label("macro f1"), figure_label("word accuracy")
        ('Word error rate', 'Macro F1', 'Word accuracy')
    """
    return _FIGURE_LABELS.get(figure, figure[:1].upper() + figure[1:])


def signed(value: float) -> str:
    """A difference with its sign, to four places.

    Example:
        >>> signed(0.01234), signed(-0.5)
        ('+0.0123', '−0.5000')
    """
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def joined(words: Sequence[str]) -> str:
    """A list as people write it.

    Example:
        >>> joined(["text", "image", "table"])
        'text, image and table'
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def verdict(report: Report) -> str:
    """The outcome, from the strongest rival and the paired difference to it."""
    metric, label = report.primary, metric_label(report.primary)
    ours = report.ours.metrics[metric]
    own = f"{report.ours.label} reaches {label} {ours.mean:.4f} ({ours.low:.4f} to {ours.high:.4f})"
    rival = report.strongest_rival
    if rival is None:
        return f"{own}. No rival was measured, so nothing can be said about how good that is."
    against = f"the strongest rival, {rival.label}, {rival.metrics[metric].mean:.4f}"
    difference = rival.difference.get(metric)
    if difference is None:
        return f"{own}; {against}. No paired difference was computed, so neither is called better."
    apart = f"{signed(difference.mean)} ({_ends(difference)})"
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


def worth(knockouts: Sequence[Knockout], whole: Interval, metric: str) -> str:
    """Which contents earn their place, from what is lost without each; empty where none was dropped."""
    dropped = [one for one in knockouts if one.kind == "drop" and metric in one.change]
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
        names = joined([name for name, _ in groups["needed"]])
        lost = joined([f"without {name} by {signed(c.mean)} ({_ends(c)})" for name, c in groups["needed"]])
        verb = "earn their places" if len(groups["needed"]) > 1 else "earns its place"
        words.append(f"{_capital(names)} {verb}: {label} changes {lost}.")
    if groups["unclear"]:
        found = joined([f"{name} ({_ends(c)})" for name, c in groups["unclear"]])
        words.append(f"No effect is shown for {found}: the interval without it includes zero.")
    if groups["harmful"]:
        found = joined([f"{name} ({signed(c.mean)}, {_ends(c)})" for name, c in groups["harmful"]])
        words.append(f"It is better without {found}.")
    alone = [one for one in knockouts if one.kind == "subset" and "+" not in one.part]
    if alone:
        best = max(alone, key=lambda one: one.metrics[metric].mean)
        words.append(
            f"Alone, {best.part} reaches the most, {best.metrics[metric].mean:.4f}, against "
            f"{whole.mean:.4f} of all together."
        )
    return " ".join(words)


def gaps_in_words(gaps: Mapping[str, Gap]) -> str:
    """Which contents speak of an item in one space; empty without two contents."""
    told: dict[bool, list[str]] = {True: [], False: []}
    for pair, gap in gaps.items():
        found = f"{pair.replace(' | ', ' with ')} ({gap.matched:.3f} against {gap.unmatched:.3f})"
        told[gap.matched - gap.unmatched >= _ALIGNED].append(found)
    words = []
    if told[True]:
        words.append(
            f"Aligned: {joined(told[True])}. "
            "The vectors of one item are closer than those of different items."
        )
    if told[False]:
        words.append(
            f"Not aligned: {joined(told[False])}. The vectors of one item are closer than those of different "
            f"items by less than {_ALIGNED} in cosine, so that neither would find the other. Recommending "
            "does not need that; searching across contents does."
        )
    return " ".join(words)


def strata_in_words(report: Report) -> str:
    """Where ours is better than the strongest rival and where it is worse; empty without either."""
    if report.strongest_rival is None:
        return ""
    ours, rival = report.ours.label, report.strongest_rival.label
    told: dict[str, list[str]] = {"better": [], "worse": [], "even": []}
    for one in report.strata:
        if one.outcome:
            told[one.outcome].append(f"{one.group} {one.name}")
    words = []
    if told["better"]:
        words.append(f"{ours} is better than {rival} for {joined(told['better'])}.")
    if told["worse"]:
        words.append(f"{rival} is better for {joined(told['worse'])}.")
    if told["even"]:
        words.append(f"The two cannot be told apart for {joined(told['even'])}.")
    return " ".join(words)


def served_in_words(served: Served) -> str:
    """What the model, the vectors and the index lose of a perfect 1."""
    label = metric_label(served.metric)
    words = (
        f"Of a perfect {label} of 1 the model loses {1 - served.scores.mean:.4f}. Vectors of width "
        f"{served.width} in place of its own scores lose {_loss(served.vector_loss)} more."
    )
    cheap = next((point for point in served.points if point.loss.low <= 0), None)
    if cheap is not None:
        words += (
            f" The index ({served.kind}) loses nothing that can be shown from {cheap.effort} probed "
            f"{'list' if cheap.effort == 1 else 'lists'} on: {_loss(cheap.loss)}, while it finds "
            f"{cheap.recall:.1%} of what exact search finds."
        )
    elif served.points:
        last = served.points[-1]
        words += (
            f" The index ({served.kind}) loses {_loss(last.loss)} at {last.effort} probed lists, where it "
            f"finds {last.recall:.1%} of what exact search finds."
        )
    if served.points and max(point.queries_per_second for point in served.points) < (
        served.exact.queries_per_second
    ):
        words += f" Among {served.items:,} items exact search is the quicker one anyway."
    return words


def _loss(interval: Interval) -> str:
    return f"{signed(interval.mean)} ({_ends(interval)})"


def _ends(interval: Interval) -> str:
    return f"{signed(interval.low)} to {signed(interval.high)}"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
