"""The knowledge graph that a core was trained with, kept with its weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmattn.errors import InputError

__all__ = ["GraphEdges"]


class GraphEdges(nn.Module):
    """Edges by the name under which a `graph_bias` asks for them: the context of every call that brings none.

    They are saved and loaded with the model, so that an item is fused the same way wherever it is met.

    Example:
        >>> held = GraphEdges()
        >>> held.register_edges("kg", torch.tensor([[0, 2], [2, 0], [1, 3]]))
        >>> list(held.with_edges({"task": "rank"}))
        ['kg', 'task']
    """

    def register_edges(self, name: str, edges: Tensor) -> None:
        """Keep edges, int64 [3, E]: query entity, key entity, relation; those held before are replaced.

        Args:
            name: of the graph in the programs.
            edges: int64 [3, E], query entity, key entity, relation.

        Raises:
            InputError: edges of another shape or type.
        """
        if edges.dim() != 2 or len(edges) != 3 or edges.dtype != torch.int64:
            raise InputError(
                f"edges {name!r}: got {tuple(edges.shape)} {edges.dtype}, expected int64 [3, E]: head, tail, "
                "relation"
            )
        self.register_buffer(name, edges)

    def with_edges(self, context: Mapping[str, object] | None) -> Mapping[str, object] | None:
        """The context of a call: what is held, under what is given.

        Args:
            context: what a call is given; its own edges come first.
        """
        return {**dict(self.named_buffers()), **context} if context else dict(self.named_buffers()) or None

    def allocate_buffers(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Hold edges of the shapes that a state of weights has, so that it can be loaded.

        Args:
            state: of the whole model.
            prefix: of the names that belong here, up to the last dot.
        """
        for name, edges in state.items():
            if name.startswith(prefix):
                self.register_edges(name.removeprefix(prefix), torch.zeros_like(edges))
