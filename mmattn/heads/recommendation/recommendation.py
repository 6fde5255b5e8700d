"""Recommendation: items are what their tokens say, a user is attention over the items met before.

Nothing is learned about single users, and nothing about single items unless asked for, so that a
new user needs only a history and a new item only its content.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from mmattn import registry
from mmattn.errors import InputError
from mmattn.heads.base import Head
from mmattn.heads.recommendation.history_completion import complete_history_weights
from mmattn.types import Fused, Tokens

__all__ = ["RecommendationHead"]


class RecommendationHead(Head):
    """Scores candidates by attention over the user's history.

    Candidate j attends to the known items i with the exponential weights of attention, and the score
    of a user adds up what falls on the items of the user's history:

        a_ij = exp(g <z_i, z_j>)
        W = (A + s I)^-1 a          where decorrelated, otherwise W = a
        score(u, j) = t * sum_{i in history} W_ij / |history|^b

    with learned g, s, t, b. Plain attention counts twice what two alike items of a history both say;
    decorrelated attention (A holds a_ij among the known items) weighs them together, which is the
    closed form of kernel ridge regression, differentiated through. The exponent b smooths between the
    sum (a long history speaks louder) and the mean. A user without history scores 0 everywhere.

    With completion, W becomes P W: histories are filled in by what all users' choices say of each other
    before they meet the content (`mmattn.heads.recommendation.history_completion`). The score stays linear in
    the history.

    Papers: He et al., "NAIS: Neural Attentive Item Similarity Model for Recommendation", 2018 (the
    attention and the exponent b); Bertinetto et al., "Meta-learning with differentiable closed-form
    solvers", 2019; Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", 2019 (an item is not
    asked about itself).

    Args:
        dim: width D of the fused vectors.
        dropout: probability of dropping a component of an item vector in training.
        decorrelate: weigh the known items together; costs the cube of their number, so that some
            20,000 known items are a sensible limit.
        num_ids: number of items that get a learned vector beside their content; 0 for none.
        id_dropout: share of the items whose learned vector is dropped in a training step, so that the
            content alone must do as well.
        kernel_scale: what g starts at.
        regularization: what s starts at.
        completion_dropout: dropout of the history completion, from 0 to below 1; None leaves histories as
            they are.
        completion_ridge: its ridge, in users.

    Example:
        >>> head, fused, inputs = RecommendationHead.example(dim=8)
        >>> items = head(fused)
        >>> history = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
        >>> head.score(history, head.weights(items[2:], items[:2])).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        dim: int,
        dropout: float = 0.1,
        decorrelate: bool = True,
        num_ids: int = 0,
        id_dropout: float = 0.5,
        kernel_scale: float = 0.5,
        regularization: float = 3.0,
        completion_dropout: float | None = None,
        completion_ridge: float = 10.0,
    ):
        super().__init__()
        self.dim = dim
        self.dropout = nn.Dropout(dropout)
        self.decorrelate = decorrelate
        self.log_kernel_scale = nn.Parameter(torch.tensor(math.log(kernel_scale)))
        self.log_regularization = nn.Parameter(torch.tensor(math.log(regularization)))
        self.log_score_scale = nn.Parameter(torch.tensor(math.log(1.5)))
        self.length_exponent = nn.Parameter(torch.tensor(0.5))
        self.completion_dropout, self.completion_ridge = completion_dropout, completion_ridge
        self.id_dropout = id_dropout
        self.id_embedding = nn.Embedding(num_ids, dim) if num_ids else None
        if self.id_embedding is not None:
            nn.init.zeros_(self.id_embedding.weight)

    @classmethod
    def task(cls) -> Any:
        """Return the task that trains it."""
        return registry.tasks.load("recommendation")

    def forward(self, fused: Fused, ids: Tensor | None = None) -> Tensor:
        """The item vectors.

        Args:
            fused: B items.
            ids: [B] int64, the number of each item's learned vector, -1 for items without; None for
                content alone.

        Returns:
            [B, D].
        """
        items_BD = fused.pooled
        if self.id_embedding is not None and ids is not None:
            kept_B = ids >= 0
            if self.training:
                kept_B = kept_B & (torch.rand(len(ids), device=ids.device) >= self.id_dropout)
            items_BD = items_BD + self.id_embedding(ids.clamp_min(0)) * kept_B[:, None]
        return self.dropout(items_BD)

    def weights(
        self,
        known_vectors: Tensor,
        candidate_vectors: Tensor,
        known_rows: Tensor | None = None,
        cooccurrence: Tensor | None = None,
    ) -> Tensor:
        """What each known item says of each candidate.

        Args:
            known_vectors: [I, D] item vectors.
            candidate_vectors: [C, D] item vectors.
            known_rows: [C] int64, the place of a candidate among the known items, -1 where it is not one of
                them; None where none is. An item says nothing of itself.
            cooccurrence: [I, I] numbers of users who chose both known items, for the completion of histories;
                None leaves them as they are.

        Returns:
            [I, C], to be multiplied by histories.

        Raises:
            InputError: training has driven the item vectors so far that their attention cannot be inverted.
        """
        # In full precision whatever the rest runs in: the system may be badly conditioned.
        with torch.autocast(known_vectors.device.type, enabled=False):
            known_vectors, candidate_vectors, g = (
                known_vectors.float(),
                candidate_vectors.float(),
                self.log_kernel_scale.exp(),
            )
            weights_IC = (g * (known_vectors @ candidate_vectors.T)).exp()
            if self.decorrelate:
                attention_II = (g * (known_vectors @ known_vectors.T)).exp()
                attention_II = attention_II + self.log_regularization.exp() * torch.eye(
                    len(known_vectors), device=known_vectors.device
                )
                factor_II = _cholesky_factor(attention_II)
                weights_IC = torch.cholesky_solve(weights_IC, factor_II)
                if known_rows is not None and bool((known_rows >= 0).any()):
                    weights_IC = _leave_one_out(weights_IC, torch.cholesky_inverse(factor_II), known_rows)
            if known_rows is not None:
                itself_IC = (
                    torch.arange(len(known_vectors), device=known_vectors.device)[:, None] == known_rows
                )
                weights_IC = weights_IC.masked_fill(itself_IC, 0.0)
        if self.completion_dropout is not None and cooccurrence is not None:
            weights_IC = complete_history_weights(
                weights_IC, cooccurrence, self.completion_dropout, self.completion_ridge
            )
        return weights_IC

    def score(self, history: Tensor, weights: Tensor) -> Tensor:
        """How much each user may like each candidate.

        Args:
            history: [U, I] ones where the user met the known item, zeros elsewhere.
            weights: [I, C] as `weights` gives them.

        Returns:
            [U, C].

        Raises:
            InputError: the history has another number of columns than there are known items.
        """
        if history.shape[1] != len(weights):
            raise InputError(
                f"history: got {history.shape[1]} items, expected {len(weights)}, the known ones"
            )
        length_U1 = history.sum(1, keepdim=True).clamp_min(1)
        # 50 keeps the scale of scores apart from b: a usual history leaves it as it is.
        return (
            self.log_score_scale.exp() * 10 * (history @ weights) / (length_U1 / 50) ** self.length_exponent
        )

    def loss(
        self,
        fused: Fused,
        history: Tensor,
        positives: Tensor,
        seen: Tensor | None = None,
        ids: Tensor | None = None,
        cooccurrence: Tensor | None = None,
        activity_power: float = 0.5,
    ) -> Tensor:
        """Softmax cross-entropy over the candidates, each user's positives sharing the target.

        Args:
            fused: the C candidates, followed by the I known items; or, where C = I is the number of
                samples, one set of items that are both.
            history: [U, I] as in `score`.
            positives: [U, C] ones where the candidate is to be found.
            seen: [U, C] True where the candidate is in the user's history and so is not ranked.
            ids: as in `forward`.
            cooccurrence: as in `weights`; of the known items alone.
            activity_power: a user with n positives weighs n to the power of 1 - emphasis.
        """
        items = self(fused, ids)
        own_column = (
            torch.arange(len(items), device=items.device) if len(items) == positives.shape[1] else None
        )
        weights = self.weights(
            items[-history.shape[1] :], items[: positives.shape[1]], own_column, cooccurrence
        )
        scores_UC = self.score(history, weights)
        if seen is not None:  # far below every other score, but finite: its product with zero stays zero
            scores_UC = scores_UC.masked_fill(seen, -1e4)
        count_U = positives.sum(1)
        surprise_U = -(scores_UC.float().log_softmax(1) * positives).sum(1)
        weight_U = count_U.clamp_min(1) ** -activity_power * (count_U > 0)
        return (surprise_U * weight_U).sum() / (count_U * weight_U).sum().clamp_min(1e-9)

    @classmethod
    def example(cls, dim: int) -> tuple[RecommendationHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim) / dim**0.5, torch.randn(4, 1, dim), tokens.presence)
        inputs = {
            "history": torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),
            "positives": torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]),
        }
        return cls(dim), fused, inputs


def _cholesky_factor(attention_II: Tensor) -> Tensor:
    """Its Cholesky factor, which exists wherever single precision can tell the items apart."""
    factor_II, failed = torch.linalg.cholesky_ex(attention_II)
    if not failed:
        return factor_II
    finite = bool(attention_II.isfinite().all())
    raise InputError(
        "recommendation head: the attention among the known items cannot be inverted: it "
        + (f"reaches {attention_II.max().item():.3g}" if finite else "is not finite")
        + ", expected item vectors of a length near 1; a lower learning rate keeps them there"
    )


def _leave_one_out(weights_IC: Tensor, inverse_II: Tensor, known_rows: Tensor) -> Tensor:
    """Weights of known candidates as if the item itself had not been among the known ones.

    With P the inverse, the solution without item j is -P_ij / P_jj: no second solve is needed.
    """
    alone_II = -inverse_II / inverse_II.diagonal()
    return torch.where((known_rows >= 0)[None], alone_II[:, known_rows.clamp_min(0)], weights_IC)
