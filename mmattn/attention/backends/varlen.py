"""Variable-length flash attention on CUDA: jagged batches without a mask, straight from the offsets."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import sdpa_costs
from mmattn.attention.backends.sdpa import mask_unsupported_reason
from mmattn.attention.backends.sdpa_rewrite import (
    only_adds_mask,
    sdpa_head_width,
    sdpa_unsupported_reason,
    to_sdpa_inputs,
)
from mmattn.attention.language.position_masks import Causal

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout, TokenLayout
    from mmattn.attention.language.program import Program

__all__ = ["VarlenAttention"]

# Flash attention's kernels exist for heads of these widths only.
_WIDTH_MULTIPLE, _MAX_WIDTH = 8, 256


@lru_cache(maxsize=1)
def _varlen_attn() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


@lru_cache(maxsize=1)
def _gpu_unsupported_reason() -> str | None:
    """Why this GPU has no flash attention, or None where it has."""
    major, minor = torch.cuda.get_device_capability()
    return (
        None if major >= 8 else f"flash attention needs compute capability 8.0, this GPU has {major}.{minor}"
    )


class VarlenAttention:
    """`torch.nn.attention.varlen`, which knows everything, the lower triangle, and nothing else."""

    name = "varlen"
    dominated_by: frozenset[str] = frozenset()

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        if conditions.device != "cuda":
            return f"varlen flash attention needs CUDA, these tokens are on {conditions.device}"
        if _varlen_attn() is None:
            return f"this PyTorch ({torch.__version__}) has no varlen_attn with windows"
        if conditions.dtype not in (torch.float16, torch.bfloat16):
            return f"flash attention computes in float16 or bfloat16, not in {conditions.dtype}"
        if conditions.dropout:
            return "varlen flash attention drops no weights"
        if not layout.num_pairs:
            return "there are no pairs to score"
        if (
            why := mask_unsupported_reason(program, layout)
            or sdpa_unsupported_reason(program, conditions.program_gradient)
        ) is not None:
            return why
        if not only_adds_mask(program):
            return f"flash attention adds nothing to the scores, and the program has {program.score}"
        width = sdpa_head_width(program, layout, conditions.width)
        if width > _MAX_WIDTH:
            return f"flash attention takes heads of width {_MAX_WIDTH} at most, these have {width}"
        return _gpu_unsupported_reason()

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        settings = sdpa_costs(conditions)
        return Estimate(2 * settings.seconds_per_step + layout.num_pairs * settings.seconds_per_pair, 1.0)

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        folded = to_sdpa_inputs(call)
        query, key = _packed_sides(call.layout)
        attend = _varlen_attn()
        assert attend is not None
        out: Tensor = attend(
            query.pack(folded.q),
            key.pack(folded.k),
            key.pack(folded.v),
            query.offsets,
            key.offsets,
            query.max_length,
            key.max_length,
            scale=folded.scale,
            window_size=(-1, 0) if isinstance(call.program.mask, Causal) else (-1, -1),
        )
        return query.unpack(out[..., : folded.output_width], len(call.q))


@dataclass(frozen=True, eq=False)
class _PackedSide:
    """One side as the kernel wants it: samples that have queries and keys, and int32 offsets.

    Args:
        offsets: [B' + 1], int32.
        max_length: tokens of the longest sample.
        rows: the tokens of these samples; None where that is all of them.
    """

    offsets: Tensor
    max_length: int
    rows: Tensor | None

    def pack(self, x_NHK: Tensor) -> Tensor:
        """Contiguous, and as wide as there is a kernel for: columns of zeros change no score."""
        if self.rows is not None:
            x_NHK = x_NHK.index_select(0, self.rows)
        return F.pad(x_NHK, (0, -x_NHK.shape[-1] % _WIDTH_MULTIPLE)).contiguous()

    def unpack(self, x_NHK: Tensor, tokens: int) -> Tensor:
        """Zeros for the other tokens."""
        if self.rows is None:
            return x_NHK
        return x_NHK.new_zeros(tokens, *x_NHK.shape[1:]).index_copy(0, self.rows, x_NHK)


def _packed_sides(layout: Layout) -> tuple[_PackedSide, _PackedSide]:
    """Queries and keys, once a layout."""
    if "varlen" not in layout.cache:
        kept_B = (layout.query.offsets.diff() > 0) & (layout.key.offsets.diff() > 0)
        layout.cache["varlen"] = (_pack_side(layout.query, kept_B), _pack_side(layout.key, kept_B))
    result: tuple[_PackedSide, _PackedSide] = layout.cache["varlen"]
    return result


def _pack_side(side: TokenLayout, kept_B: Tensor) -> _PackedSide:
    lengths = side.offsets.diff()[kept_B]
    rows = None if bool(kept_B.all()) else kept_B[side.sample].nonzero()[:, 0]
    return _PackedSide(F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0)), int(lengths.max()), rows)
