"""Recommendation: items are what their tokens say, a user is attention over the items met before.

Nothing is learned about single users, and nothing about single items unless asked for, so that a
new user needs only a history and a new item only its content.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.types import Fused, Tokens

__all__ = ["RecommendationHead"]


class RecommendationHead(nn.Module):
    """Scores candidates by attention over the user's history.

    Each candidate j attends to the items i of the history with a query and key of their vectors,
    and adds up what they say of it:

        score(u, j) = t * sum_i a_ij s_ij / |history|^b + appeal(j)
        a_ij = exp(g cos(q_j, k_i)),   s_ij = <v_i, w_j> / sqrt(D)

    with learned t, b, g. The exponent b smooths between the sum (a long history speaks louder) and
    the mean; the appeal is what the content says about an item's popularity. All of it is two matrix
    products a batch of users, whatever the length of the histories.

    Paper: He et al., "NAIS: Neural Attentive Item Similarity Model for Recommendation", 2018.

    Args:
        dim: width D of the fused vectors.
        attention_dim: width of queries and keys.
        dropout: probability of dropping a component of an item vector in training.
        ids: number of items that get a learned vector beside their content; 0 for none.
        id_dropout: share of the items whose learned vector is dropped in a training step, so that the
            content alone must do as well.

    Example:
        >>> head, fused, inputs = RecommendationHead.example(dim=8)
        >>> items = head(fused)
        >>> history = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> head.score(history, items[2:], items[:2]).shape
        torch.Size([3, 2])
    """

    def __init__(
        self, dim: int, attention_dim: int = 64, dropout: float = 0.1, ids: int = 0, id_dropout: float = 0.5
    ):
        super().__init__()
        self.dim = dim
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.value, self.target = _twins(dim, dim)
        self.key, self.query = _twins(dim, attention_dim)
        self.appeal = nn.Linear(dim, 1)
        self.smoothing = nn.Parameter(torch.tensor(0.5))
        self.sharpness = nn.Parameter(torch.tensor(2.0).log())
        self.temperature = nn.Parameter(torch.tensor(3.0 / dim**0.5).log())
        self.id_dropout = id_dropout
        self.ids = nn.Embedding(ids, dim) if ids else None
        if self.ids is not None:
            nn.init.zeros_(self.ids.weight)

    def forward(self, fused: Fused, ids: Tensor | None = None) -> Tensor:
        """The item vectors.

        Args:
            fused: B items.
            ids: [B] int64, the number of each item's learned vector, -1 for items without; None for
                content alone.

        Returns:
            [B, D].
        """
        items_BD = self.norm(fused.pooled)
        if self.ids is not None and ids is not None:
            kept_B = ids >= 0
            if self.training:
                kept_B = kept_B & (torch.rand(len(ids), device=ids.device) >= self.id_dropout)
            items_BD = items_BD + self.ids(ids.clamp_min(0)) * kept_B[:, None]
        return self.dropout(items_BD)

    def score(self, history: Tensor, known: Tensor, candidates: Tensor) -> Tensor:
        """How much each user may like each candidate.

        Args:
            history: [U, I] ones where the user met the known item, zeros elsewhere. A user without
                any gets the appeal alone.
            known: [I, D] item vectors.
            candidates: [C, D] item vectors.

        Returns:
            [U, C].

        Raises:
            InputError: the history has another number of columns than there are known items.
        """
        if history.shape[1] != len(known):
            raise InputError(f"history: got {history.shape[1]} items, expected {len(known)}, the known ones")
        key_IK, query_CK = F.normalize(self.key(known), dim=1), F.normalize(self.query(candidates), dim=1)
        attention_IC = (self.sharpness.exp() * (key_IK @ query_CK.T)).exp()
        says_IC = self.value(known) @ self.target(candidates).T / self.dim**0.5
        length_U1 = history.sum(1, keepdim=True).clamp_min(1)
        heard_UC = history @ (attention_IC * says_IC) / length_U1**self.smoothing
        return self.temperature.exp() * heard_UC + self.appeal(candidates).T

    def loss(
        self,
        fused: Fused,
        history: Tensor,
        positives: Tensor,
        seen: Tensor | None = None,
        ids: Tensor | None = None,
        emphasis: float = 0.5,
    ) -> Tensor:
        """Softmax cross-entropy over the candidates, each user's positives sharing the target.

        Args:
            fused: the C candidates, followed by the known items that are not among them; or one set
                of items that are both.
            history: [U, I] as in `score`, over the known items (the last I of `fused`).
            positives: [U, C] ones where the candidate (the first C of `fused`) is to be found.
            seen: [U, C] True where the candidate is in the user's history and so is not ranked.
            ids: as in `forward`.
            emphasis: a user with n positives weighs n to the power of 1 - emphasis.
        """
        items = self(fused, ids)
        scores_UC = self.score(history, items[-history.shape[1] :], items[: positives.shape[1]])
        if seen is not None:  # far below every other score, but finite: its product with zero stays zero
            scores_UC = scores_UC.masked_fill(seen, -1e4)
        count_U = positives.sum(1)
        surprise_U = -(scores_UC.float().log_softmax(1) * positives).sum(1)
        weight_U = count_U.clamp_min(1) ** -emphasis * (count_U > 0)
        return (surprise_U * weight_U).sum() / (count_U * weight_U).sum().clamp_min(1e-9)

    @classmethod
    def example(cls, dim: int) -> tuple[RecommendationHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.check_head`."""
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        inputs = {
            "history": torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
            "positives": torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]),
        }
        return cls(dim, attention_dim=5), fused, inputs


def _twins(width: int, out: int) -> tuple[nn.Linear, nn.Linear]:
    """Two projections that start alike and orthogonal: at first, likeness is likeness of the content."""
    one, other = nn.Linear(width, out, bias=False), nn.Linear(width, out, bias=False)
    nn.init.orthogonal_(one.weight)
    with torch.no_grad():
        other.weight.copy_(one.weight)
    return one, other
