"""Training task of explicit ratings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from mmattn.data.modality_dropout import drop_modalities
from mmattn.errors import InputError
from mmattn.training.batch_size import BatchSizeSchedule, batch_size_at
from mmattn.training.tasks.recommendation import item_vectors
from mmattn.training.tasks.recommender import (
    DEFAULT_STEPS,
    KnownInteractions,
    RecommenderTask,
    TrainedRecommender,
    ValidateFn,
)

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.heads.recommendation.rating import RatingHead
    from mmattn.model.model import Model
    from mmattn.training.training_config import TrainingConfig

__all__ = ["RatingBatch", "RatingRecommender", "RatingTask", "dense_ratings"]


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


class RatingTask(RecommenderTask):
    """Ratings of items that a step pretends not to know, from those of the others.

    Args:
        model: with a rating head under `head`.
        inputs: all items.
        ratings: [users, items], what was given; what is not stored is not known.
        items: the items that were there to be rated; no other takes part.
        validate_fn: validation metrics of a `RatingRecommender`; left out, none.
        head: name of the head.
        steps_per_epoch: steps an epoch.
        users_per_batch: users a step; 0 for all. Or {epochs done: users}.
        candidate_fraction: share of the items whose ratings are to be found.
        drop_modality: probability of dropping a modality of an item in a step.
        context: for the attention programs.

    Raises:
        InputError: a fraction out of range, or no rating.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        ratings: sparse.csr_array,
        items: np.ndarray,
        validate_fn: ValidateFn | None = None,
        *,
        head: str = "rating",
        steps_per_epoch: int = 25,
        users_per_batch: BatchSizeSchedule = 512,
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
        """`steps` times some users, with the items parted anew.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        cut = max(1, int(self.candidate_fraction * len(self.items)))
        size = batch_size_at(self.users_per_batch, epoch) or self.ratings.shape[0]
        for _ in range(self.steps_per_epoch):
            users = torch.randperm(self.ratings.shape[0], generator=generator)[:size].numpy()
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
        """The head's loss of one step.

        Args:
            batch: of `batches`.
        """
        device = self.model.device
        items = torch.cat([batch.candidates, batch.history_items])
        parts = drop_modalities(self.model.tokens(self.inputs, items), self.drop_modality)
        return self.model.head(self.head_name).loss(
            self.model.fuse(parts, self.context),
            history=batch.history.to(device),
            ratings=batch.ratings.to(device),
        )

    def validate(self) -> dict[str, float]:
        return {} if self.validate_fn is None else self.validate_fn(self.recommender())

    @classmethod
    def from_interactions(
        cls,
        model: Model,
        inputs: ModelInputs,
        known: KnownInteractions,
        validate_fn: ValidateFn,
        *,
        head: str,
        config: TrainingConfig,
    ) -> RatingTask:
        return cls(
            model, inputs, known.ratings, known.items, validate_fn, head=head,
            steps_per_epoch=config.steps_per_epoch or DEFAULT_STEPS, users_per_batch=config.users_per_batch,
            candidate_fraction=config.candidate_fraction, drop_modality=config.drop_modality,
        )  # fmt: skip

    def set_known(self, known: KnownInteractions) -> None:
        self.ratings, self.items = known.ratings, known.items

    def recommender(self, inputs: ModelInputs | None = None) -> RatingRecommender:
        vectors = item_vectors(self.model, inputs or self.inputs, self.head_name, None, self.context)
        return RatingRecommender(self.model.head(self.head_name), vectors, self.items, self.ratings)


class RatingRecommender(TrainedRecommender):
    """A trained rating head over item vectors: an item's score is the rating that it is predicted to get.

    Args:
        head: the rating head.
        vectors: [I, D] of all items.
        known_items: items that histories may hold.
        ratings: [U, I] known ratings.
    """

    def __init__(self, head: RatingHead, vectors: Tensor, known_items: np.ndarray, ratings: sparse.csr_array):
        self.head, self.vectors = head.eval(), vectors
        self.known_items = np.asarray(known_items, np.int64)
        self.ratings = ratings[:, self.known_items]

    @torch.inference_mode()
    def score(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        history = dense_ratings(self.ratings[np.asarray(users, np.int64)]).to(self.vectors.device)
        known = self.vectors[torch.from_numpy(self.known_items)]
        candidates = self.vectors[torch.from_numpy(np.asarray(items, np.int64))]
        return self.head.predict_ratings(history, known, candidates).float().cpu().numpy()


def dense_ratings(ratings: sparse.csr_array) -> Tensor:
    """[users, items] with NaN where nothing is stored.

    Args:
        ratings: [U, I], stored where known.

    Example:
        >>> dense_ratings(sparse.csr_array([[0.0, 4.0]])).tolist()
        [[nan, 4.0]]
    """
    dense = np.full(ratings.shape, np.nan, np.float32)
    stored = ratings.tocoo()  # `nonzero` would lose a rating of 0
    dense[stored.coords] = stored.data
    return torch.from_numpy(dense)
