"""What a term may look at: the fields of queries and keys, shaped to broadcast against each other.

A term is written once, against `Pairs`. The reference gives it one sample, [Q, 1] against [1, K]; the
blocked backends a group of samples, [G, 1, Q, 1] against [G, 1, 1, K]; FlexAttention single indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.language.parameters import Learned, Number
from mmattn.attention.language.table_lookup import lookup

__all__ = ["Pairs", "TokenFields"]


@dataclass(frozen=True)
class TokenFields:
    """The tokens' own fields on one side, already shaped to broadcast.

    Args:
        position: place within the sample's own modality.
        modality: index into `modalities`.
        modalities: the modalities that side knows.
        time: seconds, NaN where unknown; None where nothing has a time.
        entity: knowledge-graph entity, -1 where none; None where nothing has one.
        extra: further fields of this call by name, for example the columns of `box_bias`.
        present: may a token of this modality be attended to (from `context["presence"]`)? None: all.
    """

    position: Tensor
    modality: Tensor
    modalities: tuple[str, ...]
    time: Tensor | None = None
    entity: Tensor | None = None
    extra: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    present: Tensor | None = None

    def modality_index(self, name: str) -> int:
        """The number of a modality, -1 where this side does not know it.

        Args:
            name: of the modality.
        """
        return self.modalities.index(name) if name in self.modalities else -1


@dataclass(frozen=True)
class Pairs:
    """Queries against keys.

    Args:
        query: fields shaped [..., Q, 1].
        key: fields shaped [..., 1, K].
        head: the heads' rows in the parameters, [H, 1, 1].
        parameters: name -> tensor, [H, ...] for all heads of the layer; for dynamic numbers what was
            predicted, [H] or [G, H].
        edges: name -> the edges that `graph_bias` adds up here.
        modality_slots: the layer's own numbering of modalities, for parameters that have a row each.
    """

    query: TokenFields
    key: TokenFields
    head: Tensor
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    edges: Mapping[str, Any] = field(default_factory=dict)
    modality_slots: tuple[str, ...] = ()

    def resolve_number(self, value: Number) -> Tensor | float:
        """A number of the program: itself, [H, 1, 1], or [G, H, 1, 1].

        Args:
            value: constant, learned or dynamic number.
        """
        if isinstance(value, float):
            return value
        theta = self.parameters[value.name]
        theta = theta[self.head] if isinstance(value, Learned) else theta[..., self.head]
        return value.start * theta.exp()

    def lookup(self, name: str, *index: Tensor) -> Tensor:
        """Entries of a parameter [H, ...] for every head and pair.

        Args:
            name: of the parameter.
            *index: int64 index into each further dimension, shaped to broadcast.
        """
        return lookup(self.parameters[name][self.head[:, 0, 0]], *index)

    def constant(self, numbers: Sequence[Any], dtype: torch.dtype) -> Tensor:
        """A constant tensor on the tokens' device.

        Args:
            numbers: its values.
            dtype: of the tensor.
        """
        return torch.tensor(numbers, dtype=dtype, device=self.query.position.device)

    def bucketize(self, value: Tensor, boundaries: tuple[float, ...]) -> Tensor:
        """How many of the boundaries a value has reached (0 for NaN).

        Args:
            value: values to sort into buckets.
            boundaries: ascending boundaries.
        """
        steps = torch.tensor(boundaries, dtype=value.dtype, device=value.device)
        return torch.bucketize(value.nan_to_num(0.0), steps, right=True)
