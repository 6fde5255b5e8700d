"""Recommenders trained on histories in time: batches of steps, and the recommender that comes of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mmattn.data.modality_dropout import drop_modalities
from mmattn.errors import InputError
from mmattn.heads.recommendation.popularity_over_time import PopularityOverTime
from mmattn.heads.recommendation.sequence_steps import SequenceSteps, history_steps, sample_training_steps
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
    from mmattn.data.histories import Histories
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.heads.recommendation.sequence import SequenceHead
    from mmattn.model.model import Model
    from mmattn.training.training_config import TrainingConfig

__all__ = ["SequenceRecommender", "SequenceTask"]

log = logging.getLogger(__name__)
_USER_BATCH_SIZE = 256  # whose states are computed in one pass


class SequenceTask(RecommenderTask):
    """What comes next, for histories of a random window each.

    The candidates are the items that anybody chose by then: that nobody chose an item yet says nothing about
    it. A history longer than the head's `longest` gives another window of it in each step, and its last
    events at the test.

    Args:
        model: with a sequence head under `head`.
        inputs: all items.
        histories: of all users, known by now.
        validate_fn: validation figures of a `SequenceRecommender`.
        query_time: the moment of asking, in seconds; left out, just after the last event.
        head: name of the head.
        steps_per_epoch: batches an epoch.
        users_per_batch: histories a batch; 0 for all. Or {epochs done: users}, see
            `mmattn.training.batch_size_at`.
        drop_modality: probability of dropping a modality of an item in a step.
        context: for the attention programs of the fusion core.

    Raises:
        InputError: no history holds anything, an item is not among the inputs, or an event lies at or after
            `query_time`.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        histories: Histories,
        validate_fn: ValidateFn,
        *,
        query_time: float | None = None,
        head: str = "sequence",
        steps_per_epoch: int = 25,
        users_per_batch: BatchSizeSchedule = 128,
        drop_modality: float = 0.1,
        context: Any = None,
    ):
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.validate_fn = validate_fn
        self.head_name = head
        self.steps_per_epoch, self.users_per_batch = steps_per_epoch, users_per_batch
        batch_size_at(users_per_batch, epoch=1)  # says now what is wrong with it
        self.drop_modality = drop_modality
        self.context = context
        self.set_test_histories(histories, query_time)

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
    ) -> SequenceTask:
        return cls(
            model, inputs, known.events, validate_fn, query_time=known.query_time, head=head,
            steps_per_epoch=config.steps_per_epoch or DEFAULT_STEPS, users_per_batch=config.users_per_batch,
            drop_modality=config.drop_modality,
        )  # fmt: skip

    def set_known(self, known: KnownInteractions) -> None:
        self.set_test_histories(known.events, known.query_time)

    @property
    def _head(self) -> SequenceHead:
        return self.model.head(self.head_name)

    def set_test_histories(self, histories: Histories, query_time: float | None = None) -> None:
        """Set the known histories; nothing is learned.

        Args:
            histories: of all users.
            query_time: time of asking, in seconds; None for just after the last event.

        Raises:
            InputError: as the class says.
        """
        if not len(histories.items):
            raise InputError("sequence task: got no event to learn from")
        if histories.items.min() < 0 or histories.items.max() >= len(self.inputs):
            raise InputError(
                f"sequence task: got items {histories.items.min()} to {histories.items.max()}, expected 0 to "
                f"{len(self.inputs) - 1}"
            )
        self.histories = histories
        counts_I = np.bincount(histories.items, minlength=len(self.inputs))
        self.items = np.flatnonzero(counts_I)
        self._counts_C = torch.from_numpy(counts_I[self.items])
        self._candidate_index_I = np.full(len(self.inputs), -1)
        self._candidate_index_I[self.items] = np.arange(len(self.items))
        self.trends: PopularityOverTime | None = None
        self._popularity: Tensor | None = None
        if half_lives := self._head.popularity_half_lives:
            self.trends = PopularityOverTime(
                histories.items, histories.time, len(self.inputs), half_lives, query_time
            )
            self._popularity = torch.from_numpy(self.trends.table_SFI[:, :, self.items])
        long = int((histories.lengths > self._head.max_length).sum())
        if long:
            log.info(
                "%d of %d histories are longer than %d events: windows of that length are learned from, and "
                "the last ones count", long, len(histories), self._head.max_length,
            )  # fmt: skip

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[SequenceSteps]:
        """`steps` batches of histories that hold something.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        users = np.flatnonzero(self.histories.lengths)
        size = batch_size_at(self.users_per_batch, epoch) or len(users)
        for _ in range(self.steps_per_epoch):
            order = torch.randperm(len(users), generator=generator)[:size].numpy()
            yield sample_training_steps(
                self.histories,
                users[order],
                self._candidate_index_I,
                max_length=self._head.max_length,
                horizon=self._head.horizon,
                popularity_index_fn=None if self.trends is None else self.trends.grid_index,
                generator=generator,
            )

    def num_batches(self, epoch: int) -> int:
        """`steps`, in every epoch.

        Args:
            epoch: its number, from 1.
        """
        return self.steps_per_epoch

    def forward(self, steps: SequenceSteps) -> Tensor:
        """The head's loss of one batch.

        Args:
            steps: of `batches`.
        """
        device, known = self.model.device, torch.from_numpy(self.items)
        parts = drop_modalities(self.model.tokens(self.inputs, known), self.drop_modality)
        return self._head.loss(
            self.model.fuse(parts, self.context),
            steps=steps.to(device),
            ids=known.to(device),
            popularity=None if self._popularity is None else self._popularity.to(device),
            counts=self._counts_C,
        )

    def validate(self) -> dict[str, float]:
        """What `judge` says of the recommender as it stands."""
        return self.validate_fn(self.recommender())

    def recommender(self, inputs: ModelInputs | None = None) -> SequenceRecommender:
        """Return the recommender with the weights as they are.

        Args:
            inputs: other inputs of the items, for ablations; None takes the items' own.
        """
        vectors = item_vectors(self.model, inputs or self.inputs, self.head_name, self.items, self.context)
        now = None if self.trends is None else torch.from_numpy(self.trends.latest)
        return SequenceRecommender(self._head, vectors, now).fit(self.histories)


class SequenceRecommender(TrainedRecommender):
    """A trained sequence head over item vectors, with the interface of the baselines.

    Args:
        head: the sequence head.
        vectors: [I, W] of all items.
        popularity: [F, I] log(1 + choices) at the moment of asking, where the head adds any.
    """

    def __init__(self, head: SequenceHead, vectors: Tensor, popularity: Tensor | None = None):
        self.head = head.eval()
        self.vectors = vectors
        self.popularity = None if popularity is None else popularity.to(vectors.device)
        self.user_vectors: NDArray[np.float32]  # [U, W + F]
        self.item_vectors: NDArray[np.float32]  # [I, W + F]

    @torch.inference_mode()
    def fit(self, histories: Histories) -> SequenceRecommender:
        """Set the histories; nothing is learned, so that new users are only new histories.

        Of more than the head's `longest` events the last ones count.

        Args:
            histories: of U users.
        """
        recent, states = histories.last_events(self.head.max_length), []
        for users in np.array_split(np.arange(len(recent)), -(-len(recent) // _USER_BATCH_SIZE) or 1):
            some = recent.slice_events(users, np.zeros(len(users), np.int64), recent.lengths[users])
            steps = history_steps(some).to(self.vectors.device)
            states.append(self.head.user_states(steps, self.vectors))
        both = self.head.scoring_vectors(torch.cat(states), self.vectors, self.popularity)
        self.user_vectors, self.item_vectors = (vectors.float().cpu().numpy() for vectors in both)
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """[len(users), len(items)] float32, the inner products, higher is better.

        Args:
            users: [N] users.
            items: [C] items.
        """
        return self.user_vectors[np.asarray(users, np.int64)] @ self.item_vectors[np.asarray(items)].T

    def inner_product_vectors(
        self, users: NDArray[np.int64], items: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return self.user_vectors[users], self.item_vectors[items]
