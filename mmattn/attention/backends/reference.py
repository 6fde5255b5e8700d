"""The reference as a backend: it takes every program, at the price of whole weight matrices."""

from __future__ import annotations

from torch import Tensor

from mmattn.attention import reference
from mmattn.attention.backends.base import Conditions
from mmattn.attention.call import Call
from mmattn.attention.layout import Layout
from mmattn.attention.program import Program

__all__ = ["Reference"]


class Reference:
    name = "reference"

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        return None

    def cost(self, program: Program, layout: Layout, conditions: Conditions) -> float:
        # Measured: every pass over a weight matrix costs about as much as its matrix products.
        return layout.samples * 200e-6 + layout.pairs * conditions.heads * (conditions.width + 32) * 4e-10

    def run(self, call: Call) -> Tensor:
        return reference.run(call)
