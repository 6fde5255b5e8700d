"""PyTorch's fused attention, for programs that are a softmax over dot products (see fold.py).

Three ways to call it: once for a batch of equal lengths, a few times for a jagged one, or query block
by query block with the keys that the mask lets each block see.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import fused_settings
from mmattn.attention.backends.run_schedule import run_steps
from mmattn.attention.backends.sdpa_rewrite import Folded, fold, only_masks, refusal
from mmattn.attention.execution.attention_call import Call
from mmattn.attention.execution.context_tensors import Extras
from mmattn.attention.execution.layout import Layout
from mmattn.attention.execution.schedule import Schedule, Step, schedule
from mmattn.attention.language.position_masks import Causal, Full
from mmattn.attention.language.program import Program

__all__ = ["Blocks", "Jagged", "Uniform", "plain_refusal"]


class _Fused:
    """What the three have in common: how the steps are found and run."""

    beaten_by: frozenset[str] = frozenset()

    def estimate(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> Estimate:
        steps = _schedule(program, layout, conditions, extras)
        seconds = steps.seconds(fused_settings(conditions))
        return Estimate(seconds, steps.pairs / max(layout.pairs, 1))

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        return run_folded(_schedule(call.program, call.layout, conditions, call.extras), call)


class Uniform(_Fused):
    """As few calls as possible for the whole batch, where all samples have as many tokens."""

    name = "sdpa"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
        if layout.uniform is None:
            return "the samples differ in length"
        return plain_refusal(program, layout) or refusal(program, conditions.program_gradient)


class Jagged(_Fused):
    """One call a sample, or for several short ones: joined in one row, or padded to the longest of them."""

    name = "jagged"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
        if layout.uniform is not None:
            return "all samples have one length: sdpa does it without a mask"
        return plain_refusal(program, layout) or refusal(program, conditions.program_gradient)


class Blocks(_Fused):
    """Any mask: blocks of queries against the keys that they can see, the mask written out where needed."""

    name = "blocks"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
        if plain_refusal(program, layout) is None:
            return "there is no mask to cut by: sdpa and jagged do it"
        return refusal(program, conditions.program_gradient)


def plain_refusal(program: Program, layout: Layout) -> str | None:
    """Why the program's mask cannot go unsaid, or None where it can."""
    if isinstance(program.mask, Full):
        return None
    if not isinstance(program.mask, Causal):
        return f"it takes no mask, and the program has {program.mask}"
    if not layout.increasing:
        return "causal is the lower triangle only where tokens attend to themselves and their positions grow"
    return None


def _schedule(program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> Schedule:
    # Samples of one length need no mask when stacked, which is what joining them would cost.
    join = layout.uniform is None and only_masks(program)
    return schedule(layout, program.mask, fused_settings(conditions, join), extras.present)


def run_folded(steps: Schedule, call: Call) -> Tensor:
    """Every step through SDPA."""
    folded = fold(call)

    def one(step: Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=_mask(folded, call, step),
            dropout_p=call.dropout,
            is_causal=step.causal and not folded.biases,
            scale=folded.scale,
        )

    out = run_steps(steps, folded.q, folded.k, folded.v, one)
    return out if out.shape[-1] == folded.width else out[..., : folded.width]


def _mask(folded: Folded, call: Call, step: Step) -> Tensor | None:
    if not folded.biases:
        return step.allowed
    return folded.mask(call.step_pairs(step), step.mask)
