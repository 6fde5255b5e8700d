"""The contract of tasks that train heads on interactions, and of the recommenders that come of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from torch import Tensor

from mmattn.errors import InputError
from mmattn.evaluation.splits.temporal import known_histories, part_start
from mmattn.training.tasks.base import Task

if TYPE_CHECKING:
    from mmattn.array_types import Floats, Floats32, Ints
    from mmattn.data.histories import Histories
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.evaluation.splits.split import Part, Split
    from mmattn.model.model import Model
    from mmattn.training.training_config import TrainingConfig

__all__ = [
    "DEFAULT_STEPS",
    "HistoryWeights",
    "KnownInteractions",
    "RecommenderTask",
    "TrainedRecommender",
    "ValidateFn",
]

DEFAULT_STEPS = 25  # steps of an epoch, if the configuration leaves them open


@dataclass(frozen=True, eq=False)
class KnownInteractions:
    """What may be known when a part of a split is predicted.

    Args:
        split: of all interactions.
        part: the predicted part.
        values: [n] value (rating) of each interaction of the split; None without values.
        rank_new_items: whether items without interactions are to be ranked.
    """

    split: Split
    part: Part
    values: Floats | None = None
    rank_new_items: bool = False

    @cached_property
    def interactions(self) -> sparse.csr_array:
        """[U, I] ones, to learn from."""
        return self.split.known(self.part)

    @cached_property
    def histories(self) -> sparse.csr_array:
        """[U, I] ones, what users are asked with: `interactions` and what is given of users held out."""
        return self.split.histories(self.part)

    @cached_property
    def items(self) -> Ints:
        """Items that were there to be chosen, ascending."""
        return self.split.known_items(self.part)

    @cached_property
    def events(self) -> Histories:
        """Histories in the order of time.

        Raises:
            InputError: the split is not divided by time.
        """
        return known_histories(self.split, self.part)

    @cached_property
    def query_time(self) -> float:
        """Time from which on nothing is known.

        Raises:
            InputError: the split is not divided by time.
        """
        return part_start(self.split, self.part)

    @cached_property
    def ratings(self) -> sparse.csr_array:
        """[U, I] values of the known interactions; stored where known, 0 included.

        Raises:
            InputError: the interactions have no values.
        """
        if self.values is None:
            raise InputError(
                "ratings: got interactions without values, expected a value column in the card's interactions"
            )
        split, parts = self.split, [self.split.train, self.split.given_history]
        rows = np.concatenate([*parts, self.split.validation] if self.part == "test" else parts)
        return sparse.csr_array(
            (self.values[rows], (split.users[rows], split.items[rows])),
            shape=(split.user_count, split.item_count),
        )


@dataclass(frozen=True, eq=False)
class HistoryWeights:
    """Scores as histories times weights, up to a factor a user.

    Args:
        weights: [K, C] what each known item adds to the score of each candidate.
        histories: [U, K] ones where the user met the known item.
        known_items: [K] items that histories may hold.
    """

    weights: Tensor
    histories: sparse.csr_array
    known_items: Ints


class TrainedRecommender(ABC):
    """A trained head over item vectors, with the interface of the baselines."""

    @abstractmethod
    def score(self, users: ArrayLike, items: ArrayLike) -> Floats32:
        """Score items for users.

        Args:
            users: [N] users.
            items: [C] items.

        Returns:
            [N, C], higher is better, comparable within a user.
        """

    def history_weights(self, items: Ints) -> HistoryWeights | None:
        """Return the weights of a recommender whose scores are linear in the history; None for others.

        Args:
            items: [C] items.
        """
        return None

    def inner_product_vectors(self, users: Ints, items: Ints) -> tuple[Floats32, Floats32] | None:
        """Return vectors whose inner products are the scores; None if the recommender has none.

        Args:
            users: [N] users.
            items: [C] items.

        Returns:
            [N, W] and [C, W], up to a factor a user.
        """
        return None


ValidateFn = Callable[[Any], dict[str, float]]


class RecommenderTask(Task):
    """A task that trains a head on interactions, and makes a recommender of it.

    Attributes:
        linear_in_history: scores are histories times weights between items, so that a hybrid can be built
            around the head, and vectors of users can be searched.
        model: what is trained.
        inputs: all items.
        items: items that were there to be chosen.
        head_name: name of the head in the model.
        context: for the attention programs.
    """

    linear_in_history: ClassVar[bool] = False
    model: Model
    inputs: ModelInputs
    items: Ints
    head_name: str
    context: Any

    @classmethod
    @abstractmethod
    def from_interactions(
        cls,
        model: Model,
        inputs: ModelInputs,
        known: KnownInteractions,
        validate_fn: ValidateFn,
        *,
        head: str,
        config: TrainingConfig,
    ) -> RecommenderTask:
        """Create the task of a run of `mmattn fit`.

        Args:
            model: with the head under its name.
            inputs: all items.
            known: interactions that may be learned from.
            validate_fn: validation metrics of a recommender.
            head: name of the head.
            config: how batches are drawn.

        Raises:
            InputError: the interactions lack what the head needs: times, values.
        """

    @abstractmethod
    def set_known(self, known: KnownInteractions) -> None:
        """Let the recommender know more interactions, without learning from them.

        Args:
            known: interactions known from here on.
        """

    @abstractmethod
    def recommender(self, inputs: ModelInputs | None = None) -> TrainedRecommender:
        """Return the recommender with the weights as they are.

        Args:
            inputs: other inputs of the items, for ablations; None takes the items' own.
        """

    def item_weights(self, inputs: ModelInputs | None = None) -> Floats32:
        """Return weights between items, [known, I]: what each known item adds to the score of every item.

        Args:
            inputs: other inputs of the items; None takes the items' own.

        Raises:
            InputError: scores are not linear in the history.
        """
        raise InputError(f"{type(self).__name__}: scores are not linear in the history, so no weights")
