"""Recommendation from histories in time: what comes next, as an inner product of user and item vectors.

An item's vector is made of its content, with a learned vector beside it where that is asked for and
dropped at random, so that a new item needs only its content. A user's vector is the state of a tower
after the history (see `user_towers`), so that a new user needs only a history, or not even that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmattn import registry
from mmattn.errors import InputError, did_you_mean
from mmattn.heads.base import Head
from mmattn.heads.recommendation.next_item_loss import (
    LOSS_NAMES,
    full_softmax,
    sample_negatives,
    sampled_softmax,
)
from mmattn.heads.recommendation.sequence_steps import SequenceSteps, final_states
from mmattn.heads.recommendation.user_towers import TowerKind, build_user_tower
from mmattn.types import Fused, Tokens

__all__ = ["SequenceHead"]


class SequenceHead(Head):
    """Scores items by the inner product with the state after a user's history.

        score(u, j) = <h_u, z_j> / sqrt(W) + sum_f w_f(h_u) p_fj

    where h_u [W] is the tower's state, z_j [W] the item's vector and p_fj log(1 + choices) of the item, faded
    with half-life f (see `trends.Trends`); how much popularity counts, w_f, is predicted from the state. Both
    parts are inner products: `scoring_vectors` joins them, and any index for inner products serves them.

    **A user without a history** is answered by the learned start of all histories: what first choices were
    like, by content. Without `popularity_half_lives` no counts enter that answer.

    Args:
        dim: width D of the fused vectors.
        tower: "sequence", causal attention with a bias by time; "bag", attention in which order says nothing.
        width: W of user and item vectors.
        layers: of the sequential tower.
        heads: of its attention.
        program: of its attention, as text; left out, the tower's own.
        max_length: events of a history that count, the last ones.
        positional_encoding: learned places in the history.
        num_ids: number of items that get a learned vector beside their content; 0 for none.
        id_dropout: share of the items whose learned vector is dropped in a training step.
        use_content: False leaves the learned vectors alone: then items that nobody chose cannot be told
            apart.
        popularity_half_lives: half-lives in days of the popularity that is added, 0 for one that never fades;
            none by default.
        loss: "full" softmax over all known items; "uniform" or "popularity" draw negatives so, corrected.
        num_negatives: how many a step draws.
        horizon: the target after a step is one of the next so many items, drawn evenly; 1 is the next one.
        activity_power: a history of n steps weighs n to the power of 1 - emphasis.
        dropout: on item vectors and in the tower.

    Raises:
        InputError: an argument is not what it may be.

    Example:
        >>> head, fused, inputs = SequenceHead.example(dim=8)
        >>> items = head(fused)
        >>> head.states(inputs["steps"], items).shape, items.shape
        (torch.Size([7, 64]), torch.Size([4, 64]))
    """

    def __init__(
        self,
        dim: int,
        tower: TowerKind = "sequence",
        width: int = 64,
        layers: int = 2,
        heads: int = 2,
        program: str = "",
        max_length: int = 200,
        positional_encoding: bool = False,
        num_ids: int = 0,
        id_dropout: float = 0.5,
        use_content: bool = True,
        popularity_half_lives: tuple[float, ...] | list[float] = (),
        loss: str = "full",
        num_negatives: int = 512,
        horizon: int = 1,
        activity_power: float = 0.5,
        dropout: float = 0.1,
    ):
        super().__init__()
        _check(
            tower=tower,
            loss=loss,
            max_length=max_length,
            horizon=horizon,
            num_ids=num_ids,
            use_content=use_content,
        )
        self.dim, self.width = dim, width
        self.loss_name, self.num_negatives = loss, num_negatives
        self.max_length, self.horizon, self.activity_power = max_length, horizon, activity_power
        self.popularity_half_lives = tuple(float(half) for half in popularity_half_lives)
        self.id_dropout = id_dropout
        self.dropout = nn.Dropout(dropout)
        # No bias: an item without any content keeps no vector, rather than one of its own.
        self.content_projection = nn.Linear(dim, width, bias=False) if use_content else None
        if (
            self.content_projection is not None
        ):  # what a user wants is hardly known at first: popularity speaks alone
            nn.init.normal_(self.content_projection.weight, std=0.1 * dim**-0.5)
        self.id_embedding = nn.Embedding(num_ids, width) if num_ids else None
        if self.id_embedding is not None:
            nn.init.normal_(self.id_embedding.weight, std=0.1 if use_content else 1.0)
        self.tower = build_user_tower(
            tower, width, layers=layers, heads=heads, program=program, max_length=max_length,
            positional_encoding=positional_encoding,
            dropout=dropout,
        )  # fmt: skip
        self.popularity_weights = (
            nn.Linear(width, len(self.popularity_half_lives)) if self.popularity_half_lives else None
        )
        if self.popularity_weights is not None:  # at first, the odds of an item are its popularity
            nn.init.zeros_(self.popularity_weights.weight)
            nn.init.constant_(self.popularity_weights.bias, 1 / len(self.popularity_half_lives))

    @classmethod
    def task(cls) -> Any:
        """Return the task that trains it."""
        return registry.tasks.load("sequence")

    def forward(self, fused: Fused, ids: Tensor | None = None) -> Tensor:
        """The item vectors.

        Args:
            fused: B items.
            ids: [B] int64, the number of each item's learned vector, -1 for items without; None for content
                alone.

        Returns:
            [B, W].
        """
        if self.content_projection is None:
            items_BW = fused.pooled.new_zeros(len(fused.pooled), self.width)
        else:
            items_BW = self.content_projection(self.dropout(fused.pooled))
        if self.id_embedding is not None and ids is not None:
            kept_B = ids >= 0
            if self.training and self.content_projection is not None:
                kept_B = kept_B & (torch.rand(len(ids), device=ids.device) >= self.id_dropout)
            items_BW = items_BW + self.id_embedding(ids.clamp_min(0)) * kept_B[:, None]
        return items_BW

    def states(self, steps: SequenceSteps, items: Tensor, context: Any = None) -> Tensor:
        """Return the user state after each step, [N, W].

        Args:
            steps: steps of B histories.
            items: [C, W] vectors that the steps' items index.
            context: for the attention program of the user tower.
        """
        return self.tower(steps, items, context)

    def scoring_vectors(
        self, states: Tensor, items: Tensor, popularity: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """User and item vectors whose inner product is the score.

        Args:
            states: [N, W].
            items: [C, W].
            popularity: [F, C] log(1 + choices) at the moment of asking, where the head adds any.

        Returns:
            [N, W + F] and [C, W + F].
        """
        users_NW = states / self.width**0.5
        if self.popularity_weights is None or popularity is None:
            return users_NW, items
        return torch.cat([users_NW, self.popularity_weights(states)], 1), torch.cat([items, popularity.T], 1)

    def user_states(self, steps: SequenceSteps, items: Tensor, context: Any = None) -> Tensor:
        """[B, W] the state after each whole history.

        Args:
            steps: steps of B histories.
            items: [C, W] vectors that the steps' items index.
            context: for the attention program of the user tower.
        """
        return final_states(steps, self.states(steps, items, context))

    def loss(
        self,
        fused: Fused,
        steps: SequenceSteps,
        ids: Tensor | None = None,
        popularity: Tensor | None = None,
        counts: Tensor | None = None,
        context: Any = None,
    ) -> Tensor:
        """Cross-entropy of what comes after each step.

        Args:
            fused: the C candidates, which the steps point at.
            steps: histories with their targets.
            ids: as in `forward`.
            popularity: [S, F, C] at each point of the grid, where the head adds any.
            counts: [C] how often each candidate was chosen, where negatives are drawn by that.
            context: for the attention program of the user tower.
        """
        items_CW = self(fused, ids)
        states_NW = self.states(steps, items_CW, context)
        asked_N = (steps.targets >= 0).nonzero()[:, 0]
        target_N, point_N = steps.targets[asked_N], steps.popularity_index[asked_N]
        states_NW, weight_N = states_NW[asked_N], self._weight(steps)[asked_N]
        if self.loss_name == "full":
            logits_NC = self._scores(states_NW, items_CW, popularity, point_N)
            logits_NC = logits_NC.masked_fill(_seen_mask(steps, len(items_CW))[asked_N], -1e4)
            return full_softmax(logits_NC, target_N, weight_N)
        known_C = torch.ones(len(items_CW)) if counts is None else counts
        drawn_S, expected_S = sample_negatives(self.loss_name, known_C.cpu(), self.num_negatives)
        drawn_S, expected_S = drawn_S.to(items_CW.device), expected_S.to(items_CW.device)
        table = None if popularity is None else popularity[:, :, drawn_S]
        wrong_NS = self._scores(states_NW, items_CW[drawn_S], table, point_N)
        right_N = (states_NW * items_CW[target_N]).sum(1) / self.width**0.5
        if self.popularity_weights is not None and popularity is not None:
            right_N = right_N + (self.popularity_weights(states_NW) * popularity[point_N, :, target_N]).sum(1)
        return sampled_softmax(right_N, wrong_NS, expected_S, drawn_S == target_N[:, None], weight_N)

    def _scores(
        self, states: Tensor, items: Tensor, popularity: Tensor | None, popularity_index: Tensor
    ) -> Tensor:
        """[N, C], popularity as it was known at each step's own moment."""
        scores_NC = states @ items.T / self.width**0.5
        if self.popularity_weights is None or popularity is None:
            return scores_NC
        weight_NF = self.popularity_weights(states)
        for kind in range(len(self.popularity_half_lives)):
            scores_NC = scores_NC + weight_NF[:, kind, None] * popularity[:, kind][popularity_index]
        return scores_NC

    def _weight(self, steps: SequenceSteps) -> Tensor:
        return (steps.lengths.float() ** -self.activity_power).repeat_interleave(steps.lengths)

    @classmethod
    def example(cls, dim: int) -> tuple[SequenceHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "text")
        fused = Fused(tokens, torch.randn(4, dim) / dim**0.5, torch.randn(4, 1, dim), tokens.presence)
        time = torch.tensor([torch.nan, 0, 60, torch.nan, torch.nan, 5, 9], dtype=torch.float64)
        steps = SequenceSteps(
            items=torch.tensor([-1, 0, 1, -1, -1, 3, 2]),
            lengths=torch.tensor([3, 1, 3]),
            times=time,
            targets=torch.tensor([0, 1, -1, -1, 3, 2, 0]),
            popularity_index=torch.zeros(7, dtype=torch.int64),
        )
        return cls(dim), fused, {"steps": steps}


def _seen_mask(steps: SequenceSteps, num_candidates: int) -> Tensor:
    """[N, C] True where the candidate was met up to the step, and so is not to be recommended."""
    met_NC = torch.zeros(len(steps.items), num_candidates, dtype=torch.int16, device=steps.items.device)
    here = steps.items >= 0
    met_NC[here.nonzero()[:, 0], steps.items[here]] = 1
    parts = met_NC.split(steps.lengths.tolist())
    return torch.cat([part.cumsum(0, dtype=torch.int16) for part in parts]) > 0


def _check(*, tower: str, loss: str, max_length: int, horizon: int, num_ids: int, use_content: bool) -> None:
    for name, value, allowed in (("user", tower, ("sequence", "bag")), ("loss", loss, LOSS_NAMES)):
        if value not in allowed:
            raise InputError(
                f"sequence head: {name}: got {value!r}, expected one of {list(allowed)}."
                f"{did_you_mean(value, allowed)}"
            )
    if max_length < 1 or horizon < 1:
        raise InputError(
            f"sequence head: got longest {max_length} and horizon {horizon}, expected numbers from 1"
        )
    if not use_content and not num_ids:
        raise InputError(
            "sequence head: got neither content nor ids, expected one of them to make items from"
        )
