"""From the seeds of a recommender's run to its report: intervals, paired differences, curves and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.array_types import Floats
from mmattn.data.dataset import Dataset
from mmattn.evaluation.modality_gap import ModalityGap
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired_bootstrap
from mmattn.experiments.ablation import ABLATION_PREFIXES
from mmattn.experiments.config import BaselineConfig, FitConfig
from mmattn.experiments.provenance import provenance
from mmattn.experiments.recommendation.description import (
    data_summary,
    describe_protocol,
    protocol_settings,
)
from mmattn.experiments.recommendation.protocol import make_split
from mmattn.experiments.seed_result import RankingResult, SeedResult
from mmattn.experiments.summary import common_keys, learning_curve
from mmattn.reports.results import (
    OURS,
    Ablation,
    AblationKind,
    Curve,
    Example,
    ExampleItem,
    Panel,
    RecommendationReport,
    Subgroup,
    System,
)
from mmattn.reports.sentences import metric_label
from mmattn.types import Sample

__all__ = ["summarize_recommender"]

_MAX_HISTORY_SHOWN = 6
_LABELS = {"drop": "without {}", "shuffle": "another item's {}", "noise": "noise for {}"}
_REASON_LABELS = {
    "drawn": "Sampled at random",
    "best": "Best served: the highest {}",
    "worst": "Worst served: the lowest {}",
}


def summarize_recommender(
    config: FitConfig,
    dataset: Dataset,
    results: Sequence[SeedResult],
    device: torch.device,
) -> RecommendationReport:
    """Return the report of a recommender's run.

    Args:
        config: of the run.
        dataset: its data.
        results: of all seeds.
        device: that it ran on.
    """
    rankings = [result.ranking for result in results if result.ranking is not None]
    systems = _systems(config, rankings)
    baselines = [system for system in systems if system.name != OURS]
    primary = config.protocol.metrics[0]
    strongest = max(baselines, key=lambda system: system.metrics[primary].mean, default=None)
    ablations = _ablations(rankings)
    hybrid = {
        f"seed {result.seed}": dict(result.ranking.hybrid_settings)
        for result in results
        if result.ranking is not None and result.ranking.hybrid_settings
    }
    return RecommendationReport(
        title=config.name,
        data=data_summary(dataset, results[0].part_sizes, results[-1].num_rejected),
        systems=systems,
        protocol=protocol_settings(config),
        protocol_sentences=describe_protocol(config),
        ablations=(*ablations, *_subsets(config, ablations)),
        recall_curve=_recall_curve(rankings),
        subgroups=_subgroups(config, rankings, strongest),
        index_cost=next((ranking.index_cost for ranking in rankings if ranking.index_cost is not None), None),
        modality_gaps=_mean_gaps(rankings),
        learning_curves=_learning_curves(config, results),
        examples=_examples(config, dataset, results[0].seed, rankings[0]),
        provenance={
            **({"hybrid": hybrid} if hybrid else {}),
            **provenance(config, results, device),
        },
    )


def _systems(config: FitConfig, results: Sequence[RankingResult]) -> tuple[System, ...]:
    ours = _per_metric(results, "values", OURS)
    systems = []
    for name in results[0].values:
        theirs = _per_metric(results, "values", name)
        baseline, tuned = config.baselines.get(name), results[0].baseline_settings.get(name, {})
        systems.append(
            System(
                name=name,
                label=name,
                metrics={metric: bootstrap(values) for metric, values in theirs.items()},
                note=_system_note(config) if baseline is None else _baseline_note(baseline, tuned),
                difference={} if name == OURS else _differences(ours, theirs),
            )
        )
    return tuple(systems)


def _ablations(results: Sequence[RankingResult]) -> tuple[Ablation, ...]:
    whole = _per_metric(results, "values", OURS)
    kinds: dict[str, AblationKind] = {prefix: kind for kind, prefix in ABLATION_PREFIXES.items()}
    outcomes = []
    for name in common_keys(results, "ablations"):
        values = _per_metric(results, "ablations", name)
        prefix, _, part = name.partition("-")
        kind = kinds.get(prefix, "subset")
        outcomes.append(
            Ablation(
                name=name,
                label=_LABELS[kind].format(part) if kind in _LABELS else part.replace("+", " + "),
                metrics={metric: bootstrap(value) for metric, value in values.items()},
                change=_differences(values, whole),
                kind=kind,
                part=part.replace("+", " + "),
            )
        )
    return tuple(outcomes)


def _subsets(config: FitConfig, ablations: Sequence[Ablation]) -> tuple[Ablation, ...]:
    """Subsets that lack one content: measured as its drop, and shown among the subsets too."""
    contents = list(config.modalities_by_source())
    if not config.evaluation.subsets:
        return ()
    results = []
    for ablation in ablations:
        if ablation.kind == "drop" and ablation.part in contents:
            left = [content for content in contents if content != ablation.part]
            name, label = "only-" + "+".join(left), " + ".join(left)
            results.append(replace(ablation, name=name, label=label, kind="subset", part=label))
    return tuple(results)


def _recall_curve(results: Sequence[RankingResult]) -> Panel | None:
    """Recall against k, mean over the seeds, the best system first."""
    depths = min((result.cutoffs for result in results), key=len)
    if len(depths) < 2:
        return None
    outcome = {
        name: np.mean([result.recall_at_cutoffs[name][: len(depths)] for result in results], axis=0)
        for name in results[0].recall_at_cutoffs
    }
    curves = [
        Curve(name, tuple(map(float, depths)), tuple(map(float, values)))
        for name, values in sorted(outcome.items(), key=lambda pair: -pair[1].mean())
    ]
    return Panel(title="Recall at k", x_label="k", curves=tuple(curves), log_x=True)


def _subgroups(
    config: FitConfig, results: Sequence[RankingResult], baseline: System | None
) -> tuple[Subgroup, ...]:
    cut = config.protocol.metrics[0].partition("@")[2]
    subgroups = []
    for name in common_keys(results, "subgroups"):
        group, _, label = name.partition(": ")
        values = _per_metric(results, "subgroups", name)
        subgroups.append(
            Subgroup(
                group=group,
                name=label,
                metric=f"{config.evaluation.subgroup_metric}@{cut}",
                systems={system: bootstrap(value) for system, value in values.items()},
                difference=None
                if baseline is None
                else paired_bootstrap(values[OURS], values[baseline.name]),
            )
        )
    return tuple(subgroups)


def _mean_gaps(results: Sequence[RankingResult]) -> dict[str, ModalityGap]:
    """Means over the seeds, of the pairs that at least two items have both of."""
    gaps = {}
    for pair in common_keys(results, "modality_gaps"):
        seeds = [result.modality_gaps[pair] for result in results]
        if min(gap.samples for gap in seeds) > 1:
            distance, matched, unmatched = np.mean(
                [(gap.distance, gap.matched, gap.unmatched) for gap in seeds], axis=0
            ).tolist()
            gaps[pair] = ModalityGap(distance, matched, unmatched, seeds[0].samples)
    return gaps


def _per_metric(results: Sequence[RankingResult], group: str, name: str) -> dict[str, Floats]:
    """metric (of a subgroup: system) -> [S, U]."""
    return {
        metric: np.stack([getattr(result, group)[name][metric] for result in results])
        for metric in getattr(results[0], group)[name]
    }


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Interval]:
    return {metric: paired_bootstrap(values, theirs[metric]) for metric, values in ours.items()}


def _system_note(config: FitConfig) -> str:
    if config.hybrid is not None:
        return "co-choice, attention over users and over fused tokens, in one list; chosen on validation"
    return "attention over fused tokens; epoch chosen on validation"


def _baseline_note(config: BaselineConfig, tuned: Mapping[str, Any]) -> str:
    """What a baseline was given, in a few words, and what validation chose for it (in the first seed)."""
    content = [*config.vectors, *config.tags, *config.tfidf, *config.gaussian]
    given = f"content: {', '.join(content)}" if content else "interactions only"
    shape = f"; exp({config.exponent:g} K)" if config.exponent else ""
    strength = f"; strength {config.regularization:g}" if config.regularization else ""
    if tuned:
        shape, strength = "", f"; chosen: {', '.join(f'{key} {value:.3g}' for key, value in tuned.items())}"
    return f"{config.kind}; {given}{shape}{strength}"


def _learning_curves(config: FitConfig, results: Sequence[SeedResult]) -> tuple[Panel, ...]:
    first = config.protocol.metrics[0]
    titles = {"loss": "Training loss", first: f"Validation {metric_label(first)}"}
    return tuple(
        Panel(
            title=title,
            x_label="epoch",
            curves=tuple(
                learning_curve(f"seed {result.seed}", result.history, key, show_selected=key == first)
                for result in results
                if result.history.rows
            ),
        )
        for key, title in titles.items()
    )


def _examples(config: FitConfig, dataset: Dataset, seed: int, result: RankingResult) -> tuple[Example, ...]:
    """Of one seed: users drawn at random, the best and the worst served."""
    split = make_split(dataset, config.protocol, seed)
    known, right = split.histories("test"), split.matrix("test")
    metric = config.protocol.metrics[0]
    items, examples = dataset.items, []
    for why, users in result.example_users.items():
        for user, top in zip(users.tolist(), result.example_items[why], strict=True):
            met, hits = known[[user]].indices, set(right[[user]].indices.tolist())
            value = result.values[OURS][metric][user]
            examples.append(
                Example(
                    user=f"User {dataset.user_ids[user]}",
                    history=tuple(_example_item(items[item]) for item in met[:_MAX_HISTORY_SHOWN]),
                    recommended=tuple(
                        _example_item(items[item], hit=int(item) in hits) for item in top if item >= 0
                    ),
                    note=f"{metric_label(metric)} {value:.4f}; {len(met):,} items in the history, "
                    f"{len(hits):,} to be found",
                    reason=_REASON_LABELS[why].format(metric_label(metric)),
                )
            )
    return tuple(examples)


def _example_item(item: Sample, hit: bool = False) -> ExampleItem:
    text = item.content.get("text")
    fields = [text] if isinstance(text, str) else [field for field in text or () if field]
    picture = item.content.get("image")
    year = (item.content.get("table") or {}).get("year")
    return ExampleItem(
        title=fields[0] if fields else item.id,
        image=picture if isinstance(picture, (Path, bytes)) else None,
        hit=hit,
        note="" if year is None else f"{year:g}",
    )
