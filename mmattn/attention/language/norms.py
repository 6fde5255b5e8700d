"""Norms: how the scores of a query become weights over its keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.parameters import ParameterSpec
from mmattn.attention.language.term import NullaryTerm, Term, register_term

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = ["Norm", "Softmax", "entmax15", "sigmoid", "softmax", "sparsemax", "topk"]


class Norm(Term):
    """Base of the norms."""

    kind: ClassVar[str] = "norm"

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        """Weights from scores.

        Args:
            score: [..., H, Q, K], with at least one key.
            allowed: boolean, broadcastable to the scores.
            pairs: fields of queries and keys.

        Returns:
            [..., H, Q, K]; zeros where nothing is allowed.

        Raises:
            NotImplementedError: a subclass does not implement it.
        """
        raise NotImplementedError


@register_term
@dataclass(frozen=True, repr=False)
class Softmax(Norm):
    """Softmax over the keys.

    Args:
        sink: the name of one learned logit a head that joins the softmax and takes weight away from
            the keys (https://arxiv.org/abs/2309.17453); left out, none.
    """

    sink: str | None = None

    term_name: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        if self.sink is not None:
            self._check_name("sink")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return () if self.sink is None else (ParameterSpec(self.sink),)

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        if self.sink is None:
            return _softmax(score, allowed)
        score = score.masked_fill(~allowed, float("-inf"))
        sink = pairs.parameters[self.sink][pairs.head]
        top = torch.maximum(score.detach().amax(-1, keepdim=True), sink.detach())
        exponential = (score - top).exp()
        return exponential / (exponential.sum(-1, keepdim=True) + (sink - top).exp())

    def describe(self) -> str:
        return "softmax over the keys" + (f" and a learned sink ({self.sink!r})" if self.sink else "")


@register_term
@dataclass(frozen=True, repr=False)
class Sigmoid(NullaryTerm, Norm):
    """Every key by itself, without normalisation over keys (https://arxiv.org/abs/2409.04431)."""

    term_name: ClassVar[str] = "sigmoid"

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        return torch.sigmoid(score).masked_fill(~allowed, 0.0)

    def describe(self) -> str:
        return "sigmoid of every score by itself"


@register_term
@dataclass(frozen=True, repr=False)
class Sparsemax(NullaryTerm, Norm):
    """The nearest point of the simplex: many weights are exactly zero (https://arxiv.org/abs/1602.02068)."""

    term_name: ClassVar[str] = "sparsemax"

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        result: Tensor = _Entmax.apply(score, allowed, 2)  # type: ignore[no-untyped-call]
        return result

    def describe(self) -> str:
        return "sparsemax over the keys"


@register_term
@dataclass(frozen=True, repr=False)
class Entmax15(NullaryTerm, Norm):
    """Half way between softmax and sparsemax (https://arxiv.org/abs/1905.05702)."""

    term_name: ClassVar[str] = "entmax15"

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        result: Tensor = _Entmax.apply(score, allowed, 1.5)  # type: ignore[no-untyped-call]
        return result

    def describe(self) -> str:
        return "1.5-entmax over the keys"


@register_term
@dataclass(frozen=True, repr=False)
class TopK(Norm):
    """Softmax over the `k` best keys of every query and head; keys that tie with the last one stay."""

    k: int

    term_name: ClassVar[str] = "topk"

    def __post_init__(self) -> None:
        self._check_integer("k", minimum=1)

    def normalize(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        reachable = score.detach().masked_fill(~allowed, float("-inf"))
        last = reachable.topk(min(self.k, score.shape[-1]), dim=-1, sorted=True).values[..., -1:]
        return _softmax(score, allowed & (reachable >= last))

    def describe(self) -> str:
        return f"softmax over the {self.k} best keys"


softmax = Softmax
sigmoid = Sigmoid()
sparsemax = Sparsemax()
entmax15 = Entmax15()
topk = TopK


def _softmax(score: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over what is allowed. A finite floor instead of -inf keeps rows without keys free of NaN."""
    floor = torch.finfo(score.dtype).min / 2
    return score.masked_fill(~allowed, floor).softmax(-1).masked_fill(~allowed, 0.0)


class _Entmax(torch.autograd.Function):
    """Sparsemax (alpha 2) and 1.5-entmax by sorting, with the gradient of the implicit solution."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, allowed: Tensor, alpha: float) -> Tensor:
        score = score.masked_fill(~allowed, float("-inf"))
        top = score.amax(-1, keepdim=True)
        # The threshold is never below -1 here, so what is lower can stand at -1: it gets no weight.
        z = ((score - top.masked_fill(top.isneginf(), 0.0)) * (alpha - 1)).clamp(min=-1.0)
        distance = (z - _entmax_threshold(z, alpha)).clamp(min=0.0)
        weight = (distance if alpha == 2 else distance.square()).masked_fill(~allowed, 0.0)
        ctx.save_for_backward(weight)
        ctx.alpha = alpha
        return weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        (gradient,) = gradients
        # The Jacobian is diag(s) - s s^T / sum(s) with s = weight^(2 - alpha) on the support.
        s = (weight > 0).to(weight.dtype) if ctx.alpha == 2 else weight.sqrt()
        total = s.sum(-1, keepdim=True)
        mean = (gradient * s).sum(-1, keepdim=True) / total.masked_fill(total == 0, 1.0)
        return s * (gradient - mean), None, None


def _entmax_threshold(z: Tensor, alpha: float) -> Tensor:
    """What to subtract from z [..., K], sorted candidates k = 1 to K checked at once."""
    ordered = z.sort(-1, descending=True).values
    count = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
    mean = ordered.cumsum(-1) / count
    if alpha == 2:
        candidate = mean - 1 / count
    else:
        spread = ordered.square().cumsum(-1) / count - mean.square()
        candidate = mean - (1 / count - spread).clamp(min=0.0).sqrt()
    support = (candidate <= ordered).sum(-1, keepdim=True).clamp(min=1)
    return candidate.gather(-1, support - 1)
