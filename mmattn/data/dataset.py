"""A dataset in memory: samples, interactions and a graph as index arrays, and the rejections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn.types import Sample

__all__ = ["Dataset", "Graph", "Interactions"]


@dataclass(frozen=True, eq=False)
class Interactions:
    """R pairs of user and item, in the order of the file.

    Args:
        users: [R] int64, index into `Dataset.user_ids`.
        items: [R] int64, index into `Dataset.item_ids`.
        time: [R] float64 seconds since 1970 (UTC), or None.
        value: [R] float64, for example a rating, or None.
        split: [R] text, "train", "validation" or "test", or None.
    """

    users: np.ndarray
    items: np.ndarray
    time: np.ndarray | None = None
    value: np.ndarray | None = None
    split: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def select(self, keep: np.ndarray) -> Interactions:
        """Select pairs.

        Args:
            keep: boolean [R], or [n] indices in the order of the result.

        Example:
            >>> pairs = Interactions(np.array([0, 0, 1]), np.array([4, 2, 4]))
            >>> pairs.select(pairs.items == 4).users.tolist()
            [0, 1]
        """
        optional = (self.time, self.value, self.split)
        return Interactions(
            self.users[keep],
            self.items[keep],
            *(None if column is None else column[keep] for column in optional),
        )


@dataclass(frozen=True, eq=False)
class Graph:
    """E triples (head, relation, tail) over entities.

    Args:
        heads: [E] int64, index into `entities`.
        relations: [E] int64, index into `relation_names`.
        tails: [E] int64, index into `entities`.
        entities: ids of all entities, those of the triples and those of the items.
        relation_names: names of the relations.
    """

    heads: np.ndarray
    relations: np.ndarray
    tails: np.ndarray
    entities: tuple[str, ...]
    relation_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.heads)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The data of a card, as read by `mmattn.data.reader.read_dataset`.

    Args:
        card: the card.
        items: one `Sample` per item, in the order of the file.
        users: one `Sample` per user (without content where the card has no table of users).
        interactions: the valid rows; none where the card has no such table.
        graph: the valid rows; none where the card has no such table.
        item_split: [I] text, "train", "validation", "test" or "" (missing), or None.
        labels: label column -> one text per item ("" where missing).
        targets: target column -> one raw target per item (None where missing): a name (label), lists of names
            (labels, tags), text (transcript) or `mmattn.boxes.Boxes` (boxes).
        rejected: all rows and cells that were not used, and all items without content.
    """

    card: Card
    items: tuple[Sample, ...]
    users: tuple[Sample, ...]
    interactions: Interactions
    graph: Graph
    item_split: np.ndarray | None = None
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    targets: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    rejected: RejectionLog = field(default_factory=RejectionLog)

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Ids of the items; `interactions.items` are indices into it."""
        return tuple(item.id for item in self.items)

    @cached_property
    def user_ids(self) -> tuple[str, ...]:
        """Ids of the users; `interactions.users` are indices into it."""
        return tuple(user.id for user in self.users)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that items may have, in the card's order."""
        return self.card.items.modalities

    @cached_property
    def presence(self) -> np.ndarray:
        """[I, M] boolean, True where item i has modality m."""
        presence = [[name in item.content for name in self.modalities] for item in self.items]
        return np.array(presence, dtype=bool).reshape(len(self.items), len(self.modalities))

    def with_min_rating(self, min_rating: float | None) -> Dataset:
        """Keep only the interactions with at least a minimum value.

        Args:
            min_rating: the minimum value; None keeps all.

        Raises:
            InputError: the interactions have no values, or none is that high.
        """
        if min_rating is None:
            return self
        if self.interactions.value is None:
            raise InputError(
                f"{self.card.name}: got min_rating {min_rating:g}, but the card names no value column"
            )
        positives = self.interactions.select(self.interactions.value >= min_rating)
        if not len(positives):
            raise InputError(
                f"{self.card.name}: no interaction has a value of {min_rating:g} or more, the highest is "
                f"{self.interactions.value.max(initial=-np.inf):g}"
            )
        return replace(self, interactions=positives)

    def summary(self) -> dict[str, Any]:
        """Summarise the dataset for reports.

        Returns:
            Counts as JSON values: sizes, presence of each modality and combination of modalities,
            interactions per user and per item, splits, graph, rejections.
        """
        pairs = self.interactions
        cells = len(self.items) * len(self.users)
        combinations = Counter(
            "+".join(name for name, present in zip(self.modalities, row, strict=True) if present) or "none"
            for row in self.presence.tolist()
        )
        return {
            "name": self.card.name,
            "items": len(self.items),
            "users": len(self.users),
            "interactions": len(pairs),
            "density": len(pairs) / cells if cells else 0.0,
            "presence": dict(zip(self.modalities, self.presence.sum(0).tolist(), strict=True)),
            "combinations": dict(combinations.most_common()),
            "interactions_per_user": _describe_counts(np.bincount(pairs.users, minlength=len(self.users))),
            "interactions_per_item": _describe_counts(np.bincount(pairs.items, minlength=len(self.items))),
            "interaction_splits": _split_sizes(pairs.split),
            "item_splits": _split_sizes(self.item_split),
            "triples": len(self.graph),
            "entities": len(self.graph.entities),
            "relations": len(self.graph.relation_names),
            "rejected": self.rejected.counts(),
        }


def _describe_counts(counts: np.ndarray) -> dict[str, float]:
    if not len(counts):
        return {}
    return {
        "min": int(counts.min()),
        "median": float(np.median(counts)),
        "mean": float(counts.mean()),
        "max": int(counts.max()),
        "none": int((counts == 0).sum()),
    }


def _split_sizes(split: np.ndarray | None) -> dict[str, int]:
    return {} if split is None else dict(Counter(split.tolist()).most_common())
