"""Variable-length flash attention on CUDA: jagged batches without a mask, straight from the offsets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import fused_settings
from mmattn.attention.backends.sdpa import plain_refusal
from mmattn.attention.call import Call
from mmattn.attention.fold import fold, refusal
from mmattn.attention.layout import Layout
from mmattn.attention.masks import Causal
from mmattn.attention.program import Program

__all__ = ["Varlen"]


@lru_cache(maxsize=1)
def _varlen_attn() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


class Varlen:
    """`torch.nn.attention.varlen`, which knows everything, the lower triangle, and nothing else."""

    name = "varlen"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        if conditions.device != "cuda":
            return f"varlen flash attention needs CUDA, these tokens are on {conditions.device}"
        if _varlen_attn() is None:
            return f"this PyTorch ({torch.__version__}) has no varlen_attn with windows"
        if conditions.dtype not in (torch.float16, torch.bfloat16):
            return f"flash attention computes in float16 or bfloat16, not in {conditions.dtype}"
        if conditions.dropout:
            return "varlen flash attention drops no weights"
        if not layout.pairs:
            return "there are no pairs to score"
        if 0 in layout.key.sizes:
            return "a sample without keys has no defined result in flash attention"
        if (
            why := plain_refusal(program, layout) or refusal(program, conditions.program_gradient)
        ) is not None:
            return why
        # What is left of the score may still ask for a mask.
        biases = [term for term in program.chain.changes if term.word not in _FOLDED]
        return f"flash attention takes no bias such as {biases[0]}" if biases else None

    def estimate(self, program: Program, layout: Layout, conditions: Conditions) -> Estimate:
        settings = fused_settings(conditions)
        return Estimate(2 * settings.call + layout.pairs * settings.pair, 1.0)

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        folded = fold(call)
        q_offsets, k_offsets = (side.offsets.to(torch.int32) for side in (call.layout.query, call.layout.key))
        causal = isinstance(call.program.mask, Causal)
        attend = _varlen_attn()
        assert attend is not None
        out: Tensor = attend(
            folded.q.contiguous(),
            folded.k.contiguous(),
            folded.v.contiguous(),
            q_offsets,
            k_offsets,
            max(call.layout.query.sizes),
            max(call.layout.key.sizes),
            scale=folded.scale,
            window_size=(-1, 0) if causal else (-1, -1),
        )
        return out[..., : folded.width]


_FOLDED = ("temperature", "modality_bias", "head_gate")
