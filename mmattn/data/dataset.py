"""A data set in memory: samples, interactions and a graph as index arrays, and what was left out."""

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
    """Who met what, R pairs in the order of the file.

    Args:
        users: [R] int64, index into `Dataset.user_ids`.
        items: [R] int64, index into `Dataset.item_ids`.
        time: [R] float64 seconds since 1970 (UTC), or None where the card names no such column.
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
        """The pairs that `keep` names: a boolean [R], or indices in the order wanted.

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
    """Triples over entities, E edges.

    Args:
        heads, tails: [E] int64, index into `entities`.
        relations: [E] int64, index into `relation_names`.
        entities: ids of all entities: those of the triples and those that items name.
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
    """What `mmattn.data.reader.read` makes of a card.

    Args:
        card: where it came from.
        items: one `Sample` an item, in the order of the file.
        users: one `Sample` a user (without content where the card has no table of users).
        interactions: the good rows; none where the card has no such table.
        graph: the good rows; none where the card has no such table.
        item_split: [I] text, "train", "validation", "test" or "" (not said), or None.
        labels: column -> one text an item ("" where not said), of the card's label columns.
        targets: column -> one raw target an item (None where not said), of the card's target columns: a name
            (label), lists of names (labels, tags), text (transcript) or `mmattn.boxes.Boxes` (boxes).
        rejected: every row and cell that was not used, and every item without content.
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
        """[I, M] boolean: has item i modality m?"""
        found = [[name in item.content for name in self.modalities] for item in self.items]
        return np.array(found, dtype=bool).reshape(len(self.items), len(self.modalities))

    def with_min_rating(self, min_rating: float | None) -> Dataset:
        """The same data set with those interactions alone whose value is `min_rating` or more; None keeps all.

        Raises:
            InputError: the interactions have no value, or none is that high.
        """
        if min_rating is None:
            return self
        if self.interactions.value is None:
            raise InputError(
                f"{self.card.name}: positive_from {min_rating:g} was asked for, but the card names no value column"
            )
        chosen = self.interactions.select(self.interactions.value >= min_rating)
        if not len(chosen):
            raise InputError(
                f"{self.card.name}: no interaction has a value of {min_rating:g} or more, the highest is "
                f"{self.interactions.value.max(initial=-np.inf):g}"
            )
        return replace(self, interactions=chosen)

    def summary(self) -> dict[str, Any]:
        """Counts for people and reports, as JSON values: sizes, presence of each modality and of each
        combination, interactions a user and an item, splits, graph, rejections."""
        pairs = self.interactions
        cells = len(self.items) * len(self.users)
        combinations = Counter(
            "+".join(name for name, there in zip(self.modalities, row, strict=True) if there) or "none"
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
