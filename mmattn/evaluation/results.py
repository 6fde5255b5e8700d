"""What a report is made of, as plain data: the runner fills it, `mmattn.evaluation.report` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mmattn.errors import InputError, nearest
from mmattn.evaluation.intervals import Interval

__all__ = [
    "OURS",
    "Curve",
    "DataSummary",
    "Example",
    "Knockout",
    "Panel",
    "Report",
    "Shown",
    "System",
    "metric_label",
    "signed",
]

OURS = "mmattn"
Metrics = Mapping[str, Interval]

_METRIC_LABELS = {"ndcg": "nDCG", "mrr": "MRR", "hit": "Hit rate"}


def metric_label(metric: str) -> str:
    """How a metric's name is written for people.

    Example:
        >>> metric_label("ndcg@20"), metric_label("recall@20")
        ('nDCG@20', 'Recall@20')
    """
    name, at, cut = metric.partition("@")
    return _METRIC_LABELS.get(name, name.capitalize()) + at + cut


def signed(value: float) -> str:
    """A difference with its sign, to four places.

    Example:
        >>> signed(0.01234), signed(-0.5)
        ('+0.0123', '−0.5000')
    """
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class System:
    """One row of the table.

    Args:
        name: short and unique, the key in metrics.json; ours is "mmattn".
        label: what the reader sees.
        metrics: metric name -> its mean and interval.
        note: what it was given and how it was tuned, in a few words.
        difference: metric name -> the paired interval of ours minus this one; empty for ours.
    """

    name: str
    label: str
    metrics: Metrics
    note: str = ""
    difference: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Knockout:
    """Our system with something taken away.

    Args:
        name: key in metrics.json, for example "without-image".
        label: what the reader sees.
        metrics: metric name -> its mean and interval.
        change: metric name -> the paired interval of this minus the whole system.
    """

    name: str
    label: str
    metrics: Metrics
    change: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Args:
        label: for example "seed 0".
        x: steps or epochs, ascending.
        y: values, as many.
        chosen: the x at which the model was kept; None where that means nothing.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    chosen: float | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not self.x:
            raise InputError(
                f"Curve {self.label!r}: got {len(self.x)} x and {len(self.y)} y, expected as many of both"
            )


@dataclass(frozen=True)
class Panel:
    """Learning curves that share their axes."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Shown:
    """An item as the examples show it.

    Args:
        title: its name.
        picture: a path, encoded bytes or a PIL image; None shows a placeholder.
        hit: whether the user did choose it (recommendations only).
        note: a few words more, for example "1995".
    """

    title: str
    picture: Path | bytes | Image.Image | None = None
    hit: bool = False
    note: str = ""


@dataclass(frozen=True)
class Example:
    """What one user had chosen, and what was then recommended, best first."""

    user: str
    history: tuple[Shown, ...]
    recommended: tuple[Shown, ...]
    note: str = ""


@dataclass(frozen=True)
class DataSummary:
    """Counts of what was there.

    Args:
        name: of the data set.
        users: U.
        items: I.
        interactions: n.
        presence: modality -> how many items have it.
        combinations: modalities joined by " + " -> how many items have exactly these.
        parts: part or group ("train", "cold items") -> how many, for the first seed.
        rejected: how many contents could not be read.
        source: where the data come from and under which terms.
    """

    name: str
    users: int
    items: int
    interactions: int
    presence: Mapping[str, int]
    combinations: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    rejected: int = 0
    source: str = ""


@dataclass(frozen=True)
class Report:
    """Everything the page shows and metrics.json holds.

    Args:
        title: of the run.
        data: counts.
        systems: ours, named "mmattn", and its rivals; all with the same metrics.
        protocol: settings for machines (split, seeds, cut-offs, ties), into metrics.json as they are.
        protocol_words: the same for people, a sentence or two each.
        primary: the metric that the verdict is about; by default the first of ours.
        verdict: in words; left out, it is written from the numbers.
        knockouts: ours with something taken away.
        panels: learning curves.
        examples: recommendations to look at.
        provenance: section ("versions", "encoders", "program", "config") -> a mapping or a text.

    Raises:
        InputError: ours is missing, a name comes twice, or systems were measured differently.
    """

    title: str
    data: DataSummary
    systems: tuple[System, ...]
    protocol: Mapping[str, Any]
    protocol_words: tuple[str, ...] = ()
    primary: str = ""
    verdict: str = ""
    knockouts: tuple[Knockout, ...] = ()
    panels: tuple[Panel, ...] = ()
    examples: tuple[Example, ...] = ()
    provenance: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if OURS not in names or len(set(names)) < len(names):
            raise InputError(f"Report: got systems {names}, expected {OURS!r} among them and each name once")
        metrics = list(self.ours.metrics)
        measured: list[System | Knockout] = [*self.systems, *self.knockouts]
        for one in measured:
            if set(one.metrics) != set(metrics) or not metrics:
                raise InputError(
                    f"Report: {one.name!r} has metrics {sorted(one.metrics)}, expected {sorted(metrics)} as "
                    f"{OURS!r} has"
                )
        if not self.primary:
            object.__setattr__(self, "primary", metrics[0])
        if self.primary not in metrics:
            raise InputError(
                f"Report: no metric {self.primary!r} to judge by.{nearest(self.primary, metrics)}"
            )
        if not self.verdict:
            object.__setattr__(self, "verdict", _verdict(self))

    @property
    def ours(self) -> System:
        """Our system."""
        return next(system for system in self.systems if system.name == OURS)

    @property
    def strongest_rival(self) -> System | None:
        """The rival with the highest mean of the primary metric; None where there is no rival."""
        rivals = [system for system in self.systems if system.name != OURS]
        return max(rivals, key=lambda rival: rival.metrics[self.primary].mean, default=None)

    def to_json(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return {
            "protocol": dict(self.protocol),
            "systems": {system.name: _to_json(system.metrics) for system in self.systems},
            "knockouts": {knockout.name: _to_json(knockout.metrics) for knockout in self.knockouts},
            "differences": {s.name: _to_json(s.difference) for s in self.systems if s.difference},
            "changes": {k.name: _to_json(k.change) for k in self.knockouts if k.change},
        }


def _to_json(metrics: Metrics) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in metrics.items()}


def _verdict(report: Report) -> str:
    """The outcome in words, from the strongest rival and the paired difference to it."""
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
    apart = f"{signed(difference.mean)} ({signed(difference.low)} to {signed(difference.high)})"
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
