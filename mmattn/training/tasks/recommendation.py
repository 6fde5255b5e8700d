"""Training task of the content recommender: episodes of users with a part of their history hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from mmattn.data.modality_dropout import drop_modalities
from mmattn.errors import InputError
from mmattn.heads.recommendation.history_completion import cooccurrence_counts
from mmattn.training.batch_size import BatchSizeSchedule, batch_size_at
from mmattn.training.tasks.recommender import (
    DEFAULT_STEPS,
    HistoryWeights,
    KnownInteractions,
    RecommenderTask,
    TrainedRecommender,
    ValidateFn,
)

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.heads.recommendation.recommendation import RecommendationHead
    from mmattn.model.model import Model
    from mmattn.training.training_config import TrainingConfig

__all__ = ["Episode", "RecommendationTask", "Recommender", "item_vectors"]


@dataclass(frozen=True, eq=False)
class Episode:
    """One training step of a recommender.

    Args:
        candidates: [C] items to rank.
        known_items: [I] items that histories may hold.
        history: [U, I] ones where the user met the known item.
        positives: [U, C] ones where the user chose the candidate.
        seen: [U, C] True where the candidate is in the user's own history, and not to be ranked.
        cooccurrence: [I, I] numbers of users who chose both known items, where histories are completed. It
            holds nothing of the candidates, which are not known yet.
    """

    candidates: Tensor
    known_items: Tensor
    history: Tensor
    positives: Tensor
    seen: Tensor | None = None
    cooccurrence: Tensor | None = None


class RecommendationTask(RecommenderTask):
    """Episodes that mimic the test.

    For cold items, a step pretends not to know a random share of the items: their tokens are all
    there is of them, and they are ranked among each other for users whose histories hold other items
    only. For warm items, a step hides a share of each user's own interactions instead.

    Args:
        model: with a recommendation head under `head`.
        inputs: all items.
        interactions: [users, items], to learn from.
        items: the items that were there to be chosen; no other takes part.
        validate_fn: validation figures of a `Recommender`.
        head: name of the head.
        hide: "items" for cold items, "pairs" for warm ones.
        steps_per_epoch: steps an epoch.
        users_per_batch: users a step; 0 for all. Or {epochs done: users}, see
            `mmattn.training.batch_size_at`.
        candidate_fraction: share of the items that a step ranks.
        history_fraction: share of the items that a step's histories may hold ("items"), or of each user's
            interactions that are not hidden ("pairs").
        drop_modality: probability of dropping a modality of an item in a step.
        use_item_embeddings: give each item its learned vector, where the head has them.
        context: for the attention programs.

    Raises:
        InputError: fractions out of range, no interaction, or completed histories for warm items.
    """

    linear_in_history = True

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        interactions: sparse.csr_array,
        items: np.ndarray,
        validate_fn: ValidateFn,
        *,
        head: str = "recommendation",
        hide: Literal["items", "pairs"] = "items",
        steps_per_epoch: int = 25,
        users_per_batch: BatchSizeSchedule = 2048,
        candidate_fraction: float = 0.25,
        history_fraction: float = 0.6,
        drop_modality: float = 0.1,
        use_item_embeddings: bool = False,
        context: Any = None,
    ):
        super().__init__()
        self.histories = interactions  # what users are asked with
        if (
            not 0 < candidate_fraction <= 1
            or not 0 < history_fraction <= 1
            or (hide == "items" and candidate_fraction + history_fraction > 1)
        ):
            raise InputError(
                f"recommendation task: got targets {candidate_fraction} and history {history_fraction}, "
                f"expected shares of the "
                "items that together make at most 1"
            )
        self.model = model
        self.inputs = inputs
        self.interactions = interactions
        self.items = np.asarray(items, np.int64)
        self.validate_fn = validate_fn
        self.head_name = head
        self.hide = hide
        self.steps_per_epoch, self.users_per_batch = steps_per_epoch, users_per_batch
        batch_size_at(users_per_batch, epoch=1)  # says now what is wrong with it
        self.candidate_fraction, self.history_fraction = candidate_fraction, history_fraction
        self.drop_modality = drop_modality
        self.use_item_embeddings = use_item_embeddings
        self.context = context
        if not interactions.nnz:
            raise InputError("recommendation task: got no interaction to learn from")
        if self._completes_histories and hide == "pairs":
            raise InputError(
                "recommendation task: got a head with completion for warm items, expected one without: the "
                "completion would see the pairs that a step hides"
            )

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
    ) -> RecommendationTask:
        task = cls(
            model, inputs, known.interactions, known.items, validate_fn, head=head,
            hide="items" if known.rank_new_items else "pairs",
            use_item_embeddings=model.head(head).id_embedding is not None,
            steps_per_epoch=config.steps_per_epoch or DEFAULT_STEPS, users_per_batch=config.users_per_batch,
            candidate_fraction=config.candidate_fraction, history_fraction=config.history_fraction,
            drop_modality=config.drop_modality,
        )  # fmt: skip
        task.histories = known.histories
        return task

    def set_known(self, known: KnownInteractions) -> None:
        self.interactions, self.items, self.histories = known.interactions, known.items, known.histories

    def item_weights(self, inputs: ModelInputs | None = None) -> np.ndarray:
        return self.recommender(inputs).weights(np.arange(len(self.inputs))).cpu().numpy()

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Episode]:
        """`steps` episodes.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        draw = self._cold_item_episode if self.hide == "items" else self._warm_item_episode
        size = batch_size_at(self.users_per_batch, epoch) or self.interactions.shape[0]
        for _ in range(self.steps_per_epoch):
            users = torch.randperm(self.interactions.shape[0], generator=generator)[:size].numpy()
            order = torch.randperm(len(self.items), generator=generator).numpy()
            yield draw(self.interactions[np.sort(users)], self.items[order], generator)

    def num_batches(self, epoch: int) -> int:
        """`steps`, in every epoch.

        Args:
            epoch: its number, from 1.
        """
        return self.steps_per_epoch

    def _cold_item_episode(
        self, rows: sparse.csr_array, items: np.ndarray, generator: torch.Generator
    ) -> Episode:
        cut = max(1, int(self.candidate_fraction * len(items)))
        candidates, known = items[:cut], items[cut : cut + max(1, int(self.history_fraction * len(items)))]
        return Episode(
            candidates=torch.from_numpy(candidates),
            known_items=torch.from_numpy(known),
            history=_dense(rows[:, known]),
            positives=_dense(rows[:, candidates]),
            cooccurrence=cooccurrence_counts(self.interactions[:, known])
            if self._completes_histories
            else None,
        )

    def _warm_item_episode(
        self, rows: sparse.csr_array, items: np.ndarray, generator: torch.Generator
    ) -> Episode:
        chosen = np.sort(items[: max(2, int(self.candidate_fraction * len(items)))])
        met = _dense(rows[:, chosen])
        kept = met * (torch.rand(met.shape, generator=generator) < self.history_fraction)
        index = torch.from_numpy(chosen)
        return Episode(candidates=index, known_items=index, history=kept, positives=met - kept, seen=kept > 0)

    def forward(self, episode: Episode) -> Tensor:
        """The head's loss of one episode.

        Args:
            episode: of `batches`.
        """
        together = episode.seen is not None  # candidates and known items are the same ones
        device = self.model.device
        items = episode.known_items if together else torch.cat([episode.candidates, episode.known_items])
        parts = drop_modalities(self.model.tokens(self.inputs, items), self.drop_modality)
        fused = self.model.fuse(parts, self.context)
        return self.model.head(self.head_name).loss(
            fused,
            history=episode.history.to(device),
            positives=episode.positives.to(device),
            seen=None if episode.seen is None else episode.seen.to(device),
            ids=items.to(device) if self.use_item_embeddings else None,
            cooccurrence=None if episode.cooccurrence is None else episode.cooccurrence.to(device),
        )

    @property
    def _completes_histories(self) -> bool:
        return self.model.head(self.head_name).completion_dropout is not None

    def validate(self) -> dict[str, float]:
        """What `judge` says of the recommender as it stands."""
        return self.validate_fn(self.recommender())

    def recommender(self, inputs: ModelInputs | None = None) -> Recommender:
        """Return the recommender with the weights as they are.

        Args:
            inputs: other inputs of the items, for ablations; None takes the items' own.
        """
        head = self.model.head(self.head_name)
        known = self.items if self.use_item_embeddings else None
        vectors = item_vectors(self.model, inputs or self.inputs, self.head_name, known, self.context)
        together = (
            cooccurrence_counts(self.interactions[:, self.items]) if self._completes_histories else None
        )
        return Recommender(head, vectors, self.items, together).fit(self.histories)


