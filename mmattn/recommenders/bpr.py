"""Matrix factorization trained on pairs with the BPR loss."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmattn.recommenders.pairwise import InteractionPairs, PairwiseModel, PairwiseRecommender

__all__ = ["BPR"]


class BPR(PairwiseRecommender):
    """Matrix factorization with item biases, trained with the BPR loss.

    S. Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009,
    https://arxiv.org/abs/1205.2618. Items that are not known score zero; for users without interactions the
    scores are the item biases. Arguments: see `mmattn.recommenders.pairwise.PairwiseRecommender`.

    Example:
        >>> import numpy as np
        >>> from scipy import sparse
        >>> seen = sparse.csr_array(np.kron(np.eye(2), np.ones((5, 3))))  # two tastes, five users each
        >>> scores = BPR(dim=2, epochs=200, learning_rate=0.05).fit(seen).score([0], range(6))[0]
        >>> bool(scores[:3].min() > scores[3:].max())
        True
    """

    def _build_model(
        self, pairs: InteractionPairs, features: NDArray[Any] | None, generator: torch.Generator
    ) -> PairwiseModel:
        return _MatrixFactorization(*pairs.init_vectors(self.dim, generator))


class _MatrixFactorization(PairwiseModel):
    def __init__(self, users: nn.Parameter, items: nn.Parameter):
        super().__init__()
        self.users = users
        self.items = items
        self.bias = nn.Parameter(torch.zeros(len(items)))

    def forward(self, users: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
        user_BK, better_BK, worse_BK = (
            self.users[users],
            self.items[positive_items],
            self.items[negative_items],
        )
        bias_B2 = torch.stack([self.bias[positive_items], self.bias[negative_items]], 1)
        margin_B = (user_BK * (better_BK - worse_BK)).sum(1) + bias_B2[:, 0] - bias_B2[:, 1]
        touched = (user_BK, better_BK, worse_BK, bias_B2)
        return margin_B, torch.stack([part.square().sum(1) for part in touched]).sum(0)

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.users, self.items, self.bias
