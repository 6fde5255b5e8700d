"""The knowledge graph of a dataset: each item's neighbours as content, all triples as edges."""

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
    """Add the content "graph" to each item: its entity and the neighbours of that entity.

    The content is `{"node": entity, "neighbours": [entity, ...]}`, for the tabular encoder with the kinds
    "node" and "entity". An item without an entity has no such content; an entity without triples has no
    neighbours.

    Args:
        dataset: a dataset with a graph.

    Returns:
        The dataset with the added content.

    Raises:
        InputError: the card has no triples, or no item column with the role "entity".
    """
    columns = [column for column, use in dataset.card.items.uses() if use.role == "entity"]
    if dataset.card.graph is None or not columns:
        raise InputError(
            f"{dataset.card.name}: got no graph, expected a table of triples and an item column with the "
            "role 'entity' in the card"
        )
    neighbours = _neighbours_of(dataset.graph)
    modality = next(use.modality for _, use in dataset.card.items.uses() if use.role == "entity")

    def with_graph(item: Sample) -> Sample:
        node = item.content.get(modality, {}).get(columns[0])
        if node is None:
            return item
        return Sample(
            item.id, {**item.content, GRAPH_CONTENT: {"node": node, "neighbours": neighbours[node].tolist()}}
        )

    return replace(dataset, items=tuple(with_graph(item) for item in dataset.items))


def bidirectional_edges(graph: Graph) -> Tensor:
    """Return the triples in both directions, as edges for `graph_bias`.

    With R relations, R + r is relation r from the tail to the head: `graph_bias(name, relations=2R)`.

    Args:
        graph: E triples.

    Returns:
        [3, 2E] int64: query, key, relation.

    Example:
        >>> entities, relations = ("film", "x", "person"), ("genre", "star")
        >>> graph = Graph(np.array([0]), np.array([1]), np.array([2]), entities, relations)
        >>> bidirectional_edges(graph).tolist()
        [[0, 2], [2, 0], [1, 3]]
    """
    forward = np.stack([graph.heads, graph.tails, graph.relations])
    backward = np.stack([graph.tails, graph.heads, graph.relations + len(graph.relation_names)])
    return torch.from_numpy(np.concatenate([forward, backward], axis=1))


def _neighbours_of(graph: Graph) -> list[np.ndarray]:
    """The distinct entities that share a triple with each entity, ascending."""
    ends = np.stack([np.r_[graph.heads, graph.tails], np.r_[graph.tails, graph.heads]])
    ends = np.unique(ends, axis=1)  # sorted by the first row, then by the second
    return np.split(ends[1], np.searchsorted(ends[0], np.arange(1, len(graph.entities))))
