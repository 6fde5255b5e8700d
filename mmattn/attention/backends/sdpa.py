"""PyTorch's fused attention, for programs that are a softmax over dot products (see fold.py).

Three ways to call it: once for a batch of equal lengths, a few times for a jagged one, or query block
by query block with the keys that the mask lets each block see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import sdpa_costs
from mmattn.attention.backends.run_schedule import run_schedule
from mmattn.attention.backends.sdpa_rewrite import (
    SdpaInputs,
    only_adds_mask,
    sdpa_unsupported_reason,
    to_sdpa_inputs,
)
from mmattn.attention.execution.schedule import Schedule, Step, build_schedule
from mmattn.attention.language.position_masks import Causal, Full

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["BatchedSdpa", "BlockSparseSdpa", "JaggedSdpa", "mask_unsupported_reason"]


class _SdpaBackend:
    """What the three have in common: how the steps are found and run."""

    dominated_by: frozenset[str] = frozenset()

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        steps = _build_schedule(program, layout, conditions, context_tensors)
        seconds = steps.seconds(sdpa_costs(conditions))
        return Estimate(seconds, steps.num_pairs / max(layout.num_pairs, 1))

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        return run_sdpa(_build_schedule(call.program, call.layout, conditions, call.context_tensors), call)


class BatchedSdpa(_SdpaBackend):
    """As few calls as possible for the whole batch, where all samples have as many tokens."""

    name = "sdpa"

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        if layout.uniform_shape is None:
            return "the samples differ in length"
        return mask_unsupported_reason(program, layout) or sdpa_unsupported_reason(
            program, conditions.program_gradient
        )


class JaggedSdpa(_SdpaBackend):
    """One call a sample, or for several short ones: joined in one row, or padded to the longest of them."""

    name = "jagged"

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        if layout.uniform_shape is not None:
            return "all samples have one length: sdpa does it without a mask"
        return mask_unsupported_reason(program, layout) or sdpa_unsupported_reason(
            program, conditions.program_gradient
        )


class BlockSparseSdpa(_SdpaBackend):
    """Any mask: blocks of queries against the keys that they can see, the mask written out where needed."""

    name = "blocks"

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        if mask_unsupported_reason(program, layout) is None:
            return "there is no mask to cut by: sdpa and jagged do it"
        return sdpa_unsupported_reason(program, conditions.program_gradient)


def mask_unsupported_reason(program: Program, layout: Layout) -> str | None:
    """Return why the program's mask cannot be left out, or None if it can.

    Args:
        program: program of the heads.
        layout: layout of queries and keys.
    """
    if isinstance(program.mask, Full):
        return None
    if not isinstance(program.mask, Causal):
        return f"it takes no mask, and the program has {program.mask}"
    if not layout.has_increasing_positions:
        return "causal is the lower triangle only where tokens attend to themselves and their positions grow"
    return None


def _build_schedule(
    program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
) -> Schedule:
    # Samples of one length need no mask when stacked, which is what joining them would cost.
    join = layout.uniform_shape is None and only_adds_mask(program)
    return build_schedule(layout, program.mask, sdpa_costs(conditions, join), context_tensors.present)


def run_sdpa(steps: Schedule, call: AttentionCall) -> Tensor:
    """Every step through SDPA.

    Args:
        steps: groups of samples that run together.
        call: tensors, layout and program.
    """
    folded = to_sdpa_inputs(call)

    def one(step: Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_step_attn_mask(folded, call, step),
            dropout_p=call.dropout,
            is_causal=step.causal and not folded.biases,
            scale=folded.scale,
        )

    out = run_schedule(steps, folded.q, folded.k, folded.v, one)
    return out if out.shape[-1] == folded.output_width else out[..., : folded.output_width]


def _step_attn_mask(inputs: SdpaInputs, call: AttentionCall, step: Step) -> Tensor | None:
    if not inputs.biases:
        return step.allowed
    return inputs.attn_mask(call.step_pairs(step), step.mask)
