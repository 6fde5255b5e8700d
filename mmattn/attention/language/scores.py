"""Scores: how well a query and a key match, and what is done to that number afterwards.

A chain begins with one of the bases (`dot`, `cosine`, `additive`, `bilinear`) and goes on with `>>`:
biases that are added (biases.py) and changes of the number itself (here).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.language.parameters import Number, ParameterSpec, check_number, describe_number
from mmattn.attention.language.term import NullaryTerm, Term, register_term
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = [
    "BaseScore",
    "Chain",
    "DotProductScore",
    "HeadGate",
    "ScoreModifier",
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

    def __rshift__(self, other: ScoreModifier) -> Chain:
        if not isinstance(other, ScoreModifier):
            hint = (
                f": write {other.term_name}(...)"
                if isinstance(other, type) and issubclass(other, ScoreModifier)
                else ""
            )
            raise InputError(f">>: got {other}, expected a bias or a change such as softcap(30.0){hint}")
        return Chain((*self.chain_terms, other))

    @property
    def chain_terms(self) -> tuple[Term, ...]:
        """The terms of the chain so far."""
        return (self,)


class BaseScore(_Chainable):
    """Base of the scores that begin a chain."""

    def score(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        """Scores [..., H, Q, K] of q [..., H, Q, K'] and k [..., H, K, K'].

        Args:
            q: [..., H, Q, K'] queries.
            k: [..., H, K, K'] keys.
            pairs: fields of queries and keys.

        Raises:
            NotImplementedError: a subclass does not implement it.
        """
        raise NotImplementedError


class DotProductScore(BaseScore):
    """A base that is a scaled dot product of folded queries and keys, which fused kernels can run."""

    scale: Number | None

    def transform_qk(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Queries [..., H, Q, K'] and keys whose dot product, times `resolve_number`, is the score.

        Args:
            q: [..., H, Q, K'] queries.
            k: [..., H, K, K'] keys.
            parameters: name -> [H, ...].
            head: [H] rows of the heads in the parameters.
        """
        return q, k

    def score(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        q, k = self.transform_qk(q, k, pairs.parameters, pairs.head)
        scale = q.shape[-1] ** -0.5 if self.scale is None else pairs.resolve_number(self.scale)
        return (q * scale) @ k.transpose(-1, -2)


class ScoreModifier(Term):
    """Base of what follows `>>`: it takes scores [..., H, Q, K] and gives others."""

    kind: ClassVar[str] = "change"

    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        raise NotImplementedError


@register_term
@dataclass(frozen=True, repr=False)
class Chain(_Chainable):
    """A base and what follows it: `dot() >> alibi >> softcap(30.0)`."""

    terms: tuple[Term, ...]

    term_name: ClassVar[str] = "chain"

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms or not isinstance(self.terms[0], BaseScore):
            raise InputError(
                f"score: got {self}, expected it to begin with dot, cosine, additive or bilinear"
            )
        for term in self.terms[1:]:
            if not isinstance(term, ScoreModifier):
                raise InputError(
                    f"score: got {term} after >>, expected a bias or a change like softcap(30.0)"
                )

    def __str__(self) -> str:
        return " >> ".join(str(term) for term in self.terms)

    @property
    def base(self) -> BaseScore:
        return self.terms[0]  # type: ignore[return-value]

    @property
    def modifiers(self) -> tuple[ScoreModifier, ...]:
        return self.terms[1:]  # type: ignore[return-value]

    @property
    def chain_terms(self) -> tuple[Term, ...]:
        return self.terms

    def score(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        """Scores [..., H, Q, K] after the whole chain.

        Args:
            q: [..., H, Q, K'] queries.
            k: [..., H, K, K'] keys.
            pairs: fields of queries and keys.
        """
        score = self.base.score(q, k, pairs)
        for term in self.modifiers:
            score = term.modify(score, pairs)
        return score

    def describe(self) -> str:
        return ", ".join(term.describe() for term in self.terms)


@register_term
@dataclass(frozen=True, repr=False)
class Dot(DotProductScore):
    """Scaled dot product (https://arxiv.org/abs/1706.03762).

    Args:
        scale: left out, 1 / sqrt(width of a head).
    """

    scale: Number | None = None

    term_name: ClassVar[str] = "dot"

    def __post_init__(self) -> None:
        if self.scale is not None:
            check_number(self, "scale")

    def describe(self) -> str:
        return "dot product" + ("" if self.scale is None else f" times {describe_number(self.scale)}")


@register_term
@dataclass(frozen=True, repr=False)
class Cosine(NullaryTerm, DotProductScore):
    """Cosine of query and key, -1 to 1; usually followed by a `temperature`."""

    term_name: ClassVar[str] = "cosine"
    scale: ClassVar[Number | None] = 1.0  # type: ignore[misc]

    def transform_qk(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        return F.normalize(q, dim=-1), F.normalize(k, dim=-1)


@register_term
@dataclass(frozen=True, repr=False)
class Bilinear(NullaryTerm, DotProductScore):
    """q W k with a learned W a head, which starts as the identity (https://arxiv.org/abs/1508.04025).

    Args:
        name: of the parameter [H, K, K].
        scale: left out, 1 / sqrt(width of a head).
    """

    name: str = "bilinear"
    scale: Number | None = None

    term_name: ClassVar[str] = "bilinear"

    def __post_init__(self) -> None:
        self._check_name("name")
        if self.scale is not None:
            check_number(self, "scale")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, ("K", "K"), "identity"),)

    def transform_qk(
        self, q: Tensor, k: Tensor, parameters: Mapping[str, Tensor], head: Tensor
    ) -> tuple[Tensor, Tensor]:
        return q @ parameters[self.name][head[:, 0, 0]], k

    def describe(self) -> str:
        return f"bilinear form ({self.name!r})"


@register_term
@dataclass(frozen=True, repr=False)
class Additive(BaseScore):
    """v tanh(A q + B k) with a hidden layer a head (https://arxiv.org/abs/1409.0473).

    Args:
        hidden: width of the hidden layer.
        name: the parameters are `name_query` and `name_key` [H, K, hidden], `name_out` [H, hidden].
    """

    hidden: int
    name: str = "additive"

    term_name: ClassVar[str] = "additive"

    def __post_init__(self) -> None:
        self._check_integer("hidden", minimum=1)
        self._check_name("name")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (
            ParameterSpec(f"{self.name}_query", ("K", self.hidden), "random"),
            ParameterSpec(f"{self.name}_key", ("K", self.hidden), "random"),
            ParameterSpec(f"{self.name}_out", (self.hidden,), "random"),
        )

    def score(self, q: Tensor, k: Tensor, pairs: Pairs) -> Tensor:
        query, key, out = (
            pairs.parameters[f"{self.name}_{what}"][pairs.head[:, 0, 0]] for what in ("query", "key", "out")
        )
        hidden = torch.tanh((q @ query)[..., :, None, :] + (k @ key)[..., None, :, :])
        return (hidden @ out[:, None, :, None])[..., 0]

    def describe(self) -> str:
        return f"additive score with {self.hidden} hidden units ({self.name!r})"


@register_term
@dataclass(frozen=True, repr=False)
class Softcap(ScoreModifier):
    """x tanh(score / x): no score leaves -x to x (https://arxiv.org/abs/2408.00118)."""

    x: Number

    term_name: ClassVar[str] = "softcap"

    def __post_init__(self) -> None:
        check_number(self, "x")

    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        cap = pairs.resolve_number(self.x)
        return cap * torch.tanh(score / cap)

    def describe(self) -> str:
        return f"capped softly at {describe_number(self.x)}"


@register_term
@dataclass(frozen=True, repr=False)
class Temperature(ScoreModifier):
    """score / x."""

    x: Number

    term_name: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        check_number(self, "x")

    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score / pairs.resolve_number(self.x)

    def describe(self) -> str:
        return f"divided by {describe_number(self.x)}"


@register_term
@dataclass(frozen=True, repr=False)
class HeadGate(ScoreModifier):
    """A gate from 0 to 1 on each head's output, which training can close (https://arxiv.org/abs/1712.01312).

    It leaves the scores alone. While training the gate is drawn from a stretched ("hard") concrete
    distribution; otherwise it is that distribution's fixed centre. Add `layer.penalty()` to the loss to
    close gates, and call `layer.prune()` to remove the heads whose gate is closed.
    """

    name: str

    term_name: ClassVar[str] = "head_gate"

    # Slope of the distribution, and how far it is stretched below 0 and above 1.
    BETA: ClassVar[float] = 2 / 3
    STRETCH_LOW: ClassVar[float] = -0.1
    STRETCH_HIGH: ClassVar[float] = 1.1

    def __post_init__(self) -> None:
        self._check_name("name")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, init=3.0),)  # open: its centre, stretched, is above 1

    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        return score

    def gate(self, logit: Tensor, training: bool) -> Tensor:
        """[H] gates from the parameter [H].

        Args:
            logit: [H] parameter.
            training: sample the gates; otherwise their most likely values.
        """
        if training:
            noise = torch.empty_like(logit).uniform_(1e-6, 1 - 1e-6)
            logit = (noise.logit() + logit) / self.BETA
        return (logit.sigmoid() * (self.STRETCH_HIGH - self.STRETCH_LOW) + self.STRETCH_LOW).clamp(0.0, 1.0)

    def open_probability(self, logit: Tensor) -> Tensor:
        """[H], the probability that a drawn gate is not zero: the L0 penalty of each head.

        Args:
            logit: [H] parameter.
        """
        shift = torch.log(
            torch.tensor(-self.STRETCH_LOW / self.STRETCH_HIGH, dtype=logit.dtype, device=logit.device)
        )
        return torch.sigmoid(logit - self.BETA * shift)

    def describe(self) -> str:
        return f"each head behind a learned gate ({self.name!r})"


# The words as one writes them.
dot = Dot
cosine = Cosine()
bilinear = Bilinear()
additive = Additive
softcap = Softcap
temperature = Temperature
head_gate = HeadGate
