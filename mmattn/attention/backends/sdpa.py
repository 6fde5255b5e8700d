"""PyTorch's fused attention, for programs that are a softmax over dot products (see fold.py).

Three ways to call it: once for a batch of equal lengths, a few times for a jagged one, or query block
by query block with the keys that the mask lets each block see.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import fused_settings
from mmattn.attention.backends.steps import run_steps
from mmattn.attention.call import Call
from mmattn.attention.fold import Folded, fold, refusal
from mmattn.attention.layout import Layout
from mmattn.attention.masks import Causal, Full
from mmattn.attention.program import Program
from mmattn.attention.schedule import Schedule, Step, schedule

__all__ = ["Blocks", "Jagged", "Uniform", "plain_refusal"]


class _Fused:
    """What the three have in common: how the steps are found and run."""

    def estimate(self, program: Program, layout: Layout, conditions: Conditions) -> Estimate:
        settings = fused_settings(conditions)
        steps = schedule(layout, program.mask, settings)
        return Estimate(steps.seconds(settings), steps.pairs / max(layout.pairs, 1))

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        steps = schedule(call.layout, call.program.mask, fused_settings(conditions), call.extras.present)
        return run_folded(steps, call)


class Uniform(_Fused):
    """One call for the whole batch, where all samples have as many tokens."""

    name = "sdpa"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        if layout.uniform is None:
            return "the samples differ in length"
        return plain_refusal(program, layout) or refusal(program, conditions.program_gradient)

    def estimate(self, program: Program, layout: Layout, conditions: Conditions) -> Estimate:
        settings = fused_settings(conditions)
        return Estimate(settings.call + layout.pairs * settings.pair, 1.0)


class Jagged(_Fused):
    """One call a sample, or for several short ones that are padded to the longest of them."""

    name = "jagged"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        if layout.uniform is not None:
            return "all samples have one length: sdpa does it in one call"
        return plain_refusal(program, layout) or refusal(program, conditions.program_gradient)


class Blocks(_Fused):
    """Any mask: blocks of queries against the keys that they can see, the mask written out where needed."""

    name = "blocks"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
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
