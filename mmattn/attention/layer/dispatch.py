"""Running a call: every program of the layer over its own heads, on the backend that plan.py chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.attention.backends import Conditions
from mmattn.attention.backends.selection import select_backend

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.language.scores import HeadGate
    from mmattn.attention.layer.parameter_init import HeadPrograms

__all__ = ["projection_dtype", "run_programs", "sample_gates", "split_by_program"]


def split_by_program(call: AttentionCall, parts: HeadPrograms) -> list[AttentionCall]:
    """One call for each program of the layer, over its own heads.

    Args:
        call: tensors and layout of all heads.
        parts: programs of the heads.
    """
    if len(parts) == 1:
        return [call]
    return [
        replace(
            call,
            program=program,
            q=call.q[:, first:last],
            k=call.k[:, first:last],
            v=call.v[:, first:last],
            first_head=first,
        )
        for first, last, program in parts
    ]


def run_programs(
    calls: Sequence[AttentionCall], program_needs_gradient: Callable[[], bool], requested: str
) -> Tensor:
    """Attended values [Nq, H, K].

    Args:
        calls: one for each range of heads.
        program_needs_gradient: would the program's own parameters get gradients?
        requested: "auto" or the name of the backend that has to run.

    Raises:
        InputError: the wanted backend cannot run it.
    """
    out = []
    for call in calls:
        gradient = torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (call.q, call.k, call.v, *call.parameters.values())
        )
        conditions = Conditions(
            device=call.q.device.type,
            dtype=call.q.dtype,
            heads=call.q.shape[1],
            width=call.q.shape[2],
            gradient=gradient,
            program_gradient=gradient and program_needs_gradient(),
            dropout=call.dropout > 0,
        )
        backend = select_backend(call.program, call.layout, conditions, call.context_tensors, requested)
        out.append(backend.run(call, conditions))
    return out[0] if len(out) == 1 else torch.cat(out, dim=1)


def projection_dtype(weight: Tensor) -> torch.dtype:
    """What a projection with this weight gives: autocast's type or its own; float32 if quantised.

    Args:
        weight: of the projection.
    """
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return weight.dtype if weight.is_floating_point() else torch.float32


def sample_gates(
    call: AttentionCall, parts: HeadPrograms, gate_terms: Sequence[tuple[int, int, HeadGate]], training: bool
) -> Tensor:
    """[H, 1], the heads' gates; 1 for heads without one.

    Args:
        call: tensors, layout and program.
        parts: programs of the heads.
        gate_terms: first head, last head + 1 and term of each gate.
        training: sample the gates.
    """
    gates = [torch.ones(last - first, dtype=call.q.dtype, device=call.q.device) for first, last, _ in parts]
    starts = [first for first, _, _ in parts]
    for first, last, term in gate_terms:
        index = starts.index(first)
        gates[index] = gates[index] * term.gate(call.parameters[term.name][first:last], training)
    return torch.cat(gates)[:, None]
