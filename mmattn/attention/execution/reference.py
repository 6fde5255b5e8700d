"""The reference: what a program means, one sample at a time, with every weight written out.

Everything else has to agree with this file. It runs in any floating point type, keeps the whole
matrix of weights, and knows no shortcut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall

__all__ = ["attention_weights", "run"]


def run(call: AttentionCall) -> Tensor:
    """The attended values, [Nq, H, K]; zeros for a query that may attend to nothing.

    Args:
        call: tensors, layout and program.
    """
    out = [_attend(call, sample) for sample in range(call.layout.num_samples)]
    return torch.cat(out) if out else torch.zeros_like(call.q)


def attention_weights(call: AttentionCall, sample: int, queries: slice | None = None) -> Tensor:
    """The weights of one sample, [H, Q, K], of all its queries or of some.

    Args:
        call: tensors, layout and program.
        sample: index of the sample.
        queries: which of its queries; None for all.
    """
    q_QHK = _sample_rows(call.q, call.layout.query.starts, sample)[queries or slice(None)]
    k_KHK = _sample_rows(call.k, call.layout.key.starts, sample)
    if not len(k_KHK):
        return q_QHK.new_zeros(q_QHK.shape[1], len(q_QHK), 0)
    pairs = call.sample_pairs(sample, queries)
    score_HQK = call.program.chain.score(q_QHK.transpose(0, 1), k_KHK.transpose(0, 1), pairs)
    return call.program.norm.normalize(score_HQK, call.program.mask.allow(pairs), pairs)


def _attend(call: AttentionCall, sample: int) -> Tensor:
    weight_HQK = F.dropout(attention_weights(call, sample), call.dropout, training=call.dropout > 0)
    v_KHK = _sample_rows(call.v, call.layout.key.starts, sample)
    return (weight_HQK @ v_KHK.transpose(0, 1)).transpose(0, 1)


def _sample_rows(tokens: Tensor, starts: list[int], sample: int) -> Tensor:
    """One sample's rows."""
    return tokens[starts[sample] : starts[sample + 1]]
