"""Taking heads out of a layer for good: fewer columns to project, fewer scores to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from mmattn.attention.program import Heads, Program

if TYPE_CHECKING:
    from mmattn.attention.layer import Attention

__all__ = ["keep_heads", "renumbered"]


def keep_heads(layer: Attention, kept: list[int]) -> None:
    """Make the layer have only these of its heads; what they compute does not change."""
    rows = torch.tensor(kept, device=layer.q_proj.weight.device)
    columns = (rows[:, None] * layer.width + torch.arange(layer.width, device=rows.device)).flatten()
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj):
        projection.weight = _rows(projection.weight, columns)
        if projection.bias is not None:
            projection.bias = _rows(projection.bias, columns)
        projection.out_features = len(columns)
    layer.o_proj.weight = _rows(layer.o_proj.weight.mT, columns, transpose=True)
    layer.o_proj.in_features = len(columns)
    for name, parameter in layer.terms.items():
        layer.terms[name] = _rows(parameter, rows)
    if hasattr(layer, "slope"):
        layer.register_buffer("slope", layer.get_buffer("slope")[rows])
    layer.program = renumbered(layer.program, kept)
    layer.heads = len(kept)


def renumbered(program: Program | Heads, kept: list[int]) -> Program | Heads:
    """The program for the heads that stay; ranges without any are gone.

    Example:
        >>> from mmattn import attention as A
        >>> hybrid = A.heads({(0, 2): A.Program(mask=A.causal), (2, 4): A.Program()})
        >>> print(renumbered(hybrid, [1, 2, 3]).parts[1][:2])
        (1, 3)
    """
    if isinstance(program, Program):
        return program
    parts, end = [], 0
    for first, last, part in program.parts:
        count = sum(first <= head < last for head in kept)
        if count:
            parts.append((end, end + count, part))
            end += count
    return Heads(tuple(parts))


def _rows(parameter: torch.Tensor, rows: torch.Tensor, transpose: bool = False) -> nn.Parameter:
    chosen = parameter.detach()[rows]
    return nn.Parameter(
        (chosen.mT if transpose else chosen).contiguous(), requires_grad=parameter.requires_grad
    )
