"""The reference: what a program means, one sample at a time, with every weight written out.

Everything else has to agree with this file. It runs in any floating point type, keeps the whole
matrix of weights, and knows no shortcut.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.attention.call import Call

__all__ = ["run", "weights"]


def run(call: Call) -> Tensor:
    """The attended values, [Nq, H, K]; zeros for a query that may attend to nothing."""
    queries, keys = call.layout.query.sizes, call.layout.key.sizes
    q, k, v = call.q.split(queries), call.k.split(keys), call.v.split(keys)
    out = [_attend(call, sample, q[sample], k[sample], v[sample]) for sample in range(call.layout.samples)]
    return torch.cat(out) if out else torch.zeros_like(call.q)


def weights(call: Call, sample: int) -> Tensor:
    """The weights of one sample, [H, Q, K]."""
    queries, keys = call.layout.query.sizes, call.layout.key.sizes
    return _weights(call, sample, call.q.split(queries)[sample], call.k.split(keys)[sample])


def _weights(call: Call, sample: int, q_QHK: Tensor, k_KHK: Tensor) -> Tensor:
    pairs = call.sample_pairs(sample)
    score_HQK = call.program.chain.score(q_QHK.transpose(0, 1), k_KHK.transpose(0, 1), pairs)
    return call.program.norm.weigh(score_HQK, call.program.mask.allow(pairs), pairs)


def _attend(call: Call, sample: int, q_QHK: Tensor, k_KHK: Tensor, v_KHK: Tensor) -> Tensor:
    weight_HQK = _weights(call, sample, q_QHK, k_KHK)
    weight_HQK = F.dropout(weight_HQK, call.dropout, training=call.dropout > 0)
    return (weight_HQK @ v_KHK.transpose(0, 1)).transpose(0, 1)
