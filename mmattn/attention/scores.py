"""Scores: how well a query and a key match, and what is done to that number afterwards.

A chain begins with one of the bases (`dot`, `cosine`, `additive`, `bilinear`) and goes on with `>>`:
biases that are added (biases.py) and changes of the number itself (here).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmattn.attention.pairs import Pairs
from mmattn.attention.parameters import Number, check_number, number_words
from mmattn.attention.terms import Term, word
from mmattn.errors import InputError

__all__ = ["Base", "Chain", "Change", "dot", "softcap", "temperature"]


class _Chainable(Term):
    def __rshift__(self, other: Change) -> Chain:
        if callable(other) and not isinstance(other, Term):
            raise InputError(f">>: got {other.__name__}, expected a term: write {other.__name__}(...)")
        if not isinstance(other, Change):
            raise InputError(f">>: got {other!r}, expected a bias or a change such as softcap(30.0)")
        return Chain((*self.links, other))

    @property
    def links(self) -> tuple[Term, ...]:
        return (self,)


class Base(_Chainable):
    """Base of the scores that begin a chain."""

    kind: ClassVar[str] = "score"

    def match(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        """Scores [..., H, Q, K] of q [..., H, Q, K'] and k [..., H, K, K']."""
        q, k, scale = self.as_dot(q, k, pairs)
        return (q * scale) @ k.transpose(-1, -2)

    def as_dot(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor | float]:
        """Queries, keys and a scale whose dot product is this score, where there are such."""
        raise NotImplementedError


class Change(Term):
    """Base of what follows `>>`: it takes scores [..., H, Q, K] and gives others."""

    kind: ClassVar[str] = "change"

    def change(self, score: Tensor, pairs: Pairs) -> Tensor:
        raise NotImplementedError


@word
@dataclass(frozen=True, repr=False)
class Chain(_Chainable):
    """A base and what follows it: `dot() >> alibi >> softcap(30.0)`."""

    terms: tuple[Term, ...]

    word: ClassVar[str] = "chain"
    kind: ClassVar[str] = "score"

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms or not isinstance(self.terms[0], Base):
            raise InputError(
                f"score: got {self}, expected it to begin with dot, cosine, additive or bilinear"
            )
        for term in self.terms[1:]:
            if not isinstance(term, Change):
                raise InputError(
                    f"score: got {term} after >>, expected a bias or a change such as softcap(30.0)"
                )

    def __str__(self) -> str:
        return " >> ".join(str(term) for term in self.terms)

    @property
    def base(self) -> Base:
        return self.terms[0]  # type: ignore[return-value]

    @property
    def changes(self) -> tuple[Change, ...]:
        return self.terms[1:]  # type: ignore[return-value]

    @property
    def links(self) -> tuple[Term, ...]:
        return self.terms

    def score(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        """Scores [..., H, Q, K] after the whole chain."""
        score = self.base.match(q, k, pairs)
        for term in self.changes:
            score = term.change(score, pairs)
        return score

    def words(self) -> str:
        return ", ".join(term.words() for term in self.terms)


@word
@dataclass(frozen=True, repr=False)
class Dot(Base):
    """Scaled dot product (https://arxiv.org/abs/1706.03762).

    Args:
        scale: left out, 1 / sqrt(width of a head).
    """

    scale: Number | None = None

    word: ClassVar[str] = "dot"

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number(self, "scale")

    def as_dot(self, q: Tensor, k: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor | float]:
        return q, k, q.shape[-1] ** -0.5 if self.scale is None else pairs.number(self.scale)

    def words(self) -> str:
        return "dot product" + ("" if self.scale is None else f" times {number_words(self.scale)}")


@word
@dataclass(frozen=True, repr=False)
class Softcap(Change):
    """x tanh(score / x): no score leaves -x to x (Gemma 2)."""

    x: Number

    word: ClassVar[str] = "softcap"

    def __post_init__(self) -> None:
        check_number(self, "x")

    def change(self, score: Tensor, pairs: Pairs) -> Tensor:
        cap = pairs.number(self.x)
        return cap * torch.tanh(score / cap)

    def words(self) -> str:
        return f"capped softly at {number_words(self.x)}"


@word
@dataclass(frozen=True, repr=False)
class Temperature(Change):
    """score / x."""

    x: Number

    word: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        check_number(self, "x")

    def change(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score / pairs.number(self.x)

    def words(self) -> str:
        return f"divided by {number_words(self.x)}"


dot = Dot
softcap = Softcap
temperature = Temperature
