"""What a backend is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["Backend", "Conditions", "Estimate"]


class Conditions(NamedTuple):
    """What the choice of a backend may depend on, beside the program and the layout.

    Args:
        device: type of the device, "cpu" or "cuda".
        dtype: of queries, keys and values.
        heads, width: H and K of the call.
        gradient: is a gradient wanted?
        program_gradient: do the program's own parameters need one?
        dropout: are weights dropped?
    """

    device: str
    dtype: torch.dtype
    heads: int
    width: int
    gradient: bool = False
    program_gradient: bool = False
    dropout: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a backend expects to spend.

    Args:
        seconds: time, to compare backends by.
        density: pairs that it scores, as a share of all pairs of one sample (above 1 with padding).
    """

    seconds: float
    density: float


class Backend(Protocol):
    """One way to run a program."""

    @property
    def name(self) -> str: ...

    @property
    def dominated_by(self) -> frozenset[str]:
        """Backends that cost less wherever they are able: next to them this one need not be estimated."""

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        """Return why this backend cannot run the program, or None if it can.

        Args:
            program: program of the heads.
            layout: layout of queries and keys.
            conditions: device, dtype and what is needed of the result.
            context_tensors: what the context gives.
        """

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        """Estimate the cost; asked only of a backend that can run the program.

        Args:
            program: program of the heads.
            layout: layout of queries and keys.
            conditions: device, dtype and what is needed of the result.
            context_tensors: what the context gives.
        """

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        """Attended values [Nq, H, K].

        Args:
            call: tensors, layout and program.
            conditions: device, dtype and what is needed of the result.
        """
