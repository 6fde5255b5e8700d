"""Masks by position: which key a query may attend to, from where the two stand.

Tokens of two samples never meet; nobody has to write that. Masks by modality are in routes.py, the
operators that join masks in algebra.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.mask_algebra import Mask
from mmattn.attention.language.pairs import Pairs
from mmattn.attention.language.term import Constant, word

__all__ = ["Causal", "Full", "Mask", "blocks", "causal", "dilated", "full", "window"]


@word
@dataclass(frozen=True, repr=False)
class Full(Constant, Mask):
    """Every key of the sample."""

    word: ClassVar[str] = "full"

    def allow(self, pairs: Pairs) -> Tensor:
        return torch.ones_like(pairs.query.position | pairs.key.position, dtype=torch.bool)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds.everything(pairs)

    def words(self) -> str:
        return "every key of the sample"


@word
@dataclass(frozen=True, repr=False)
class Causal(Constant, Mask):
    """Keys at the query's position or before it."""

    word: ClassVar[str] = "causal"

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.key.position <= pairs.query.position

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds(pairs.key.low <= pairs.query.high, pairs.key.high <= pairs.query.low)

    @property
    def looks_back_only(self) -> bool:
        return True

    def words(self) -> str:
        return "keys at the query's position or before it"


@word
@dataclass(frozen=True, repr=False)
class Window(Mask):
    """Keys at most `n` positions away, on either side (Longformer, https://arxiv.org/abs/2004.05150)."""

    n: int

    word: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)

    def allow(self, pairs: Pairs) -> Tensor:
        return (pairs.query.position - pairs.key.position).abs() <= self.n

    @property
    def reach(self) -> int | None:
        return self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest <= self.n)

    def words(self) -> str:
        return f"keys at most {self.n} positions away"


@word
@dataclass(frozen=True, repr=False)
class Dilated(Mask):
    """Keys at most `n` positions and a multiple of `step` away."""

    n: int
    step: int

    word: ClassVar[str] = "dilated"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)
        self._check_integer("step", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        distance = (pairs.query.position - pairs.key.position).abs()
        return (distance <= self.n) & (distance % self.step == 0)

    @property
    def reach(self) -> int | None:
        return self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest == 0)

    def words(self) -> str:
        return f"keys at most {self.n} positions and a multiple of {self.step} away"


@word
@dataclass(frozen=True, repr=False)
class Blocks(Mask):
    """Keys of the query's own block of `n` positions."""

    n: int

    word: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.query.position // self.n == pairs.key.position // self.n

    @property
    def reach(self) -> int | None:
        return self.n - 1

    def bounds(self, pairs: BlockPairs) -> Bounds:
        q_low, q_high = pairs.query.low // self.n, pairs.query.high // self.n
        k_low, k_high = pairs.key.low // self.n, pairs.key.high // self.n
        alone = (q_low == q_high) & (k_low == k_high) & (q_low == k_low)
        return Bounds((q_low <= k_high) & (k_low <= q_high), alone)

    def words(self) -> str:
        return f"keys of the same block of {self.n} positions"


# The words as one writes them.
full = Full()
causal = Causal()
window = Window
dilated = Dilated
blocks = Blocks
