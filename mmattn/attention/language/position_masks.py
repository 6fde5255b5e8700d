"""Masks by position: which key a query may attend to, from where the two stand.

Tokens of two samples never meet; nobody has to write that. Masks by modality are in routes.py, the
operators that join masks in algebra.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.mask_algebra import Mask
from mmattn.attention.language.term import NullaryTerm, register_term

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = ["Causal", "Full", "Mask", "blocks", "causal", "dilated", "full", "window"]


@register_term
@dataclass(frozen=True, repr=False)
class Full(NullaryTerm, Mask):
    """Every key of the sample."""

    term_name: ClassVar[str] = "full"

    def allow(self, pairs: Pairs) -> Tensor:
        return torch.ones_like(pairs.query.position | pairs.key.position, dtype=torch.bool)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds.all_allowed(pairs)

    def describe(self) -> str:
        return "every key of the sample"


@register_term
@dataclass(frozen=True, repr=False)
class Causal(NullaryTerm, Mask):
    """Keys at the query's position or before it."""

    term_name: ClassVar[str] = "causal"

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.key.position <= pairs.query.position

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds(
            pairs.key.min_position <= pairs.query.max_position,
            pairs.key.max_position <= pairs.query.min_position,
        )

    @property
    def is_causal(self) -> bool:
        return True

    def describe(self) -> str:
        return "keys at the query's position or before it"


@register_term
@dataclass(frozen=True, repr=False)
class Window(Mask):
    """Keys at most `n` positions away, on either side (Longformer, https://arxiv.org/abs/2004.05150)."""

    n: int

    term_name: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)

    def allow(self, pairs: Pairs) -> Tensor:
        return (pairs.query.position - pairs.key.position).abs() <= self.n

    @property
    def max_lookback(self) -> int | None:
        return self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest <= self.n)

    def describe(self) -> str:
        return f"keys at most {self.n} positions away"


@register_term
@dataclass(frozen=True, repr=False)
class Dilated(Mask):
    """Keys at most `n` positions and a multiple of `step` away."""

    n: int
    step: int

    term_name: ClassVar[str] = "dilated"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)
        self._check_integer("step", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        distance = (pairs.query.position - pairs.key.position).abs()
        return (distance <= self.n) & (distance % self.step == 0)

    @property
    def max_lookback(self) -> int | None:
        return self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest == 0)

    def describe(self) -> str:
        return f"keys at most {self.n} positions and a multiple of {self.step} away"


@register_term
@dataclass(frozen=True, repr=False)
class Blocks(Mask):
    """Keys of the query's own block of `n` positions."""

    n: int

    term_name: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.query.position // self.n == pairs.key.position // self.n

    @property
    def max_lookback(self) -> int | None:
        return self.n - 1

    def bounds(self, pairs: BlockPairs) -> Bounds:
        q_low, q_high = pairs.query.min_position // self.n, pairs.query.max_position // self.n
        k_low, k_high = pairs.key.min_position // self.n, pairs.key.max_position // self.n
        alone = (q_low == q_high) & (k_low == k_high) & (q_low == k_low)
        return Bounds((q_low <= k_high) & (k_low <= q_high), alone)

    def describe(self) -> str:
        return f"keys of the same block of {self.n} positions"


# The words as one writes them.
full = Full()
causal = Causal()
window = Window
dilated = Dilated
blocks = Blocks
