"""Taking heads out of a layer for good: fewer columns to project, fewer scores to compute.

A pruned layer's state says which heads it kept (`kept_heads`, numbered as in the whole layer), so that
`load_state_dict` gives a whole layer the same structure before it reads the weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmattn.attention.language.program import Heads, Program
from mmattn.errors import InputError

__all__ = ["KEPT_HEADS", "PrunableAttention", "keep_heads", "prune_to_state", "renumber_heads"]

# The buffer that only a pruned layer has.
KEPT_HEADS = "kept_heads"


class PrunableAttention(nn.Module):
    """What pruning needs to know of an attention layer.

    Attributes:
        program: what the layer runs.
        heads: number of heads H.
        width: width K of a head.
        terms: parameters of the program, one row a head.
    """

    program: Program | Heads
    heads: int
    width: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear
    terms: nn.ParameterDict

    def _index_program(self) -> None:
        raise NotImplementedError


@torch.no_grad()
def keep_heads(layer: PrunableAttention, kept: list[int]) -> None:
    """Make the layer have only these of its heads; what they compute does not change.

    Args:
        layer: the layer, changed in place.
        kept: indices of the heads to keep.

    Raises:
        InputError: a projection is no longer an `nn.Linear`, for example because an adapter is around it.
    """
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        if not isinstance(projection := getattr(layer, name), nn.Linear):
            raise InputError(
                f"Attention: no head can be removed, {name} is {type(projection).__name__}, expected Linear; "
                "merge adapters first"
            )
    rows = torch.tensor(kept, device=layer.q_proj.weight.device)
    columns = (rows[:, None] * layer.width + torch.arange(layer.width, device=rows.device)).flatten()
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj):
        projection.weight = _select_rows(projection.weight, columns)
        if projection.bias is not None:
            projection.bias = _select_rows(projection.bias, columns)
        projection.out_features = len(columns)
    layer.o_proj.weight = _select_rows(layer.o_proj.weight.mT, columns, transpose=True)
    layer.o_proj.in_features = len(columns)
    layer.program = renumber_heads(layer.program, kept)
    needed = {spec.name for spec in layer.program.parameters()}
    layer.terms = nn.ParameterDict(
        {name: _select_rows(parameter, rows) for name, parameter in layer.terms.items() if name in needed}
    )
    if hasattr(layer, "slope"):
        layer.register_buffer("slope", layer.get_buffer("slope")[rows])
    before = rows.new_tensor(_kept_heads(layer))
    layer.register_buffer(KEPT_HEADS, before[rows])
    layer.heads = len(kept)
    layer._index_program()


def prune_to_state(layer: PrunableAttention, state: Mapping[str, Tensor], prefix: str = "") -> None:
    """Remove the heads that the layer whose state this is does not have.

    Args:
        layer: a whole layer, or one that has at least the heads of the state.
        state: of a whole or of a pruned layer.
        prefix: what the layer's names begin with in the state.

    Raises:
        InputError: the state has heads that this layer does not have.
    """
    if f"{prefix}q_proj.weight" not in state:
        return  # nothing of this layer: a partial state says nothing of its heads
    here, saved = _kept_heads(layer), state.get(prefix + KEPT_HEADS)
    if saved is None and getattr(layer, KEPT_HEADS) is None:
        return
    wanted = None if saved is None else saved.tolist()
    if wanted is None or not set(wanted) <= set(here):
        raise InputError(
            f"Attention: the state of {prefix.rstrip('.') or 'the layer'} is "
            f"{'of all heads' if wanted is None else f'of the heads {wanted}'}, but this layer has only "
            f"{here}; expected a layer that was pruned less, or not at all"
        )
    if wanted != here:
        keep_heads(layer, [here.index(head) for head in wanted])


def renumber_heads(program: Program | Heads, kept: list[int]) -> Program | Heads:
    """The program for the heads that stay; ranges without any are gone.

    Args:
        program: program of all heads.
        kept: indices of the heads to keep.

    Example:
        >>> from mmattn import attention as A
        >>> hybrid = A.heads({(0, 2): A.Program(mask=A.causal), (2, 4): A.Program()})
        >>> print(renumber_heads(hybrid, [1, 2, 3]).parts[1][:2])
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


def _kept_heads(layer: PrunableAttention) -> list[int]:
    """The layer's heads, numbered as before anything was pruned."""
    kept = getattr(layer, KEPT_HEADS)
    return list(range(layer.heads)) if kept is None else kept.tolist()


def _select_rows(parameter: Tensor, rows: Tensor, transpose: bool = False) -> nn.Parameter:
    chosen = parameter.detach()[rows]
    return nn.Parameter(
        (chosen.mT if transpose else chosen).contiguous(), requires_grad=parameter.requires_grad
    )
