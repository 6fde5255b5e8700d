"""Biases: what is added to the score of a pair, whatever the score is. Learned ones start at zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.parameters import ParameterSpec
from mmattn.attention.language.scores import ScoreModifier
from mmattn.attention.language.term import NullaryTerm, register_term
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = [
    "Bias",
    "BoxBias",
    "GraphBias",
    "ModalityBias",
    "alibi",
    "box_bias",
    "graph_bias",
    "modality_bias",
    "relative",
    "time_bias",
]


class Bias(ScoreModifier):
    """Base of the biases."""

    def bias(self, pairs: Pairs) -> Tensor:
        """What is added, broadcastable to [..., H, Q, K].

        Args:
            pairs: fields of queries and keys.

        Raises:
            NotImplementedError: a subclass does not implement it.
        """
        raise NotImplementedError

    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score + self.bias(pairs)


@register_term
@dataclass(frozen=True, repr=False)
class Alibi(NullaryTerm, Bias):
    """Minus slope(head) times distance in positions (https://arxiv.org/abs/2108.12409).

    The slope of head h of H is 2^(-8 (h + 1) / H).
    """

    term_name: ClassVar[str] = "alibi"

    def bias(self, pairs: Pairs) -> Tensor:
        distance = (pairs.query.position - pairs.key.position).abs()
        return -pairs.parameters[ALIBI_SLOPE_KEY][pairs.head] * distance

    def describe(self) -> str:
        return "minus a slope a head times the distance"


# The layer keeps each head's slope under this name, which no term can have: pruning heads moves their
# rows, and must not change the slopes of those that stay.
ALIBI_SLOPE_KEY = ".slope"


def alibi_slopes(heads: int) -> Tensor:
    """[H], the slopes of `alibi`.

    Args:
        heads: number of heads H.
    """
    return torch.tensor([2.0 ** (-8 * (head + 1) / heads) for head in range(heads)])


@register_term
@dataclass(frozen=True, repr=False)
class Relative(Bias):
    """A learned bias [H, buckets] by position difference in T5's buckets (https://arxiv.org/abs/1910.10683).

    Half of the buckets are for keys at or before the query and half for those after it; in each half
    the first half stands for single distances, and the others grow logarithmically up to `longest`.

    Args:
        name: of the parameter.
        buckets: how many, an even number from 4.
        longest: the distance from which on the last bucket is used.
    """

    name: str
    buckets: int = 32
    longest: int = 128

    term_name: ClassVar[str] = "relative"

    def __post_init__(self) -> None:
        self._check_name("name")
        self._check_integer("buckets", minimum=4)
        self._check_integer("longest", minimum=1)
        if self.buckets % 2:
            raise self._argument_error("buckets", "an even number")
        if self.longest <= self.buckets // 4:
            raise self._argument_error("longest", f"more than a quarter of the buckets, {self.buckets // 4}")

    @cached_property
    def _bucket_of(self) -> tuple[int, ...]:
        return _t5_buckets(self.buckets // 2, self.longest)

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, (self.buckets,)),)

    def bias(self, pairs: Pairs) -> Tensor:
        ahead = pairs.key.position - pairs.query.position
        table = pairs.constant(self._bucket_of, torch.int64)
        bucket = table[ahead.abs().clamp(max=self.longest)] + (ahead > 0) * (self.buckets // 2)
        return pairs.lookup(self.name, bucket)

    def describe(self) -> str:
        return f"plus a learned bias by distance in {self.buckets} buckets ({self.name!r})"


def _t5_buckets(buckets: int, longest: int) -> tuple[int, ...]:
    """The bucket of each distance from 0 to `longest`: a table, so that all devices round alike."""
    exact = buckets // 2
    growth = (buckets - exact) / math.log(longest / exact) * (1 + 1e-12)  # a whole result stays whole
    return tuple(
        distance if distance < exact else min(exact + int(math.log(distance / exact) * growth), buckets - 1)
        for distance in range(longest + 1)
    )


@register_term
@dataclass(frozen=True, repr=False)
class ModalityBias(Bias):
    """A learned number for every head, query modality and key modality, [H, M, M].

    Args:
        name: of the parameter.
        modalities: the modalities that have a row, in order; left out, the layer gives each modality
            a row when it first meets it (or when `Attention.name_modalities` says so).
    """

    name: str
    modalities: tuple[str, ...] = ()

    term_name: ClassVar[str] = "modality_bias"

    def __post_init__(self) -> None:
        self._check_name("name")
        names = self.modalities
        if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
            raise self._argument_error("modalities", "a list of names")
        object.__setattr__(self, "modalities", tuple(names))
        if len(set(names)) != len(names):
            raise self._argument_error("modalities", "distinct names")

    def named_modalities(self) -> tuple[str, ...]:
        return self.modalities

    def parameters(self) -> tuple[ParameterSpec, ...]:
        size = len(self.modalities) or "M"
        return (ParameterSpec(self.name, (size, size)),)

    def bias(self, pairs: Pairs) -> Tensor:
        names = self.modalities or pairs.modality_slots
        query, key = (
            pairs.constant(modality_slot_table(side.modalities, names), torch.int64)[side.modality]
            for side in (pairs.query, pairs.key)
        )
        return pairs.lookup(self.name, query, key)

    def describe(self) -> str:
        return f"plus a learned bias for each pair of modalities ({self.name!r})"


def modality_slot_table(modalities: tuple[str, ...], slots: tuple[str, ...]) -> tuple[int, ...]:
    """The number into `modality_slots` of each known modality.

    Args:
        modalities: modalities of the tokens.
        slots: the layer's numbering of modalities.

    Raises:
        InputError: a modality is not among `modality_slots`.
    """
    for name in modalities:
        if name not in slots:
            raise InputError(f"modality_bias: got tokens of {name!r}, expected one of {', '.join(slots)}")
    return tuple(slots.index(name) for name in modalities) or (0,)


@register_term
@dataclass(frozen=True, repr=False)
class GraphBias(Bias):
    """A learned bias [H, relations], added where an edge joins the two tokens' entities.

    The edges come in `context[name]` as int64 [3, E]: the query's entity, the key's entity, the
    relation. Several edges between the same two add up. No N x N tensor is made over the batch.

    Args:
        name: of the parameter, and of the edges in the context.
        relations: how many relations there are.
    """

    name: str
    relations: int = 1

    term_name: ClassVar[str] = "graph_bias"

    def __post_init__(self) -> None:
        self._check_name("name")
        self._check_integer("relations", minimum=1)

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, (self.relations,)),)

    def bias(self, pairs: Pairs) -> Tensor:
        result: Tensor = pairs.edges[self.name].bias(pairs.parameters[self.name][pairs.head[:, 0, 0]])
        return result

    def describe(self) -> str:
        return (
            f"plus a learned bias for each of {self.relations} relations between the entities ({self.name!r})"
        )


@register_term
@dataclass(frozen=True, repr=False)
class TimeBias(Bias):
    """A learned bias [H, buckets] by the absolute time difference, on a logarithmic scale.

    Bucket 0 is for less than about a second; the last one begins at `longest` seconds. Pairs of which
    a time is unknown get no bias.

    Args:
        name: of the parameter.
        buckets: how many.
        longest: seconds from which on the last bucket is used; left out, ten years.
    """

    name: str
    buckets: int = 32
    longest: float = 315_360_000.0

    term_name: ClassVar[str] = "time_bias"

    def __post_init__(self) -> None:
        self._check_name("name")
        self._check_integer("buckets", minimum=2)
        self._check_float("longest")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, (self.buckets,)),)

    @property
    def boundaries(self) -> tuple[float, ...]:
        """Seconds at which bucket 1, 2, ... begin: even steps of log(1 + seconds)."""
        step = math.log1p(self.longest) / (self.buckets - 1)
        return tuple(math.expm1(step * index) for index in range(1, self.buckets))

    def bias(self, pairs: Pairs) -> Tensor:
        if pairs.query.time is None or pairs.key.time is None:
            raise InputError(f"time_bias({self.name}): got tokens without times, expected Tokens.time")
        apart = (pairs.query.time - pairs.key.time).abs()
        bucket = pairs.bucketize(apart, self.boundaries)
        return pairs.lookup(self.name, bucket) * ~apart.isnan()

    def describe(self) -> str:
        return f"plus a learned bias by time difference in {self.buckets} logarithmic buckets ({self.name!r})"


@register_term
@dataclass(frozen=True, repr=False)
class BoxBias(Bias):
    """A learned combination, [H, 4], of how two boxes lie to each other (https://arxiv.org/abs/1711.11575).

    The boxes come in `context[name]`, [N, 4] as left, top, right, bottom, with NaN for tokens that have
    none (or a pair of such tensors, for the queries and for the keys). The four numbers of a pair are
    log(|dx| / width), log(|dy| / height), log(width' / width) and log(height' / height), where the
    first two are clamped below at log(1/1000). Pairs of which a box is missing get no bias.

    Args:
        name: of the parameter, and of the boxes in the context.
    """

    name: str

    term_name: ClassVar[str] = "box_bias"

    def __post_init__(self) -> None:
        self._check_name("name")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, (4,)),)

    def bias(self, pairs: Pairs) -> Tensor:
        x, y, width, height, known = pairs.query.extra[self.name]
        key_x, key_y, key_width, key_height, key_known = pairs.key.extra[self.name]
        geometry = (
            ((x - key_x).abs() / width).clamp(min=1e-3).log(),
            ((y - key_y).abs() / height).clamp(min=1e-3).log(),
            (key_width / width).log(),
            (key_height / height).log(),
        )
        weights = pairs.parameters[self.name]
        total = sum(weights[pairs.head, index] * number for index, number in enumerate(geometry))
        return total * (known * key_known)

    def describe(self) -> str:
        return f"plus a learned bias by how the boxes lie to each other ({self.name!r})"


def box_features(boxes: Tensor) -> tuple[Tensor, ...]:
    """[..., 4] corners -> centre x and y, width, height, and 1 where there is a box; five [...] tensors.

    Args:
        boxes: [..., 4] left, top, right, bottom; NaN where there is none.
    """
    known = ~boxes.isnan().any(-1)
    left, top, right, bottom = torch.where(
        known[..., None], boxes, boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
    ).unbind(-1)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, known.to(boxes.dtype)


# The words as one writes them.
alibi = Alibi()
relative = Relative
modality_bias = ModalityBias
graph_bias = GraphBias
time_bias = TimeBias
box_bias = BoxBias
