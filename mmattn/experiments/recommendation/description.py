"""What a report says of a recommender's data and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmattn import schema
from mmattn.data.dataset import Dataset
from mmattn.experiments.config import FitConfig, ProtocolConfig
from mmattn.experiments.recommendation.protocol import TIE_POLICY
from mmattn.reports.results import DataSummary
from mmattn.reports.sentences import metric_label

__all__ = ["data_summary", "describe_protocol", "protocol_settings"]


def data_summary(dataset: Dataset, part_sizes: Mapping[str, int], num_rejected: int) -> DataSummary:
    """Return the counts that a report shows of the data.

    Args:
        dataset: items, users and interactions.
        part_sizes: part -> number of interactions or items.
        num_rejected: contents that could not be read.
    """
    summary, card = dataset.summary(), dataset.card
    return DataSummary(
        name=card.name,
        users=summary["users"],
        items=summary["items"],
        interactions=summary["interactions"],
        presence=summary["presence"],
        combinations={key.replace("+", " + "): count for key, count in summary["combinations"].items()},
        parts=part_sizes,
        rejected=len(dataset.rejected) + num_rejected,
        source=" ".join(part for part in (card.description, card.licence) if part),
    )


def protocol_settings(config: FitConfig) -> dict[str, Any]:
    """Return the protocol for metrics.json.

    Args:
        config: of the run.
    """
    protocol = schema.to_mapping(config.protocol)
    return {
        **protocol,
        "ties": TIE_POLICY,
        "masked": "train and validation",
        "intervals": "95% bootstrap over users",
    }


def describe_protocol(config: FitConfig) -> tuple[str, ...]:
    """Describe the protocol in sentences.

    Args:
        config: of the run.
    """
    protocol, metric = config.protocol, metric_label(config.protocol.metrics[0])
    count = len(protocol.seeds)
    baselines = "has the settings of the configuration"
    if protocol.tuning_trials:
        baselines = (
            f"had {protocol.tuning_trials} trials on validation in every seed, the configured settings "
            "first; the best settings were used at the test"
        )
    drawn = "a draw of the validation part" if protocol.split == "given" else "split"
    return (
        _describe_split(protocol),
        f"Every choice was made on validation, {_describe_validation(protocol)}. The epoch kept is the one "
        f"with the best {metric} there.",
        f"Each baseline {baselines}.",
        "At the test, what is known of a user from training and validation is never recommended again.",
        f"{count} {'seed' if count == 1 else 'seeds'} ({', '.join(map(str, protocol.seeds))}), each with its "
        f"own {drawn}; intervals are 95% bootstrap intervals over users, differences are paired by user.",
    )


def _describe_split(protocol: ProtocolConfig) -> str:
    fraction = f"{protocol.test:.0%}"
    return {
        "cold": f"{fraction} of the items are hidden with all their interactions. At the test they are "
        "ranked among themselves for each user, from the user's history of other items and from their "
        "content alone.",
        "mixed": f"{fraction} of the items are hidden with all their interactions, and {fraction} of each "
        "user's other interactions. All items are ranked in one list, new ones beside known ones.",
        "random": f"{fraction} of the interactions, sampled at random, are hidden and ranked among all "
        "items.",
        "time": f"The last {fraction} of the time line is hidden: one moment divides past and future for "
        "all.",
        "leave-one-out": "The last interaction of each user is hidden and ranked among all items; training "
        "may hold later events of other users.",
        "cold-users": f"{fraction} of the users are hidden. At the test, a random half of their interactions "
        "is given as history, and the rest is ranked among all items.",
        "given": "The data set's own split: what it marks as test is hidden, and ranked among all items.",
    }[protocol.split]


def _describe_validation(protocol: ProtocolConfig) -> str:
    if protocol.split == "leave-one-out":
        return "the interaction before it"
    # One draw or one time line is cut into all parts at once; otherwise what the test leaves is cut again.
    whole = "all of them" if protocol.split in ("random", "time") else "what remains"
    return f"{protocol.validation:.0%} of {whole}, split off in the same way"
