"""The reference as a backend: it takes every program, at the price of whole weight matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import eager_costs
from mmattn.attention.execution import reference

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["ReferenceAttention"]


class ReferenceAttention:
    """See mmattn.attention.execution.reference."""

    name = "reference"
    dominated_by = frozenset({"eager"})

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        return None

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        settings = eager_costs(conditions)
        # It derives every mask again at each call, which the others keep with the layout.
        return Estimate(
            2 * layout.num_samples * settings.seconds_per_step
            + 1.5 * layout.num_pairs * settings.seconds_per_pair,
            1.0,
        )

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        return reference.run(call)
