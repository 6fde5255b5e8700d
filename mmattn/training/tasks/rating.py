"""Training task of explicit ratings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmattn.data.modality_dropout import drop_modalities
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.model.model import Model
from mmattn.training.tasks.base import Task

__all__ = ["RatingBatch", "RatingTask", "dense_ratings"]


@dataclass(frozen=True, eq=False)
class RatingBatch:
    """One step of a `RatingTask`.

    Args:
        candidates: [C] items whose ratings are to be found.
        history_items: [I] items that the users rated before.
        history: [U, I] those ratings, NaN where there is none.
        ratings: [U, C] the ratings to be found, NaN where there is none.
    """

    candidates: Tensor
    history_items: Tensor
    history: Tensor
    ratings: Tensor


class RatingTask(Task):
    """Ratings of items that a step pretends not to know, from those of the others.

    Args:
        model: with a rating head under `head`.
        inputs: all items.
        ratings: [users, items], what was given; what is not stored is not known.
        items: the items that were there to be rated; no other takes part.
        validate_fn: validation figures of the model; left out, none.
        head: name of the head.
        steps_per_epoch: steps an epoch.
        users_per_batch: users a step.
        candidate_fraction: share of the items whose ratings are to be found.
        drop_modality: probability of dropping a modality of an item in a step.
        context: for the attention programs.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        ratings: sparse.csr_array,
        items: np.ndarray,
        validate_fn: Callable[[Model], dict[str, float]] | None = None,
        *,
        head: str = "rating",
        steps_per_epoch: int = 25,
        users_per_batch: int = 512,
        candidate_fraction: float = 0.25,
        drop_modality: float = 0.0,
        context: Any = None,
    ):
        super().__init__()
        if not 0 < candidate_fraction < 1:
            raise InputError(
                f"rating task: got targets {candidate_fraction}, expected a share between 0 and 1"
            )
        if not ratings.nnz:
            raise InputError("rating task: got no rating to learn from")
        self.model, self.inputs, self.ratings, self.validate_fn = model, inputs, ratings, validate_fn
        self.items = np.asarray(items, np.int64)
        self.head_name, self.steps_per_epoch, self.users_per_batch, self.candidate_fraction = (
            head,
            steps_per_epoch,
            users_per_batch,
            candidate_fraction,
        )
        self.drop_modality, self.context = drop_modality, context

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[RatingBatch]:
        """`steps` times some users, with the items parted anew."""
        cut = max(1, int(self.candidate_fraction * len(self.items)))
        for _ in range(self.steps_per_epoch):
            users = torch.randperm(self.ratings.shape[0], generator=generator)[: self.users_per_batch].numpy()
            order = self.items[torch.randperm(len(self.items), generator=generator).numpy()]
            rows, candidates, known = self.ratings[np.sort(users)], order[:cut], order[cut:]
            yield RatingBatch(
                torch.from_numpy(candidates),
                torch.from_numpy(known),
                dense_ratings(rows[:, known]),
                dense_ratings(rows[:, candidates]),
            )

    def num_batches(self, epoch: int) -> int:
        return self.steps_per_epoch

    def forward(self, batch: RatingBatch) -> Tensor:
        """The head's loss of one step."""
        device = self.model.device
        items = torch.cat([batch.candidates, batch.history_items])
        parts = drop_modalities(self.model.tokens(self.inputs, items), self.drop_modality)
        return self.model.head(self.head_name).loss(
            self.model.fuse(parts, self.context),
            history=batch.history.to(device),
            ratings=batch.ratings.to(device),
        )

    def validate(self) -> dict[str, float]:
        return {} if self.validate_fn is None else self.validate_fn(self.model)


def dense_ratings(ratings: sparse.csr_array) -> Tensor:
    """[users, items] with NaN where nothing is stored.

    Example:
        >>> dense_ratings(sparse.csr_array([[0.0, 4.0]])).tolist()
        [[nan, 4.0]]
    """
    dense = np.full(ratings.shape, np.nan, np.float32)
    stored = ratings.tocoo()  # `nonzero` would lose a rating of 0
    dense[stored.coords] = stored.data
    return torch.from_numpy(dense)
