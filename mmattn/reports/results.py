"""What a report is made of, as plain data: the runner fills it, `mmattn.reports.report` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.evaluation.statistics.bootstrap import Interval

__all__ = [
    "ABLATION_LABELS",
    "OURS",
    "Ablation",
    "AblationKind",
    "Curve",
    "DataSummary",
    "Example",
    "ExampleItem",
    "Panel",
    "RecommendationReport",
    "Report",
    "Subgroup",
    "System",
]

OURS = "mmattn"
Metrics = Mapping[str, Interval]
AblationKind = Literal["drop", "shuffle", "noise", "subset"]
ABLATION_LABELS: Mapping[AblationKind, str] = {
    "drop": "without it",
    "shuffle": "another item's",
    "noise": "noise",
}


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
class Ablation:
    """Our system with something taken away.

    Args:
        name: key in metrics.json, for example "without-image".
        label: what the reader sees.
        metrics: metric name -> its mean and interval.
        change: metric name -> the paired interval of this minus the whole system.
        kind: in which way, or "subset" where only `part` is left.
        part: what is taken away: a content, "content.encoder" for one of its encoders; of a subset what
            is left, joined by " + ".
    """

    name: str
    label: str
    metrics: Metrics
    change: Metrics = field(default_factory=dict)
    kind: AblationKind = "drop"
    part: str = ""


@dataclass(frozen=True)
class Subgroup:
    """Some of the items or users, looked at by themselves.

    Args:
        group: what is divided: "cold items", "items" or "history".
        name: of the subgroup, for example "head" or "1 to 9".
        metric: what was measured.
        systems: system -> its mean and interval.
        difference: ours minus the strongest baseline, paired; None where there is no baseline.
    """

    group: str
    name: str
    metric: str
    systems: Metrics
    difference: Interval | None = None

    @property
    def outcome(self) -> Literal["better", "worse", "even", ""]:
        """Ours against the strongest baseline, as far as the interval tells them apart."""
        if self.difference is None:
            return ""
        if not self.difference.excludes_zero:
            return "even"
        return "better" if self.difference.mean > 0 else "worse"


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Args:
        label: for example "seed 0".
        x: steps or epochs, ascending.
        y: values, as many.
        selected_x: the x at which the model was kept; None where that means nothing.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    selected_x: float | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or not self.x:
            raise InputError(
                f"Curve {self.label!r}: got {len(self.x)} x and {len(self.y)} y, expected as many of both"
            )


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes.

    Args:
        title: what y is.
        x_label: what x is.
        curves: one or more.
        log_x: x is drawn by its logarithm.
        markers: every point is marked, not only the one that was kept.
    """

    title: str
    x_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    markers: bool = False


@dataclass(frozen=True)
class ExampleItem:
    """An item as the examples show it.

    Args:
        title: its name.
        image: a path, encoded bytes or a PIL image; None shows a placeholder.
        hit: whether the user did choose it (recommendations only).
        note: a few words more, for example "1995".
    """

    title: str
    image: Path | bytes | Image.Image | None = None
    hit: bool = False
    note: str = ""


@dataclass(frozen=True)
class Example:
    """What one user had chosen, and what was then recommended, best first.

    Args:
        user: a name.
        history: some of what was chosen before.
        recommended: best first.
        note: a few words more.
        reason: the examples of one reason are shown together, under it.
    """

    user: str
    history: tuple[ExampleItem, ...]
    recommended: tuple[ExampleItem, ...]
    note: str = ""
    reason: str = ""


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


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the page of every kind of run shows and metrics.json holds.

    Args:
        title: of the run.
        protocol: settings for machines (split, seeds, cut-offs, ties), into metrics.json as they are.
        protocol_sentences: the same for people, a sentence or two each.
        learning_curves: of the trainings.
        provenance: section ("versions", "encoders", "program", "config") -> a mapping or a text.
    """

    title: str
    protocol: Mapping[str, Any]
    protocol_sentences: Sequence[str] = ()
    learning_curves: tuple[Panel, ...] = ()
    provenance: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        return {"protocol": dict(self.protocol)}


@dataclass(frozen=True, kw_only=True)
class RecommendationReport(Report):
    """The report of a recommender.

    Args:
        data: counts.
        systems: ours, named "mmattn", and its baselines; all with the same metrics.
        primary: the metric that the verdict is about; by default the first of ours.
        verdict: in words; left out, it is written from the numbers.
        ablations: ours with something taken away.
        recall_curve: recall against k, a curve a system.
        subgroups: of items and users.
        index_cost: what vectors and an index lose.
        modality_gaps: "content | content" -> how far apart their vectors lie.
        examples: recommendations to look at.

    Raises:
        InputError: ours is missing, a name comes twice, or systems were measured differently.
    """

    data: DataSummary
    systems: tuple[System, ...]
    primary: str = ""
    verdict: str = ""
    ablations: tuple[Ablation, ...] = ()
    recall_curve: Panel | None = None
    subgroups: tuple[Subgroup, ...] = ()
    index_cost: IndexCost | None = None
    modality_gaps: Mapping[str, ModalityGap] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if OURS not in names or len(set(names)) < len(names):
            raise InputError(f"Report: got systems {names}, expected {OURS!r} among them and each name once")
        metrics = list(self.ours.metrics)
        measured: list[System | Ablation] = [*self.systems, *self.ablations]
        for result in measured:
            if set(result.metrics) != set(metrics) or not metrics:
                raise InputError(
                    f"Report: {result.name!r} has metrics {sorted(result.metrics)}, "
                    f"expected {sorted(metrics)} as "
                    f"{OURS!r} has"
                )
        if not self.primary:
            object.__setattr__(self, "primary", metrics[0])
        if self.primary not in metrics:
            raise InputError(
                f"Report: no metric {self.primary!r} to judge by.{did_you_mean(self.primary, metrics)}"
            )

    @property
    def ours(self) -> System:
        """Our system."""
        return next(system for system in self.systems if system.name == OURS)

    @property
    def strongest_baseline(self) -> System | None:
        """The baseline with the highest mean of the primary metric; None without baselines."""
        baselines = [system for system in self.systems if system.name != OURS]
        return max(baselines, key=lambda system: system.metrics[self.primary].mean, default=None)

    def to_json(self) -> dict[str, Any]:
        return {
            **super().to_json(),
            "systems": {system.name: _to_json(system.metrics) for system in self.systems},
            "ablations": {ablation.name: _to_json(ablation.metrics) for ablation in self.ablations},
            "differences": {s.name: _to_json(s.difference) for s in self.systems if s.difference},
            "ablation_changes": {a.name: _to_json(a.change) for a in self.ablations if a.change},
            "recall_at_k": {} if self.recall_curve is None else _curves(self.recall_curve),
            "subgroups": {
                f"{subgroup.group}: {subgroup.name}": {
                    "metric": subgroup.metric,
                    "systems": _to_json(subgroup.systems),
                    "difference": None if subgroup.difference is None else subgroup.difference.to_json(),
                }
                for subgroup in self.subgroups
            },
            "index_cost": None if self.index_cost is None else self.index_cost.to_dict(),
            "modality_gaps": {name: asdict(gap) for name, gap in self.modality_gaps.items()},
        }


def _curves(panel: Panel) -> dict[str, dict[str, float]]:
    return {
        curve.label: {f"{x:g}": y for x, y in zip(curve.x, curve.y, strict=True)} for curve in panel.curves
    }


def _to_json(metrics: Metrics) -> dict[str, Any]:
    return {name: interval.to_json() for name, interval in metrics.items()}
