"""PyTorch's own fused attention, for programs that it knows: a dot product, a softmax, all keys or the
lower triangle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions
from mmattn.attention.call import Call
from mmattn.attention.layout import Layout
from mmattn.attention.masks import Causal, Full
from mmattn.attention.norms import Softmax
from mmattn.attention.program import Program
from mmattn.attention.scores import Dot

__all__ = ["Jagged", "Uniform"]


def plain_refusal(program: Program, layout: Layout) -> str | None:
    """Why SDPA cannot say this program without a mask, or None where it can."""
    if len(program.chain.changes) or not isinstance(program.chain.base, Dot) or _parametric(program):
        return f"SDPA has no form for the score {program.score}"
    if program.norm != Softmax():
        return f"SDPA has no form for the norm {program.norm}"
    if isinstance(program.mask, Full):
        return None
    if not isinstance(program.mask, Causal):
        return f"it takes no mask, and this program has {program.mask}"
    if not layout.increasing:
        return "causal is the lower triangle only where the tokens attend to themselves and positions grow"
    return None


def _parametric(program: Program) -> bool:
    return bool(program.parameters())


class Uniform:
    """One call for the batch, where all samples have as many tokens."""

    name = "sdpa"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        if layout.uniform is None:
            return "the samples differ in length"
        if 0 in layout.uniform:
            return "there are no pairs to score"
        return plain_refusal(program, layout)

    def cost(self, program: Program, layout: Layout, conditions: Conditions) -> float:
        return 30e-6 + layout.pairs * conditions.heads * conditions.width * 1e-10

    def run(self, call: Call) -> Tensor:
        samples = call.layout.samples
        q, k, v = (x.view(samples, -1, *x.shape[1:]).transpose(1, 2) for x in (call.q, call.k, call.v))
        return attend(call, q, k, v).transpose(1, 2).reshape(call.q.shape)


class Jagged:
    """One call a sample. `split` has a single backward for all; slices would each fill a whole tensor."""

    name = "jagged"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        return plain_refusal(program, layout)

    def cost(self, program: Program, layout: Layout, conditions: Conditions) -> float:
        return layout.samples * 60e-6 + layout.pairs * conditions.heads * conditions.width * 1e-10

    def run(self, call: Call) -> Tensor:
        keys = call.layout.key.sizes
        parts = zip(
            call.q.split(call.layout.query.sizes), call.k.split(keys), call.v.split(keys), strict=True
        )
        out = [self._one(call, q, k, v) for q, k, v in parts]
        return torch.cat(out) if out else torch.zeros_like(call.q)

    def _one(self, call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not len(k):
            return q * 0.0  # zeros that stay in the graph
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return attend(call, q, k, v)[0].transpose(0, 1)


def attend(call: Call, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SDPA on [G, H, Q, K] queries."""
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        dropout_p=call.dropout,
        is_causal=isinstance(call.program.mask, Causal),
        scale=call.program.chain.base.scale,  # type: ignore[attr-defined]
    )
