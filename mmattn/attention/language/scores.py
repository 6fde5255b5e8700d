"""Scores: how well a query and a key match, and what is done to that number afterwards.

A chain begins with one of the bases (`dot`, `cosine`, `additive`, `bilinear`) and goes on with `>>`:
biases that are added (biases.py) and changes of the number itself (here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.language.pairs import Pairs
from mmattn.attention.language.parameters import Number, ParameterSpec, check_number, number_words
from mmattn.attention.language.term import Constant, Term, word
from mmattn.errors import InputError

__all__ = [
    "Base",
    "Chain",
    "Change",
    "DotLike",
    "HeadGate",
    "Temperature",
    "additive",
    "bilinear",
    "cosine",
    "dot",
    "head_gate",
    "softcap",
    "temperature",
]


class _Chainable(Term):
    """What may stand before `>>`."""

    kind: ClassVar[str] = "score"

    def __rshift__(self, other: Change) -> Chain:
        if not isinstance(other, Change):
            hint = (
                f": write {other.word}(...)" if isinstance(other, type) and issubclass(other, Change) else ""
            )
            raise InputError(f">>: got {other}, expected a bias or a change such as softcap(30.0){hint}")
        return Chain((*self.links, other))

    @property
    def links(self) -> tuple[Term, ...]:
        """The terms of the chain so far."""
        return (self,)


class Base(_Chainable):
    """Base of the scores that begin a chain."""

    def match(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        """Scores [..., H, Q, K] of q [..., H, Q, K'] and k [..., H, K, K']."""
        raise NotImplementedError


class DotLike(Base):
    """A base that is a scaled dot product of folded queries and keys, which fused kernels can run."""

    scale: Number | None

    def fold(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries [..., H, Q, K'] and keys whose dot product, times `number`, is the score."""
        return q, k

    def match(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        q, k = self.fold(q, k, pairs.parameters, pairs.head)
        scale = q.shape[-1] ** -0.5 if self.scale is None else pairs.number(self.scale)
        return (q * scale) @ k.transpose(-1, -2)


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms or not isinstance(self.terms[0], Base):
            raise InputError(
                f"score: got {self}, expected it to begin with dot, cosine, additive or bilinear"
            )
        for term in self.terms[1:]:
            if not isinstance(term, Change):
                raise InputError(
                    f"score: got {term} after >>, expected a bias or a change like softcap(30.0)"
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
class Dot(DotLike):
    """Scaled dot product (https://arxiv.org/abs/1706.03762).

    Args:
        scale: left out, 1 / sqrt(width of a head).
    """

    scale: Number | None = None

    word: ClassVar[str] = "dot"

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number(self, "scale")

    def words(self) -> str:
        return "dot product" + ("" if self.scale is None else f" times {number_words(self.scale)}")


@word
@dataclass(frozen=True, repr=False)
class Cosine(Constant, DotLike):
    """Cosine of query and key, -1 to 1; usually followed by a `temperature`."""

    word: ClassVar[str] = "cosine"
    scale: ClassVar[Number | None] = 1.0  # type: ignore[misc]

    def fold(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1)


@word
@dataclass(frozen=True, repr=False)
class Bilinear(Constant, DotLike):
    """q W k with a learned W a head, which starts as the identity (https://arxiv.org/abs/1508.04025).

    Args:
        name: of the parameter [H, K, K].
        scale: left out, 1 / sqrt(width of a head).
    """

    name: str = "bilinear"
    scale: Number | None = None

    word: ClassVar[str] = "bilinear"

    def __post_init__(self) -> None:
        self._check_name("name")
        if self.scale is not None:
            check_number(self, "scale")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, ("K", "K"), "identity"),)

    def fold(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        return q @ parameters[self.name][head[:, 0, 0]], k

    def words(self) -> str:
        return f"bilinear form ({self.name!r})"


@word
@dataclass(frozen=True, repr=False)
class Additive(Base):
    """v tanh(A q + B k) with a hidden layer a head (https://arxiv.org/abs/1409.0473).

    Args:
        hidden: width of the hidden layer.
        name: the parameters are `name_query` and `name_key` [H, K, hidden], `name_out` [H, hidden].
    """

    hidden: int
    name: str = "additive"

    word: ClassVar[str] = "additive"

    def __post_init__(self) -> None:
        self._check_integer("hidden", minimum=1)
        self._check_name("name")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (
            ParameterSpec(f"{self.name}_query", ("K", self.hidden), "random"),
            ParameterSpec(f"{self.name}_key", ("K", self.hidden), "random"),
            ParameterSpec(f"{self.name}_out", (self.hidden,), "random"),
        )

    def match(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        query, key, out = (
            pairs.parameters[f"{self.name}_{what}"][pairs.head[:, 0, 0]] for what in ("query", "key", "out")
        )
        hidden = torch.tanh((q @ query)[..., :, None, :] + (k @ key)[..., None, :, :])
        return (hidden @ out[:, None, :, None])[..., 0]

    def words(self) -> str:
        return f"additive score with {self.hidden} hidden units ({self.name!r})"


@word
@dataclass(frozen=True, repr=False)
class Softcap(Change):
    """x tanh(score / x): no score leaves -x to x (https://arxiv.org/abs/2408.00118)."""

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


@word
@dataclass(frozen=True, repr=False)
class HeadGate(Change):
    """A gate from 0 to 1 on each head's output, which training can close (https://arxiv.org/abs/1712.01312).

    It leaves the scores alone. While training the gate is drawn from a stretched ("hard") concrete
    distribution; otherwise it is that distribution's fixed centre. Add `layer.penalty()` to the loss to
    close gates, and call `layer.prune()` to remove the heads whose gate is closed.
    """

    name: str

    word: ClassVar[str] = "head_gate"

    # Slope of the distribution, and how far it is stretched below 0 and above 1.
    BETA: ClassVar[float] = 2 / 3
    LOW: ClassVar[float] = -0.1
    HIGH: ClassVar[float] = 1.1

    def __post_init__(self) -> None:
        self._check_name("name")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, start=3.0),)  # open: its centre, stretched, is above 1

    def change(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score

    def gate(self, logit: Tensor, training: bool) -> Tensor:
        """[H] gates from the parameter [H]."""
        if training:
            noise = torch.empty_like(logit).uniform_(1e-6, 1 - 1e-6)
            logit = (noise.logit() + logit) / self.BETA
        return (logit.sigmoid() * (self.HIGH - self.LOW) + self.LOW).clamp(0.0, 1.0)

    def open_probability(self, logit: Tensor) -> Tensor:
        """[H], the probability that a drawn gate is not zero: the L0 penalty of each head."""
        shift = torch.log(torch.tensor(-self.LOW / self.HIGH, dtype=logit.dtype, device=logit.device))
        return torch.sigmoid(logit - self.BETA * shift)

    def words(self) -> str:
        return f"each head behind a learned gate ({self.name!r})"


# The words as one writes them.
dot = Dot
cosine = Cosine()
bilinear = Bilinear()
additive = Additive
softcap = Softcap
temperature = Temperature
head_gate = HeadGate
