"""The reference as a backend: it takes every program, at the price of whole weight matrices."""

from __future__ import annotations

from torch import Tensor

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import eager_settings
from mmattn.attention.execution import reference
from mmattn.attention.execution.attention_call import Call
from mmattn.attention.execution.context_tensors import Extras
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.program import Program

__all__ = ["Reference"]


class Reference:
    """See mmattn.attention.execution.reference."""

    name = "reference"
    beaten_by = frozenset({"eager"})

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
        return None

    def estimate(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> Estimate:
        settings = eager_settings(conditions)
        # It derives every mask again at each call, which the others keep with the layout.
        return Estimate(2 * layout.samples * settings.call + 1.5 * layout.pairs * settings.pair, 1.0)

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        return reference.run(call)
