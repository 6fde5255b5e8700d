"""Norms: how the scores of a query become weights over its keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mmattn.attention.pairs import Pairs
from mmattn.attention.parameters import ParameterSpec
from mmattn.attention.terms import Term, word

__all__ = ["Norm", "Softmax", "softmax"]


class Norm(Term):
    """Base of the norms."""

    kind: ClassVar[str] = "norm"

    def weigh(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        """Weights [..., H, Q, K] from scores and a broadcastable mask; zeros where nothing is allowed."""
        raise NotImplementedError


@word
@dataclass(frozen=True, repr=False)
class Softmax(Norm):
    """Softmax over the keys.

    Args:
        sink: the name of one learned logit a head that joins the softmax and takes weight away from
            the keys (https://arxiv.org/abs/2309.17453, gpt-oss); None for none.
    """

    sink: str | None = None

    word: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        if self.sink is not None:
            self._check_name("sink")

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return () if self.sink is None else (ParameterSpec(self.sink),)

    def weigh(self, score: Tensor, allowed: Tensor, pairs: Pairs) -> Tensor:
        score = score.masked_fill(~allowed, float("-inf"))
        top = (
            score.detach().amax(-1, keepdim=True)
            if score.shape[-1]
            else score.new_zeros(*score.shape[:-1], 1)
        )
        if self.sink is None:
            # A row without keys is all -inf: any finite shift keeps its exponentials at zero.
            exponential = (score - top.masked_fill(top.isneginf(), 0.0)).exp()
            total = exponential.sum(-1, keepdim=True)
            return exponential / total.masked_fill(total == 0, 1.0)
        sink = pairs.parameters[self.sink][pairs.head]
        top = torch.maximum(top, sink.detach())
        exponential = (score - top).exp()
        return exponential / (exponential.sum(-1, keepdim=True) + (sink - top).exp())

    def words(self) -> str:
        return "softmax over the keys" + (f" and a learned sink ({self.sink!r})" if self.sink else "")


softmax = Softmax
