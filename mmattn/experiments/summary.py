"""From the seeds of a run to its report: intervals, paired differences, curves and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.evaluation.modality_gap import Gap
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired
from mmattn.experiments.ablation import PREFIXES
from mmattn.experiments.config import RivalConfig
from mmattn.experiments.experiment import Experiment
from mmattn.experiments.protocol import make_split
from mmattn.experiments.provenance import data_summary, protocol, protocol_in_words, provenance
from mmattn.experiments.seed_result import SeedResult
from mmattn.reports.report import write_report
from mmattn.reports.results import (
    OURS,
    Curve,
    Example,
    Kind,
    Knockout,
    Panel,
    Report,
    Shown,
    Stratum,
    System,
)
from mmattn.reports.sentences import metric_label
from mmattn.types import Sample

__all__ = ["summarise"]

_HISTORY_SHOWN = 6
_LABELS = {"drop": "without {}", "shuffle": "another item's {}", "noise": "noise for {}"}
_WHY = {
    "drawn": "Drawn at random",
    "best": "Served best: the highest {}",
    "worst": "Served worst: the lowest {}",
}


def summarise(experiment: Experiment, results: Sequence[SeedResult]) -> Report:
    """Write report.html, metrics.json and the tables into the run's folder."""
    systems = _systems(experiment, results)
    rivals = [system for system in systems if system.name != OURS]
    primary = experiment.config.protocol.metrics[0]
    strongest = max(rivals, key=lambda rival: rival.metrics[primary].mean, default=None)
    knockouts = _knockouts(results)
    report = Report(
        title=experiment.config.name,
        data=data_summary(experiment, results),
        systems=systems,
        protocol=protocol(experiment),
        protocol_words=protocol_in_words(experiment),
        knockouts=(*knockouts, *_subsets(experiment, knockouts)),
        depth=_depth(results),
        strata=_strata(experiment, results, strongest),
        served=next((result.served for result in results if result.served is not None), None),
        gaps=_gaps(results),
        panels=_panels(experiment, results),
        examples=_examples(experiment, results[0]),
        provenance=provenance(experiment, results),
    )
    write_report(experiment.folder / "report.html", report)
    return report


def _systems(experiment: Experiment, results: Sequence[SeedResult]) -> tuple[System, ...]:
    ours = _per_metric(results, "values", OURS)
    systems = []
    for name in results[0].values:
        theirs = _per_metric(results, "values", name)
        rival, chosen = experiment.config.rivals.get(name), results[0].chosen.get(name, {})
        systems.append(
            System(
                name=name,
                label=name,
                metrics={metric: bootstrap(values) for metric, values in theirs.items()},
                note=_ours(experiment) if rival is None else _note(rival, chosen),
                difference={} if name == OURS else _differences(ours, theirs),
            )
        )
    return tuple(systems)


def _knockouts(results: Sequence[SeedResult]) -> tuple[Knockout, ...]:
    whole = _per_metric(results, "values", OURS)
    kinds: dict[str, Kind] = {prefix: kind for kind, prefix in PREFIXES.items()}
    found = []
    for name in _in_all(results, "knockouts"):
        values = _per_metric(results, "knockouts", name)
        prefix, _, part = name.partition("-")
        kind = kinds.get(prefix, "subset")
        found.append(
            Knockout(
                name=name,
                label=_LABELS[kind].format(part) if kind in _LABELS else part.replace("+", " + "),
                metrics={metric: bootstrap(one) for metric, one in values.items()},
                change=_differences(values, whole),
                kind=kind,
                part=part.replace("+", " + "),
            )
        )
    return tuple(found)


def _subsets(experiment: Experiment, knockouts: Sequence[Knockout]) -> tuple[Knockout, ...]:
    """Subsets that lack one content: measured as its drop, and shown among the subsets too."""
    contents = list(experiment.config.contents)
    if not experiment.config.evaluation.subsets:
        return ()
    found = []
    for one in knockouts:
        if one.kind == "drop" and one.part in contents:
            left = [content for content in contents if content != one.part]
            name, label = "only-" + "+".join(left), " + ".join(left)
            found.append(replace(one, name=name, label=label, kind="subset", part=label))
    return tuple(found)


def _depth(results: Sequence[SeedResult]) -> Panel | None:
    """Recall against k, mean over the seeds, the best system first."""
    depths = min((result.depths for result in results), key=len)
    if len(depths) < 2:
        return None
    found = {
        name: np.mean([result.recall[name][: len(depths)] for result in results], axis=0)
        for name in results[0].recall
    }
    curves = [
        Curve(name, tuple(map(float, depths)), tuple(map(float, values)))
        for name, values in sorted(found.items(), key=lambda pair: -pair[1].mean())
    ]
    return Panel(title="Recall at k", x_label="k", curves=tuple(curves), log=True)


