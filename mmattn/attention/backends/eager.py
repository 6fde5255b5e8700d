"""Scores written out, block by block: any program, with every gradient, and dropout.

It does what the reference does, but runs short samples together, cuts long ones so that the scores of a
step stay small, and skips the blocks that the mask leaves out. For the gradients only what goes into a
step is kept: its scores and weights are computed again (https://arxiv.org/abs/1604.06174), so that the
memory is that of one step whatever the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import eager_costs
from mmattn.attention.backends.run_schedule import run_schedule
from mmattn.attention.execution.schedule import Step, build_schedule

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["EagerAttention"]


class EagerAttention:
    """Every program, block by block."""

    name = "eager"
    dominated_by = frozenset({"sdpa", "varlen", "jagged", "blocks"})

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        return None

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        settings = eager_costs(conditions)
        steps = build_schedule(layout, program.mask, settings, context_tensors.present)
        return Estimate(steps.seconds(settings), steps.num_pairs / max(layout.num_pairs, 1))

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        settings = eager_costs(conditions)
        steps = build_schedule(call.layout, call.program.mask, settings, call.context_tensors.present)
        chain, norm = call.program.chain, call.program.norm
        everything = torch.ones(1, 1, dtype=torch.bool, device=call.q.device)

        def one(step: Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            pairs = call.step_pairs(step)
            allowed = everything if step.mask is None else step.mask
            weight = norm.normalize(chain.score(q, k, pairs), allowed, pairs)
            return F.dropout(weight, call.dropout, training=call.dropout > 0) @ v

        def again(step: Step, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out: Tensor = checkpoint(
                one, step, q, k, v, use_reentrant=False, preserve_rng_state=call.dropout > 0
            )
            return out

        # What fits into one step anyway is kept: computing it twice would save nothing.
        keep = not conditions.gradient or steps.num_pairs <= settings.max_pairs
        return run_schedule(steps, call.q, call.k, call.v, one if keep else again)