class Recommender(TrainedRecommender):
    """A trained recommendation head over item vectors, with the interface of the baselines.

    Args:
        head: the recommendation head.
        vectors: [I, D] of all items.
        known_items: the items that histories may hold.
        cooccurrence: [known, known] as `cooccurrence_counts` counts them, where the head completes histories.

    Raises:
        InputError: the head completes histories, and nothing says by what.
    """

    def __init__(
        self,
        head: RecommendationHead,
        vectors: Tensor,
        known_items: np.ndarray,
        cooccurrence: Tensor | None = None,
    ):
        if head.completion_dropout is not None and cooccurrence is None:
            raise InputError(
                "recommender: got no co-occurrence counts, expected those of training: the head completes "
                "histories (see mmattn.heads.recommendation.history_completion.co_occurrence)"
            )
        self.head = head.eval()
        self.vectors = vectors
        self.known_items = np.asarray(known_items, np.int64)
        self.cooccurrence = cooccurrence
        self._cached_weights: tuple[np.ndarray, Tensor] | None = None  # of the candidates asked for last

    def fit(self, interactions: sparse.csr_array) -> Recommender:
        """Set the histories; nothing is learned, so that new users are only new rows.

        Args:
            interactions: [U, I].
        """
        self.histories = interactions[:, self.known_items]
        return self

    @torch.inference_mode()
    def score(self, users: Any, items: Any) -> np.ndarray:
        """[len(users), len(items)] float32, higher is better.

        Args:
            users: [N] users.
            items: [C] items.
        """
        history = _dense(self.histories[np.asarray(users, np.int64)]).to(self.vectors.device)
        return self.head.score(history, self.weights(np.asarray(items, np.int64))).float().cpu().numpy()

    def history_weights(self, items: np.ndarray) -> HistoryWeights:
        return HistoryWeights(self.weights(items), self.histories, self.known_items)

    @torch.inference_mode()
    def weights(self, items: np.ndarray) -> Tensor:
        """Return what each known item adds to the score of each of these, [known, C].

        Args:
            items: [C] items.
        """
        if self._cached_weights is None or not np.array_equal(self._cached_weights[0], items):
            row_of = np.full(len(self.vectors), -1)
            row_of[self.known_items] = np.arange(len(self.known_items))
            known = self.vectors[torch.from_numpy(self.known_items)]
            known_rows = torch.from_numpy(row_of[items]).to(known.device)
            result = self.head.weights(
                known, self.vectors[torch.from_numpy(items)], known_rows, self.cooccurrence
            )
            self._cached_weights = (items.copy(), result)
        return self._cached_weights[1]


@torch.no_grad()
def item_vectors(
    model: Model,
    inputs: ModelInputs,
    head: str,
    known_items: np.ndarray | None = None,
    context: Any = None,
    batch_size: int = 1024,
) -> Tensor:
    """[I, D] vectors of all items, a block at a time.

    Args:
        model: in evaluation mode while it runs.
        inputs: I items.
        head: name of the recommendation head.
        known_items: items whose learned vectors are to be used; None for content alone.
        context: for the attention programs.
        batch_size: items at a time.
    """
    was_training = model.training
    model.eval()
    device = model.device
    ids = torch.full((len(inputs),), -1)
    if known_items is not None:
        ids[torch.from_numpy(known_items)] = torch.from_numpy(known_items)
    vectors = []
    for chosen in torch.arange(len(inputs)).split(batch_size):
        fused = model.fuse(model.tokens(inputs, chosen), context)
        given = () if known_items is None else (ids[chosen].to(device),)
        vectors.append(model.head(head)(fused, *given))
    model.train(was_training)
    return torch.cat(vectors)


def _dense(matrix: sparse.csr_array) -> Tensor:
    return torch.from_numpy(matrix.toarray().astype(np.float32, copy=False))