def _strata(
    experiment: Experiment, results: Sequence[SeedResult], strongest: System | None
) -> tuple[Stratum, ...]:
    cut = experiment.config.protocol.metrics[0].partition("@")[2]
    found = []
    for name in _in_all(results, "strata"):
        group, _, label = name.partition(": ")
        values = _per_metric(results, "strata", name)
        found.append(
            Stratum(
                group=group,
                name=label,
                metric=f"{experiment.config.evaluation.strata_metric}@{cut}",
                systems={system: bootstrap(one) for system, one in values.items()},
                difference=None if strongest is None else paired(values[OURS], values[strongest.name]),
            )
        )
    return tuple(found)


def _gaps(results: Sequence[SeedResult]) -> dict[str, Gap]:
    """Means over the seeds, of the pairs that at least two items have both of."""
    found = {}
    for pair in _in_all(results, "gaps"):
        seeds = [result.gaps[pair] for result in results]
        if min(gap.samples for gap in seeds) > 1:
            distance, matched, unmatched = np.mean(
                [(gap.distance, gap.matched, gap.unmatched) for gap in seeds], axis=0
            ).tolist()
            found[pair] = Gap(distance, matched, unmatched, seeds[0].samples)
    return found


def _in_all(results: Sequence[SeedResult], group: str) -> list[str]:
    """Names that every seed has, in the order of the first."""
    return [name for name in getattr(results[0], group) if all(name in getattr(r, group) for r in results)]


def _per_metric(results: Sequence[SeedResult], group: str, name: str) -> dict[str, NDArray[np.float64]]:
    """metric (of a stratum: system) -> [S, U]."""
    return {
        metric: np.stack([getattr(result, group)[name][metric] for result in results])
        for metric in getattr(results[0], group)[name]
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Interval]:
    return {metric: paired(values, theirs[metric]) for metric, values in ours.items()}


def _ours(experiment: Experiment) -> str:
    if experiment.config.hybrid is not None:
        return "co-choice, attention over users and over fused tokens, in one list; chosen on validation"
    return "attention over fused tokens; epoch chosen on validation"


def _note(config: RivalConfig, chosen: Mapping[str, Any]) -> str:
    """What a rival was given, in a few words, and what validation chose for it (in the first seed)."""
    content = [*config.vectors, *config.tags, *config.rare, *config.numbers]
    given = f"content: {', '.join(content)}" if content else "interactions only"
    shape = f"; exp({config.exponent:g} K)" if config.exponent else ""
    strength = f"; strength {config.strength:g}" if config.strength else ""
    if chosen:
        shape, strength = "", f"; chosen: {', '.join(f'{key} {value:.3g}' for key, value in chosen.items())}"
    return f"{config.kind}; {given}{shape}{strength}"


def _panels(experiment: Experiment, results: Sequence[SeedResult]) -> tuple[Panel, ...]:
    first = experiment.config.protocol.metrics[0]
    wanted = {"loss": "Training loss", first: f"Validation {metric_label(first)}"}
    panels = []
    for key, title in wanted.items():
        curves = tuple(
            Curve(
                label=f"seed {result.seed}",
                x=tuple(row["epoch"] for row in result.history.rows),
                y=tuple(row[key] for row in result.history.rows),
                chosen=float(result.history.best_epoch) if key == first else None,
            )
            for result in results
            if result.history.rows
        )
        panels.append(Panel(title=title, x_label="epoch", curves=curves))
    return tuple(panels)


def _examples(experiment: Experiment, result: SeedResult) -> tuple[Example, ...]:
    """Of one seed: users drawn at random, the best and the worst served."""
    split = make_split(experiment.dataset, experiment.config.protocol, result.seed)
    known, right = split.known("test"), split.matrix("test")
    metric = experiment.config.protocol.metrics[0]
    items, found = experiment.dataset.items, []
    for why, users in result.shown.items():
        for user, top in zip(users.tolist(), result.top[why], strict=True):
            met, hits = known[[user]].indices, set(right[[user]].indices.tolist())
            value = result.values[OURS][metric][user]
            found.append(
                Example(
                    user=f"User {experiment.dataset.user_ids[user]}",
                    history=tuple(_shown(items[item]) for item in met[:_HISTORY_SHOWN]),
                    recommended=tuple(
                        _shown(items[item], hit=int(item) in hits) for item in top if item >= 0
                    ),
                    note=f"{metric_label(metric)} {value:.4f}; {len(met):,} items in the history, "
                    f"{len(hits):,} to be found",
                    why=_WHY[why].format(metric_label(metric)),
                )
            )
    return tuple(found)


def _shown(item: Sample, hit: bool = False) -> Shown:
    text = item.content.get("text")
    fields = [text] if isinstance(text, str) else [field for field in text or () if field]
    picture = item.content.get("image")
    year = (item.content.get("table") or {}).get("year")
    return Shown(
        title=fields[0] if fields else item.id,
        picture=picture if isinstance(picture, (Path, bytes)) else None,
        hit=hit,
        note="" if year is None else f"{year:g}",
    )
