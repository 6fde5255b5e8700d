"""Exact weights for chosen queries, beside whatever backend runs the layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.attention.execution import reference
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall

__all__ = ["Explanation", "Row", "Rows", "rows"]


@dataclass(frozen=True)
class Rows:
    """Queries to explain, by their number among all query tokens of the batch."""

    tokens: tuple[int, ...]


def rows(tokens: Iterable[int] | Tensor) -> Rows:
    """The queries to explain, to be given as `layer(..., explain=rows([0, 5]))`.

    Args:
        tokens: numbers of query tokens, 0 to N - 1.

    Raises:
        InputError: something that is no whole number from 0.
    """
    listed = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
    for token in listed:
        if type(token) is not int or token < 0:
            raise InputError(f"rows: got {token!r}, expected whole numbers from 0")
    return Rows(tuple(listed))


@dataclass(frozen=True, eq=False)
class Row:
    """Where one query looks.

    Args:
        token: number of the query token in the batch.
        sample: its sample.
        keys: [K], numbers of the sample's key tokens in the batch.
        weights: [H, K], the exact weight of every head on every key (before dropout).
    """

    token: int
    sample: int
    keys: Tensor
    weights: Tensor


@dataclass(frozen=True, eq=False)
class Explanation:
    """One row for each query that was asked for, in that order."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


@torch.no_grad()
def compute_exact_weights(calls: Sequence[AttentionCall], queries: Rows) -> Explanation:
    """The rows' weights, by the reference.

    Args:
        calls: one for each range of heads.
        queries: the queries.

    Raises:
        InputError: there is no such query token.
    """
    layout = calls[0].layout
    starts, total = layout.query.starts, layout.query.starts[-1]
    results = []
    for token in queries.tokens:
        if token >= total:
            expected = f"expected 0 to {total - 1}" if total else "but the batch has none"
            raise InputError(f"rows: got query token {token}, {expected}")
        sample = int(layout.query.sample[token])
        within = token - starts[sample]
        weights_HK = torch.cat(
            [reference.attention_weights(call, sample, slice(within, within + 1))[:, 0] for call in calls]
        )
        keys = torch.arange(
            layout.key.starts[sample], layout.key.starts[sample + 1], device=weights_HK.device
        )
        results.append(Row(token, sample, keys, weights_HK))
    return Explanation(tuple(results))
