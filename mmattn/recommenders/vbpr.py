"""VBPR: matrix factorization with item features, trained on pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmattn.recommenders.base import check_at_least_one, check_features
from mmattn.recommenders.pairwise import INIT_STD, InteractionPairs, PairwiseModel, PairwiseRecommender

__all__ = ["VBPR"]


class VBPR(PairwiseRecommender):
    """BPR with a second inner product between a visual user vector and the projected features of the item.

    score = item bias + user . item + visual user . (E features) + visual bias . features. An item that is
    not known is scored by its features alone; an item without features (a zero row) by its own vector
    alone. An item with neither scores zero.

    R. He and J. McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016,
    https://arxiv.org/abs/1510.01784.

    Args:
        dim: width of the user and item vectors.
        visual_dim: width that the features are projected to.
        **settings: the other arguments of `mmattn.recommenders.pairwise.PairwiseRecommender`.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> from scipy import sparse
        >>> tastes = np.kron(np.eye(2), np.ones((5, 4)))  # two of them, five users each
        >>> tastes[:, [3, 7]] = 0  # the last item of each kind is new
        >>> model = VBPR(dim=2, visual_dim=2, epochs=200, learning_rate=0.05)
        >>> images = np.repeat(np.eye(2), 4, axis=0)
        >>> scores = model.fit(sparse.csr_array(tastes), images).score([0], [3, 7])[0]
        >>> bool(scores[0] > scores[1])
        True
    """

    def __init__(self, dim: int = 32, visual_dim: int = 32, **settings: Any):
        super().__init__(dim=dim, **settings)
        self.visual_dim = check_at_least_one("VBPR: visual_dim", visual_dim)

    def _build_model(
        self, pairs: InteractionPairs, features: NDArray[Any] | None, generator: torch.Generator
    ) -> PairwiseModel:
        features_IF = check_features("VBPR", features, pairs.num_items).astype(np.float32)
        latent = pairs.init_vectors(self.dim, generator)
        eyes, _ = pairs.init_vectors(self.visual_dim, generator)
        projection = INIT_STD * torch.randn(features_IF.shape[1], self.visual_dim, generator=generator)
        return _VisualFactorization(*latent, eyes, nn.Parameter(projection), torch.from_numpy(features_IF))


class _VisualFactorization(PairwiseModel):
    features: Tensor

    def __init__(
        self,
        users: nn.Parameter,
        items: nn.Parameter,
        visual_users: nn.Parameter,
        projection: nn.Parameter,
        features: Tensor,
    ):
        super().__init__()
        self.users = users
        self.items = items
        self.bias = nn.Parameter(torch.zeros(len(items)))
        self.visual_users = visual_users
        self.projection = projection
        self.visual_bias = nn.Parameter(torch.zeros(len(projection)))
        self.register_buffer("features", features)

    def forward(self, users: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
        # Features are wide and items repeat within a batch: project each item once.
        items, indices = torch.unique(torch.cat([positive_items, negative_items]), return_inverse=True)
        seen_IK, seen_bias_I = self._project(self.features[items])
        (seen_better_BK, seen_worse_BK), (seen_bias_better_B, seen_bias_worse_B) = (
            values[indices].chunk(2) for values in (seen_IK, seen_bias_I)
        )
        user_BK, eye_BK = self.users[users], self.visual_users[users]
        better_BK, worse_BK = self.items[positive_items], self.items[negative_items]
        bias_B2 = torch.stack([self.bias[positive_items], self.bias[negative_items]], 1)
        margin_B = (
            (user_BK * (better_BK - worse_BK)).sum(1)
            + (eye_BK * (seen_better_BK - seen_worse_BK)).sum(1)
            + (bias_B2[:, 0] - bias_B2[:, 1])
            + (seen_bias_better_B - seen_bias_worse_B)
        )
        touched = (user_BK, eye_BK, better_BK, worse_BK, bias_B2)
        return margin_B, torch.stack([part.square().sum(1) for part in touched]).sum(0)

    def factors(self) -> tuple[Tensor, Tensor, Tensor]:
        seen_IK, seen_bias_I = self._project(self.features)
        users_UK = torch.cat([self.users, self.visual_users], 1)
        return users_UK, torch.cat([self.items, seen_IK], 1), self.bias + seen_bias_I

    def _project(self, features_IF: Tensor) -> tuple[Tensor, Tensor]:
        return features_IF @ self.projection, features_IF @ self.visual_bias
