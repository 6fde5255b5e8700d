"""Variable-length flash attention on CUDA: jagged batches without a mask, straight from the offsets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import fused_settings
from mmattn.attention.backends.sdpa import plain_refusal
from mmattn.attention.backends.sdpa_rewrite import fold, folded_width, only_masks, refusal
from mmattn.attention.execution.attention_call import Call
from mmattn.attention.execution.context_tensors import Extras
from mmattn.attention.execution.layout import Layout, Side
from mmattn.attention.language.position_masks import Causal
from mmattn.attention.language.program import Program

__all__ = ["Varlen"]

# Flash attention's kernels exist for heads of these widths only.
_MULTIPLE, _WIDEST = 8, 256


@lru_cache(maxsize=1)
def _varlen_attn() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


@lru_cache(maxsize=1)
def _too_old() -> str | None:
    """Why this GPU has no flash attention, or None where it has."""
    major, minor = torch.cuda.get_device_capability()
    return (
        None if major >= 8 else f"flash attention needs compute capability 8.0, this GPU has {major}.{minor}"
    )


class Varlen:
    """`torch.nn.attention.varlen`, which knows everything, the lower triangle, and nothing else."""

    name = "varlen"
    beaten_by: frozenset[str] = frozenset()

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
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
        if (
            why := plain_refusal(program, layout) or refusal(program, conditions.program_gradient)
        ) is not None:
            return why
        if not only_masks(program):
            return f"flash attention adds nothing to the scores, and the program has {program.score}"
        width = folded_width(program, layout, conditions.width)
        if width > _WIDEST:
            return f"flash attention takes heads of width {_WIDEST} at most, these have {width}"
        return _too_old()

    def estimate(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> Estimate:
        settings = fused_settings(conditions)
        return Estimate(2 * settings.call + layout.pairs * settings.pair, 1.0)

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        folded = fold(call)
        query, key = _packed(call.layout)
        attend = _varlen_attn()
        assert attend is not None
        out: Tensor = attend(
            query.take(folded.q),
            key.take(folded.k),
            key.take(folded.v),
            query.offsets,
            key.offsets,
            query.longest,
            key.longest,
            scale=folded.scale,
            window_size=(-1, 0) if isinstance(call.program.mask, Causal) else (-1, -1),
        )
        return query.give_back(out[..., : folded.width], len(call.q))


@dataclass(frozen=True, eq=False)
class _Packed:
    """One side as the kernel wants it: samples that have queries and keys, and int32 offsets.

    Args:
        offsets: [B' + 1], int32.
        longest: tokens of the longest sample.
        rows: the tokens of these samples; None where that is all of them.
    """

    offsets: Tensor
    longest: int
    rows: Tensor | None

    def take(self, x_NHK: Tensor) -> Tensor:
        """Contiguous, and as wide as there is a kernel for: columns of zeros change no score."""
        if self.rows is not None:
            x_NHK = x_NHK.index_select(0, self.rows)
        return F.pad(x_NHK, (0, -x_NHK.shape[-1] % _MULTIPLE)).contiguous()

    def give_back(self, x_NHK: Tensor, tokens: int) -> Tensor:
        """Zeros for the other tokens."""
        if self.rows is None:
            return x_NHK
        return x_NHK.new_zeros(tokens, *x_NHK.shape[1:]).index_copy(0, self.rows, x_NHK)


def _packed(layout: Layout) -> tuple[_Packed, _Packed]:
    """Queries and keys, once a layout."""
    if "varlen" not in layout.cache:
        kept_B = (layout.query.offsets.diff() > 0) & (layout.key.offsets.diff() > 0)
        layout.cache["varlen"] = (_pack(layout.query, kept_B), _pack(layout.key, kept_B))
    return layout.cache["varlen"]


def _pack(side: Side, kept_B: Tensor) -> _Packed:
    lengths = side.offsets.diff()[kept_B]
    rows = None if bool(kept_B.all()) else kept_B[side.sample].nonzero()[:, 0]
    return _Packed(F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)), int(lengths.max()), rows)
