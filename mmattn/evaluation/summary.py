"""From the seeds of a run to its report: intervals, paired differences, curves, examples, provenance."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mmattn import attention, schema
from mmattn.config import RivalConfig
from mmattn.evaluation.experiment import Experiment
from mmattn.evaluation.intervals import Interval, bootstrap, paired
from mmattn.evaluation.protocol import TIES, make_split
from mmattn.evaluation.report import write_report
from mmattn.evaluation.results import (
    OURS,
    Curve,
    DataSummary,
    Example,
    Knockout,
    Panel,
    Report,
    Shown,
    System,
    metric_label,
)
from mmattn.evaluation.seed import SeedResult
from mmattn.types import Sample

__all__ = ["summarise"]

_LIBRARIES = ("mmattn", "torch", "numpy", "scipy", "transformers", "timm")
_HISTORY_SHOWN = 6


def summarise(experiment: Experiment, results: Sequence[SeedResult]) -> Report:
    """Write report.html and metrics.json into the run's folder."""
    report = Report(
        title=experiment.config.name,
        data=_data(experiment, results),
        systems=_systems(experiment, results),
        protocol=_protocol(experiment),
        protocol_words=_words(experiment),
        knockouts=_knockouts(results),
        panels=_panels(experiment, results),
        examples=_examples(experiment, results[0]),
        provenance=_provenance(experiment, results),
    )
    write_report(experiment.folder / "report.html", report)
    return report


def _systems(experiment: Experiment, results: Sequence[SeedResult]) -> tuple[System, ...]:
    ours = _per_metric(results, "values", OURS)
    systems = []
    for name in results[0].values:
        theirs = _per_metric(results, "values", name)
        config = experiment.config.rivals.get(name)
        systems.append(
            System(
                name=name,
                label=name,
                metrics={metric: bootstrap(values) for metric, values in theirs.items()},
                note=_note(config),
                difference={} if name == OURS else _differences(ours, theirs),
            )
        )
    return tuple(systems)


def _knockouts(results: Sequence[SeedResult]) -> tuple[Knockout, ...]:
    whole = _per_metric(results, "values", OURS)
    found = []
    for content in results[0].knockouts:
        without = _per_metric(results, "knockouts", content)
        found.append(
            Knockout(
                name=f"without-{content}",
                label=f"without {content}",
                metrics={metric: bootstrap(values) for metric, values in without.items()},
                change=_differences(without, whole),
            )
        )
    return tuple(found)


def _per_metric(results: Sequence[SeedResult], group: str, name: str) -> dict[str, Any]:
    """metric -> [S, U] of one system."""
    return {
        metric: np.stack([getattr(result, group)[name][metric] for result in results])
        for metric in getattr(results[0], group)[name]
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Interval]:
    return {metric: paired(values, theirs[metric]) for metric, values in ours.items()}


def _note(config: RivalConfig | None) -> str:
    """What a rival was given, in a few words."""
    if config is None:
        return "attention over fused tokens; epoch chosen on validation"
    content = [*config.vectors, *config.tags, *config.rare, *config.numbers]
    given = f"content: {', '.join(content)}" if content else "interactions only"
    shape = f"; exp({config.exponent:g} K)" if config.exponent else ""
    strength = f"; strength {config.strength:g}" if config.strength else ""
    return f"{config.kind}; {given}{shape}{strength}"


def _data(experiment: Experiment, results: Sequence[SeedResult]) -> DataSummary:
    summary = experiment.dataset.summary()
    card = experiment.dataset.card
    return DataSummary(
        name=card.name,
        users=summary["users"],
        items=summary["items"],
        interactions=summary["interactions"],
        presence=summary["presence"],
        combinations={key.replace("+", " + "): count for key, count in summary["combinations"].items()},
        parts=results[0].parts,
        rejected=len(experiment.dataset.rejected) + experiment.rejected,
        source=" ".join(part for part in (card.description, card.licence) if part),
    )


def _protocol(experiment: Experiment) -> dict[str, Any]:
    protocol = schema.to_mapping(experiment.config.protocol)
    return {
        **protocol,
        "ties": TIES,
        "masked": "train and validation",
        "intervals": "95% bootstrap over users",
    }


def _words(experiment: Experiment) -> tuple[str, ...]:
    protocol = experiment.config.protocol
    share = f"{protocol.test:.0%}"
    split = {
        "cold": f"{share} of the items are hidden with everything anybody did with them. At the test they "
        "are ranked among themselves for each user, from the user's history of other items and from their "
        "content alone.",
        "random": f"{share} of the interactions, drawn at random, are hidden and looked for among all items.",
        "time": f"The last {share} of the time line is hidden: one moment divides past and future for all.",
    }[protocol.split]
    return (
        split,
        f"Every choice was made on validation, {protocol.validation:.0%} of what remains, split off in the "
        f"same way. The epoch kept is the one with the best {metric_label(protocol.metrics[0])} there.",
        "At the test, what is known of a user from training and validation is never recommended again.",
        f"{len(protocol.seeds)} seeds ({', '.join(map(str, protocol.seeds))}), each with its own split; "
        "intervals are 95% bootstrap intervals over users, differences are paired user by user.",
    )


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
    split = make_split(experiment.dataset, experiment.config.protocol, result.seed)
    known, right = split.known("test"), split.matrix("test")
    examples = []
    for user, top in zip(result.shown, result.top, strict=True):
        met = known[[int(user)]].indices
        hits = set(right[[int(user)]].indices.tolist())
        examples.append(
            Example(
                user=experiment.dataset.user_ids[user],
                history=tuple(_shown(experiment.dataset.items[item]) for item in met[:_HISTORY_SHOWN]),
                recommended=tuple(
                    _shown(experiment.dataset.items[item], hit=int(item) in hits) for item in top if item >= 0
                ),
                note=f"{len(met):,} items in the history, {len(hits):,} to be found",
            )
        )
    return tuple(examples)


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


def _provenance(experiment: Experiment, results: Sequence[SeedResult]) -> dict[str, Mapping[str, Any] | str]:
    program = attention.parse(experiment.config.fusion.program)
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _LIBRARIES if _installed(name)},
            "device": str(experiment.device),
            "threads": torch.get_num_threads(),
        },
        "program": {
            "text": str(program),
            "in words": program.describe(),
            "fingerprint": program.fingerprint(),
        },
        "encoders": experiment.cards,
        "seconds": {f"seed {result.seed}": dict(result.seconds) for result in results},
        "config": yaml.safe_dump(schema.to_mapping(experiment.config), sort_keys=False, allow_unicode=True),
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
