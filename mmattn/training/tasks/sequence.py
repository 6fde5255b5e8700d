"""Recommenders trained on histories in time: batches of steps, and the recommender that comes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mmattn.data.histories import Histories
from mmattn.data.modality_dropout import drop_modalities
from mmattn.encoders.model_inputs import Inputs
from mmattn.errors import InputError
from mmattn.heads.recommendation.sequence import SequenceHead
from mmattn.heads.recommendation.sequence_steps import Steps, next_steps, whole_histories
from mmattn.model.model import Model
from mmattn.recommenders.popularity_over_time import Trends
from mmattn.training.batch_size import BatchSize, batch_size
from mmattn.training.tasks.base import Task
from mmattn.training.tasks.recommendation import item_vectors

__all__ = ["SequenceRecommender", "SequenceTask"]

log = logging.getLogger(__name__)
_USERS_AT_ONCE = 256  # whose states are computed in one pass


class SequenceTask(Task):
    """What comes next, for histories of a random window each.

    The candidates are the items that anybody chose by then: that nobody chose an item yet says nothing about
    it. A history longer than the head's `longest` gives another window of it in each step, and its last
    events at the test.

    Args:
        model: with a sequence head under `head`.
        inputs: all items.
        histories: of all users, known by now.
        judge: validation figures of a `SequenceRecommender`.
        now: the moment of asking, in seconds; left out, just after the last event.
        head: name of the head.
        steps: batches an epoch.
        users: histories a batch; 0 for all. Or {epochs done: users}, see `mmattn.training.batch_size`.
        drop_modality: probability of dropping a modality of an item in a step.
        context: for the attention programs of the fusion core.

    Raises:
        InputError: no history holds anything, an item is not among the inputs, or an event lies at or after
            `now`.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        histories: Histories,
        judge: Callable[[SequenceRecommender], dict[str, float]],
        *,
        now: float | None = None,
        head: str = "sequence",
        steps: int = 25,
        users: BatchSize = 128,
        drop_modality: float = 0.1,
        context: Any = None,
    ):
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.judge = judge
        self.head_name = head
        self.steps, self.users = steps, users
        batch_size(users, epoch=1)  # says now what is wrong with it
        self.drop_modality = drop_modality
        self.context = context
        self.reveal(histories, now)

    @property
    def _head(self) -> SequenceHead:
        return self.model.head(self.head_name)

    def reveal(self, histories: Histories, now: float | None = None) -> None:
        """Let these be the known histories from here on; nothing is learned by that.

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
        self._place_I = np.full(len(self.inputs), -1)
        self._place_I[self.items] = np.arange(len(self.items))
        self.trends: Trends | None = None
        self._popularity: Tensor | None = None
        if half_lives := self._head.half_lives:
            self.trends = Trends(histories.items, histories.time, len(self.inputs), half_lives, now)
            self._popularity = torch.from_numpy(self.trends.table_SFI[:, :, self.items])
        long = int((histories.lengths > self._head.longest).sum())
        if long:
            log.info(
                "%d of %d histories are longer than %d events: windows of that length are learned from, and "
                "the last ones count", long, len(histories), self._head.longest,
            )  # fmt: skip

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Steps]:
        """`steps` batches of histories that hold something."""
        there = np.flatnonzero(self.histories.lengths)
        size = batch_size(self.users, epoch) or len(there)
        for _ in range(self.steps):
            order = torch.randperm(len(there), generator=generator)[:size].numpy()
            yield next_steps(
                self.histories,
                there[order],
                self._place_I,
                longest=self._head.longest,
                horizon=self._head.horizon,
                point=None if self.trends is None else self.trends.point,
                generator=generator,
            )

    def batch_count(self, epoch: int) -> int:
        """`steps`, in every epoch."""
        return self.steps

    def forward(self, steps: Steps) -> Tensor:
        """The head's loss of one batch."""
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
        return self.judge(self.recommender())

    def recommender(self, inputs: Inputs | None = None) -> SequenceRecommender:
        """The recommender as it stands; other `inputs` stand in for the items' own (knockouts)."""
        vectors = item_vectors(self.model, inputs or self.inputs, self.head_name, self.items, self.context)
        now = None if self.trends is None else torch.from_numpy(self.trends.now)
        return SequenceRecommender(self._head, vectors, now).fit(self.histories)


class SequenceRecommender:
    """A trained head over item vectors, in the form in which rivals are measured too.

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
        """Take these histories; nothing is learned, so new users are only new histories.

        Of more than the head's `longest` events the last ones count.
        """
        recent, states = histories.last(self.head.longest), []
        for users in np.array_split(np.arange(len(recent)), -(-len(recent) // _USERS_AT_ONCE) or 1):
            some = recent.part(users, np.zeros(len(users), np.int64), recent.lengths[users])
            steps = whole_histories(some).to(self.vectors.device)
            states.append(self.head.users(steps, self.vectors))
        both = self.head.vectors(torch.cat(states), self.vectors, self.popularity)
        self.user_vectors, self.item_vectors = (one.float().cpu().numpy() for one in both)
        return self

    def score(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.float32]:
        """[len(users), len(items)] float32, the inner products, higher is better."""
        return self.user_vectors[np.asarray(users, np.int64)] @ self.item_vectors[np.asarray(items)].T
