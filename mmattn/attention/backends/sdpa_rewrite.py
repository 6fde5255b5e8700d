"""Programs as plain softmax(q k + bias): what fused attention kernels understand.

Scales and temperatures go into the queries. A bias for pairs of modalities goes into a few more columns
of queries and keys, whose product is that bias: it then costs no matrix, and its gradient comes for
free. Other biases become an additive mask, through which no gradient flows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.language.biases import Bias, ModalityBias, modality_slot_table
from mmattn.attention.language.norms import Softmax
from mmattn.attention.language.scores import Dot, DotProductScore, HeadGate, Temperature

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.layout import Layout, TokenLayout
    from mmattn.attention.language.pairs import Pairs
    from mmattn.attention.language.program import Program

__all__ = ["SdpaInputs", "only_adds_mask", "sdpa_head_width", "sdpa_unsupported_reason", "to_sdpa_inputs"]


@dataclass(frozen=True, eq=False)
class SdpaInputs:
    """Queries, keys and values whose plain attention, with `biases` as a mask, is the program's.

    Args:
        q, k, v: [N, H, K'], where K' may be wider than the program's K; all as wide as each other.
        scale: of the dot product.
        biases: terms that go into the mask, each with the temperatures that come after it.
        output_width: K, the columns of the result that count.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    biases: tuple[tuple[Bias, tuple[Temperature, ...]], ...]
    output_width: int

    @torch.no_grad()
    def attn_mask(self, pairs: Pairs, allowed: Tensor | None) -> Tensor | None:
        """Boolean or additive mask [G, H or 1, Q, K], None where everything is allowed alike.

        Args:
            pairs: fields of the queries and keys of a step.
            allowed: boolean mask of the step; None where everything is allowed.
        """
        if not self.biases:
            return allowed
        total: Tensor | float = 0.0
        for term, temperatures in self.biases:
            bias = term.bias(pairs)
            for temperature in temperatures:
                bias = bias / pairs.resolve_number(temperature.x)
            total = total + bias
        assert isinstance(total, Tensor)
        total = total.to(self.q.dtype)
        return total if allowed is None else total.masked_fill(~allowed, float("-inf"))


@lru_cache(maxsize=256)
def only_adds_mask(program: Program) -> bool:
    """Is nothing added to the scores but what goes into queries and keys?

    Args:
        program: program of the heads.
    """
    return not any(
        isinstance(term, Bias) and not isinstance(term, ModalityBias) for term in program.chain.modifiers
    )


def sdpa_head_width(program: Program, layout: Layout, width: int) -> int:
    """K', the width of a head in that form.

    Args:
        program: program of the heads.
        layout: layout of queries and keys.
        width: width K of a head.
    """
    biases = sum(isinstance(term, ModalityBias) for term in program.chain.modifiers)
    return width + biases * max(len(layout.key.modalities), 1)


@lru_cache(maxsize=512)
def sdpa_unsupported_reason(program: Program, needs_gradient: bool) -> str | None:
    """Why a program has no such form, or None where it has.

    Args:
        program: program of the heads.
        needs_gradient: do the program's own parameters need a gradient?
    """
    if program.norm != Softmax():
        return f"fused attention has no norm {program.norm}"
    if not isinstance(program.chain.base, DotProductScore):
        return f"fused attention has no score {program.chain.base}"
    masked = False
    for term in program.chain.modifiers:
        if isinstance(term, (HeadGate, ModalityBias)):
            continue
        if isinstance(term, Temperature):
            if masked and needs_gradient and not isinstance(term.x, float):
                return f"fused attention gives no gradient through a mask, which {term} divides"
        elif not isinstance(term, Bias):
            return f"fused attention cannot do {term}"
        elif needs_gradient and getattr(term, "parameters", None):
            return f"fused attention gives no gradient to the bias {term}"
        else:
            masked = True
    return None


def to_sdpa_inputs(call: AttentionCall) -> SdpaInputs:
    """The call in that form. `sdpa_unsupported_reason` said that there is one.

    Args:
        call: tensors, layout and program.
    """
    base, changes = call.program.chain.base, call.program.chain.modifiers
    assert isinstance(base, DotProductScore)
    width = call.q.shape[-1]
    q, k, v = call.q, call.k, call.v
    if not isinstance(base, Dot):
        q, k = base.transform_qk(q.transpose(0, 1), k.transpose(0, 1), call.parameters, call.head)
        q, k = q.transpose(0, 1), k.transpose(0, 1)
    scale: Tensor | float = width**-0.5 if base.scale is None else call.number_per_query(base.scale)
    biases: list[tuple[Bias, tuple[Temperature, ...]]] = []
    columns: list[Tensor] = []
    for term in changes:
        if isinstance(term, Temperature):
            number = call.number_per_query(term.x)
            scale, columns = scale / number, [column / number for column in columns]
            biases = [(bias, (*temperatures, term)) for bias, temperatures in biases]
        elif isinstance(term, ModalityBias):
            query, key = _modality_columns(term, call)
            columns.append(query)
            k = torch.cat([k, key], dim=-1)
        elif isinstance(term, Bias):
            biases.append((term, ()))
    if columns:
        q = torch.cat([q * scale, *columns], dim=-1)
        v = F.pad(v, (0, q.shape[-1] - width))
        scale = 1.0
    elif isinstance(scale, Tensor):
        q, scale = q * scale, 1.0
    assert isinstance(scale, float)
    return SdpaInputs(q, k, v, scale, tuple(biases), width)


def _modality_columns(term: ModalityBias, call: AttentionCall) -> tuple[Tensor, Tensor]:
    """[Nq, H, M] and [Nk, H, M] whose product is the bias of every pair."""
    query, key = call.layout.query, call.layout.key
    names = term.modalities or call.modality_slots
    rows, columns = modality_slot_table(query.modalities, names), modality_slot_table(key.modalities, names)
    heads = call.q.shape[1]
    bias_HMM = call.parameters[term.name][call.first_head : call.first_head + heads]
    bias_HMM = bias_HMM[:, list(rows)][:, :, list(columns)]
    query_NHM = torch.einsum("nq,hqk->nhk", _one_hot(query, call.q), bias_HMM)
    key_NM = _one_hot(key, call.k)
    return query_NHM, key_NM[:, None].expand(-1, heads, -1)


def _one_hot(side: TokenLayout, like: Tensor) -> Tensor:
    return F.one_hot(side.modality, max(len(side.modalities), 1)).to(like.dtype)
