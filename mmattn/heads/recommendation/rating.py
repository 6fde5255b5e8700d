"""Ratings: what a user would give an item, from the ratings that the user gave to items like it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn import registry
from mmattn.errors import InputError
from mmattn.heads.base import Head
from mmattn.types import Fused, Tokens

__all__ = ["RatingHead"]


class RatingHead(Head):
    """A rating is the user's usual one, moved by the items alike and by the item itself.

        a_ij = exp(g <q z_i, q z_j>)
        base(u) = (k m + sum_i r_ui) / (k + n)              over the n items that u has rated
        rating(u, j) = base(u) + t sum_i a_ij (r_ui - base(u)) / sum_i a_ij + <w, z_j>

    with learned q, g, t, w, k and mean m. As in `RecommendationHead`, nothing is learned about single users
    or items: a new user needs some ratings only, a new item its content only.

    Papers: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", 2001; McCullagh,
    "Regression Models for Ordinal Data", 1980 (the ordinal kind: the rating decides, by learned
    thresholds, how likely each level is).

    Args:
        dim: width D of the fused vectors.
        levels: the ratings that can be given, rising.
        kind: "regression" (squared error) or "ordinal" (likelihood of the level).

    Raises:
        InputError: an unknown kind, or levels that do not rise.

    Example:
        >>> head, fused, inputs = RatingHead.example(dim=8)
        >>> items = head(fused)
        >>> head.predict_ratings(inputs["history"], items[2:], items[:2]).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        dim: int,
        levels: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0),
        kind: Literal["regression", "ordinal"] = "regression",
    ):
        super().__init__()
        if kind not in ("regression", "ordinal"):
            raise InputError(f"rating head: got kind {kind!r}, expected regression or ordinal")
        if len(levels) < 2 or any(low >= high for low, high in pairwise(levels)):
            raise InputError(f"rating head: got levels {tuple(levels)}, expected two or more that rise")
        self.kind = kind
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(levels, dtype=torch.float32), persistent=False)
        self.query = nn.Linear(dim, dim, bias=False)
        self.item_bias = nn.Linear(dim, 1, bias=False)
        nn.init.zeros_(self.item_bias.weight)
        self.log_kernel_scale = nn.Parameter(torch.tensor(0.0))
        self.neighbor_weight = nn.Parameter(torch.tensor(0.5))
        self.global_mean = nn.Parameter(self.levels.mean())
        self.log_shrinkage = nn.Parameter(torch.tensor(math.log(5.0)))
        if kind == "ordinal":  # between two levels at the start, in order whatever they learn
            middle = (self.levels[1:] + self.levels[:-1]) / 2
            self.first_threshold = nn.Parameter(middle[0].clone())
            self.log_threshold_gaps = nn.Parameter(middle.diff().log())
            self.log_threshold_scale = nn.Parameter(torch.tensor(0.0))

    @classmethod
    def task(cls) -> Any:
        """Return the task that trains it."""
        return registry.tasks.load("rating")

    def forward(self, fused: Fused) -> Tensor:
        """The item vectors, [B, D].

        Args:
            fused: B items.
        """
        return fused.pooled

    def predict_ratings(self, history: Tensor, known_vectors: Tensor, candidates: Tensor) -> Tensor:
        """The rating that each user would give each candidate, as the training of its kind sees it.

        Args:
            history: [U, I] ratings of the known items, NaN where there is none.
            known_vectors: [I, D] item vectors.
            candidates: [C, D] item vectors.

        Returns:
            [U, C], on the scale of the levels; for "ordinal" the mean of the levels' probabilities.
        """
        latent_UC = self._latent(history, known_vectors, candidates)
        return latent_UC if self.kind == "regression" else self._probabilities(latent_UC) @ self.levels

    def _latent(self, history: Tensor, known_vectors: Tensor, candidates: Tensor) -> Tensor:
        if history.shape[1] != len(known_vectors):
            raise InputError(
                f"ratings: got {history.shape[1]} items, expected {len(known_vectors)}, the known ones"
            )
        rated_UI = ~history.isnan()
        count_U1, k = rated_UI.sum(1, keepdim=True), self.log_shrinkage.exp()
        base_U1 = (k * self.global_mean + history.nan_to_num().sum(1, keepdim=True)) / (k + count_U1)
        q_ID, q_CD = (F.normalize(self.query(items), dim=1) for items in (known_vectors, candidates))
        near_IC = (self.log_kernel_scale.exp() * (q_ID @ q_CD.T)).exp()
        residual_UI = (history.nan_to_num() - base_U1) * rated_UI
        moved_UC = (residual_UI @ near_IC) / (rated_UI.to(near_IC) @ near_IC).clamp_min(1e-6)
        return base_U1 + self.neighbor_weight * moved_UC + self.item_bias(candidates).T

    def _probabilities(self, latent_UC: Tensor) -> Tensor:
        """[U, C, levels]."""
        edges = torch.cat(
            [self.first_threshold[None], self.first_threshold + self.log_threshold_gaps.exp().cumsum(0)]
        )
        below = torch.sigmoid((edges - latent_UC[..., None]) * self.log_threshold_scale.exp())
        ones = below.new_ones((*below.shape[:-1], 1))
        return torch.cat([below, ones], -1) - torch.cat([ones - 1, below], -1)

    def loss(self, fused: Fused, history: Tensor, ratings: Tensor) -> Tensor:
        """Squared error, or minus the log-likelihood of the level, the mean over the known ratings.

        Args:
            fused: the C candidates, followed by the I known items.
            history: [U, I] as in `predict_ratings`.
            ratings: [U, C] what the users gave the candidates, NaN where they gave nothing.

        Raises:
            InputError: a rating that is no level, for the ordinal kind.
        """
        items = self(fused).float()
        latent_UC = self._latent(history, items[ratings.shape[1] :], items[: ratings.shape[1]])
        known_UC = ~ratings.isnan()
        if self.kind == "regression":
            costs_UC = (latent_UC - ratings.nan_to_num()).square()
        else:
            level_UC = self._level_indices(ratings, known_UC)
            chosen_UC = self._probabilities(latent_UC).gather(-1, level_UC[..., None])[..., 0]
            costs_UC = -chosen_UC.clamp_min(1e-9).log()
        return (costs_UC * known_UC).sum() / known_UC.sum().clamp_min(1)

    def _level_indices(self, ratings: Tensor, is_known: Tensor) -> Tensor:
        filled = torch.where(is_known, ratings.to(self.levels), self.levels[0])
        distance, level = (filled[..., None] - self.levels).abs().min(-1)
        if bool((distance > 1e-4).any()):
            wrong = filled[distance > 1e-4][0].item()
            raise InputError(f"ratings: got {wrong:g}, expected one of {self.levels.tolist()}")
        return level

    @classmethod
    def example(cls, dim: int) -> tuple[RatingHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        nan = float("nan")
        inputs = {
            "history": torch.tensor([[1.0, nan], [5.0, 3.0], [nan, nan]]),
            "ratings": torch.tensor([[nan, 4.0], [2.0, 1.0], [nan, 5.0]]),
        }
        return cls(dim), fused, inputs
