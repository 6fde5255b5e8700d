"""What a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmattn.attention.call import Call
from mmattn.attention.layout import Layout
from mmattn.attention.program import Program

__all__ = ["Backend", "Conditions"]


@dataclass(frozen=True)
class Conditions:
    """What the choice of a backend may depend on, beside the program and the layout.

    Args:
        device: type of the device, "cpu" or "cuda".
        dtype: of queries, keys and values.
        heads, width: H and K of the call.
        gradient: is a gradient wanted?
        dropout: are weights dropped?
    """

    device: str
    dtype: torch.dtype
    heads: int
    width: int
    gradient: bool
    dropout: bool


class Backend(Protocol):
    """One way to run a program."""

    @property
    def name(self) -> str: ...

    def refuses(self, program: Program, layout: Layout, conditions: Conditions) -> str | None:
        """Why this backend cannot run it, or None where it can."""

    def cost(self, program: Program, layout: Layout, conditions: Conditions) -> float:
        """Estimated seconds, to compare backends by. Only asked where it does not refuse."""

    def run(self, call: Call) -> Tensor:
        """Attended values [Nq, H, K]."""
