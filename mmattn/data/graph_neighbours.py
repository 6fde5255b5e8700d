"""The knowledge graph beside the items: each item's neighbours as content, all triples as edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mmattn.data.dataset import Dataset, Graph
from mmattn.errors import InputError
from mmattn.types import Sample

__all__ = ["GRAPH_CONTENT", "bidirectional_edges", "with_neighbours"]

GRAPH_CONTENT = "graph"


def with_neighbours(dataset: Dataset) -> Dataset:
    """The data set with one more content, "graph": what each item's entity is joined to.

    The content is `{"node": entity, "neighbours": [entity, ...]}`, ready for the tabular encoder's kinds of
    these names. An item without an entity has no such content; one that no triple names has no neighbours.

    Raises:
        InputError: the card names no triples, or no column of its items has the role "entity".
    """
    columns = [column for column, use in dataset.card.items.uses() if use.role == "entity"]
    if dataset.card.graph is None or not columns:
        raise InputError(
            f"{dataset.card.name}: got no graph, expected a table of triples and an item column with the "
            "role 'entity' in the card"
        )
    around = _neighbours_of(dataset.graph)
    modality = next(use.modality for _, use in dataset.card.items.uses() if use.role == "entity")

    def described(item: Sample) -> Sample:
        node = item.content.get(modality, {}).get(columns[0])
        if node is None:
            return item
        return Sample(
            item.id, {**item.content, GRAPH_CONTENT: {"node": node, "neighbours": around[node].tolist()}}
        )

    return replace(dataset, items=tuple(described(item) for item in dataset.items))


def bidirectional_edges(graph: Graph) -> Tensor:
    """The triples as `graph_bias` reads them, in both directions: [3, 2E] int64, query, key, relation.

    With R relations, R + r is relation r from the tail to the head: `graph_bias(name, relations=2R)`.

    Example:
        >>> films = ("film", "x", "person")
        >>> bidirectional_edges(Graph(np.array([0]), np.array([1]), np.array([2]), films, ("genre", "star"))).tolist()
        [[0, 2], [2, 0], [1, 3]]
    """
    forth = np.stack([graph.heads, graph.tails, graph.relations])
    back = np.stack([graph.tails, graph.heads, graph.relations + len(graph.relation_names)])
    return torch.from_numpy(np.concatenate([forth, back], axis=1))


def _neighbours_of(graph: Graph) -> list[np.ndarray]:
    """Entity -> the entities that a triple joins it to, each once, ascending."""
    ends = np.stack([np.r_[graph.heads, graph.tails], np.r_[graph.tails, graph.heads]])
    ends = np.unique(ends, axis=1)  # sorted by the first row, then by the second
    return np.split(ends[1], np.searchsorted(ends[0], np.arange(1, len(graph.entities))))
