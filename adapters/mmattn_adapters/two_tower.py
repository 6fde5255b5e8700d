"""The item tower with a user tower beside it: the recommender that the adapters train in other frameworks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.model.item_tower import ItemTower

__all__ = ["TwoTower"]


class TwoTower(nn.Module):
    """Users are the items they met; an item is its content, and what was learned about it beside.

    The item tower's vector has two halves: what the item says of a user who met it, and what it answers to.

        user = dropout(e^t * sum of what the history's items say / |history|^b) + everybody
        score(user, item) = <user, what the item answers to>

    with learned t, b and `user_bias`, which is all that a user without a history is given. Nothing is
    learned about single users, so that a new one needs only a history.

    Papers: Kabbur et al., "FISM: Factored Item Similarity Models", 2013 (the sum and the exponent b);
    Liang et al., "Variational Autoencoders for Collaborative Filtering", 2018 (hidden interactions are
    found again among all items, by a softmax).

    Args:
        tower: the item tower; its `dim` is even.
        dropout: probability of dropping a component of a user vector in training.

    Raises:
        InputError: a tower of an odd width.

    Example:
        >>> from mmattn.model.build import build_item_tower
        >>> from mmattn.encoders.text.tiny_text import TinyText
        >>> items = ModelInputs(contents={"text": ["Heat (1995)", None, "Up (2009)"]})
        >>> model = TwoTower(build_item_tower({"text": TinyText(dim=16)}, dim=8, num_ids=3))
        >>> history = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> model.score(model.tower.vectors(items), history).shape
        torch.Size([2, 3])
    """

    def __init__(self, tower: ItemTower, dropout: float = 0.5):
        super().__init__()
        if tower.dim % 2:
            raise InputError(f"two towers: got item vectors of width {tower.dim}, expected an even number")
        self.tower = tower
        self.dropout = nn.Dropout(dropout)
        self.user_bias = nn.Parameter(torch.full((tower.dim // 2,), 0.05))
        self.log_scale = nn.Parameter(torch.tensor(1.5))
        self.length_exponent = nn.Parameter(torch.tensor(0.5))
        if (
            tower.id_embedding is not None
        ):  # what is learned of single items comes first, content joins as it is trained
            nn.init.normal_(tower.id_embedding.weight, std=0.3 * (tower.dim // 2) ** -0.5)
            if isinstance(tower.output_projection, nn.Linear):
                nn.init.normal_(tower.output_projection.weight, std=0.06 * tower.core.dim**-0.5)

    def user_vectors(self, vectors: Tensor, history: Tensor) -> Tensor:
        """User vectors [U, D / 2] from item vectors [I, D] and histories [U, I] (ones where met).

        Args:
            vectors: [I, D] item vectors.
            history: [U, I] ones where the user met the item.
        """
        said_UD = history @ vectors.chunk(2, dim=1)[0]
        length_U1 = history.sum(1, keepdim=True).clamp_min(1)
        return self.dropout(self.log_scale.exp() * said_UD / length_U1**self.length_exponent) + self.user_bias

    def score_vectors(self, vectors: Tensor) -> Tensor:
        """What users are multiplied by: [I, D / 2] from item vectors [I, D].

        Args:
            vectors: [I, D] item vectors.
        """
        return vectors.chunk(2, dim=1)[1]

    def score(self, vectors: Tensor, history: Tensor) -> Tensor:
        """[U, I], how much each user may like each item, from [I, D] and [U, I].

        Args:
            vectors: [I, D] item vectors.
            history: [U, I] ones where the user met the item.
        """
        return self.user_vectors(vectors, history) @ self.score_vectors(vectors).T

    def loss(self, items: ModelInputs, history: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
        """Softmax cross-entropy over the catalogue; every positive counts by its user's -1/2 power.

        Args:
            items: the catalogue of I items.
            history: [U, I] ones where the user met the item and is not asked about it.
            positives: [U, I] ones where the item is to be found.
            candidates: [I] True for the items that may be ranked in training.
        """
        vectors = self.tower(items, torch.arange(len(items)))
        score_UI = self.score(vectors, history).masked_fill((history > 0) | ~candidates, -1e4)
        count_U = positives.sum(1)
        surprise_U = -(score_UI.log_softmax(1) * positives).sum(1)
        weight_U = count_U.clamp_min(1) ** -0.5
        return (surprise_U * weight_U).sum() / (count_U * weight_U).sum().clamp_min(1e-9)
