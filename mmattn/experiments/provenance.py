"""What a report says of a run beside its figures: the data, the protocol, and all that repeats it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
import yaml

from mmattn import attention, schema
from mmattn.experiments.experiment import RecommendationExperiment
from mmattn.experiments.protocol import TIE_POLICY
from mmattn.experiments.seed_result import SeedResult
from mmattn.reports.results import DataSummary
from mmattn.reports.sentences import metric_label

if TYPE_CHECKING:
    from mmattn.experiments.tasks.run import TaskExperiment
    from mmattn.experiments.tasks.seed import TaskSeedResult

__all__ = [
    "common_provenance",
    "data_summary",
    "describe_protocol",
    "protocol_settings",
    "provenance",
    "versions",
]

_LIBRARIES = ("mmattn", "torch", "numpy", "scipy", "faiss-gpu", "faiss-cpu", "transformers", "timm")


def data_summary(experiment: RecommendationExperiment, results: Sequence[SeedResult]) -> DataSummary:
    summary = experiment.dataset.summary()
    card = experiment.dataset.card
    return DataSummary(
        name=card.name,
        users=summary["users"],
        items=summary["items"],
        interactions=summary["interactions"],
        presence=summary["presence"],
        combinations={key.replace("+", " + "): count for key, count in summary["combinations"].items()},
        parts=results[0].part_sizes,
        rejected=len(experiment.dataset.rejected) + experiment.rejected,
        source=" ".join(part for part in (card.description, card.licence) if part),
    )


def protocol_settings(experiment: RecommendationExperiment) -> dict[str, Any]:
    protocol = schema.to_mapping(experiment.config.protocol)
    return {
        **protocol,
        "ties": TIE_POLICY,
        "masked": "train and validation",
        "intervals": "95% bootstrap over users",
    }


def describe_protocol(experiment: RecommendationExperiment) -> tuple[str, ...]:
    protocol = experiment.config.protocol
    share = f"{protocol.test:.0%}"
    split = {
        "cold": f"{share} of the items are hidden with everything anybody did with them. At the test they "
        "are ranked among themselves for each user, from the user's history of other items and from their "
        "content alone.",
        "mixed": f"{share} of the items are hidden with everything anybody did with them, and {share} of "
        "each user's other interactions. All items are ranked in one list, new ones beside old ones.",
        "random": f"{share} of the interactions, drawn at random, are hidden and looked for among all items.",
        "time": f"The last {share} of the time line is hidden: one moment divides past and future for all.",
        "given": "The data set's own split: what it marks as test is hidden, and looked for among all items.",
    }[protocol.split]
    rivals = "has the settings that its file says"
    if protocol.tuning_trials:
        rivals = (
            f"had {protocol.tuning_trials} trials on validation in every seed, the file's own settings "
            f"first; "
            "the best ones went to the test"
        )
    # One draw or one time line is cut into all parts at once; otherwise what the test leaves is cut again.
    whole = "all of them" if protocol.split in ("random", "time") else "what remains"
    drawn = "a draw of the validation part" if protocol.split == "given" else "split"
    return (
        split,
        f"Every choice was made on validation, {protocol.validation:.0%} of {whole}, split off in "
        f"the same way. The epoch kept is the one with the best {metric_label(protocol.metrics[0])} there.",
        f"Each rival {rivals}.",
        "At the test, what is known of a user from training and validation is never recommended again.",
        f"{len(protocol.seeds)} {'seed' if len(protocol.seeds) == 1 else 'seeds'} "
        f"({', '.join(map(str, protocol.seeds))}), each with its own {drawn}; "
        "intervals are 95% bootstrap intervals over users, differences are paired user by user.",
    )


def provenance(
    experiment: RecommendationExperiment, results: Sequence[SeedResult]
) -> dict[str, Mapping[str, Any] | str]:
    hybrid = {
        f"seed {result.seed}": dict(result.hybrid_settings) for result in results if result.hybrid_settings
    }
    return {**({"hybrid": hybrid} if hybrid else {}), **common_provenance(experiment, results)}


def common_provenance(
    run: RecommendationExperiment | TaskExperiment, results: Sequence[SeedResult] | Sequence[TaskSeedResult]
) -> dict[str, Mapping[str, Any] | str]:
    """What a run of either kind was made with: libraries, program, encoders, time and settings."""
    program = attention.parse(run.config.fusion.program)
    return {
        "versions": versions(run.device),
        "program": {
            "text": str(program),
            "in words": program.describe(),
            "fingerprint": program.fingerprint(),
        },
        "encoders": run.cards,
        "seconds": {f"seed {result.seed}": dict(result.seconds) for result in results},
        "config": yaml.safe_dump(schema.to_mapping(run.config), sort_keys=False, allow_unicode=True),
    }


def versions(device: torch.device) -> dict[str, Any]:
    """What a run was made with."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES if _installed(name)},
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
