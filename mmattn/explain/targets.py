"""What is asked about an item: a number that the model gives it, to be explained by the item's tokens."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.data.dataset import Dataset
from mmattn.errors import InputError
from mmattn.experiments.config import FitConfig
from mmattn.experiments.protocol import make_split
from mmattn.heads.recommendation.recommendation import RecommendationHead
from mmattn.serving.run_encoder import RunEncoder
from mmattn.training.tasks.recommendation import item_vectors
from mmattn.types import Fused, Sample

__all__ = ["ExplanationTarget", "ItemSimilarity", "ItemVector", "UserScore", "index_of", "user_score_target"]


class ExplanationTarget(Protocol):
    """A score of one item, whichever of its tokens are left."""

    @property
    def question(self) -> str:
        """The question, as a sentence for people."""
        ...

    @property
    def name(self) -> str:
        """What the score is called, in a few words."""
        ...

    def score(self, fused: Fused) -> Tensor:
        """[B] scores of B versions of the item, with gradients."""
        ...


@dataclass(eq=False)
class ItemVector:
    """How much of the item's joint vector is left, along itself: 1 for the whole item.

    Args:
        vector: [D], the joint vector of the whole item.
    """

    vector: Tensor

    question = "What makes this item's vector?"
    name = "share of the vector"

    def score(self, fused: Fused) -> Tensor:
        return fused.pooled @ self.vector / self.vector.square().sum().clamp(min=1e-12)


@dataclass(eq=False)
class ItemSimilarity:
    """How alike two items are: the cosine of the vectors that a head gives.

    Args:
        head: gives vectors [B, D].
        other_vector: [D], the other item's vector.
        other_item: the other item.
        other_title: what the other item is called.
    """

    head: Any
    other_vector: Tensor
    other_item: Sample
    other_title: str

    name = "cosine similarity"

    @property
    def question(self) -> str:
        return f"What makes it like “{self.other_title}”?"

    def score(self, fused: Fused) -> Tensor:
        return F.cosine_similarity(self.head(fused), self.other_vector[None], dim=1)


@dataclass(eq=False)
class UserScore:
    """How well the item fits a user: the score of the recommendation head.

    Args:
        head: the recommendation head.
        user_id: the user's id.
        known_vectors: [I, D], vectors of the known items without this one: an item says nothing of itself.
        history: [I] ones where the user met the known item.
        known_items: [I], the known items' numbers in the data set.
        learned_index: number of the item's learned vector, None where the model has none.
        rank: 1 for the best of the candidates, None where the item is not one of them.
        n_candidates: how many there are.
    """

    head: RecommendationHead
    user_id: str
    known_vectors: Tensor
    history: Tensor
    known_items: np.ndarray
    learned_index: int | None = None
    rank: int | None = None
    n_candidates: int = 0

    name = "score for the user"

    @property
    def question(self) -> str:
        return f"What makes it fit user {self.user_id}?"

    def score(self, fused: Fused) -> Tensor:
        return self.head.score(self.history[None], self.weights(fused))[0]

    def weights(self, fused: Fused) -> Tensor:
        """[I, B], what each known item says of each version of the item."""
        count = len(fused)
        ids = (
            None
            if self.learned_index is None
            else torch.full((count,), self.learned_index, device=self.known_vectors.device)
        )
        return self.head.weights(self.known_vectors, self.head(fused, ids))

    @torch.no_grad()
    def contributions(self, fused: Fused, max_items: int = 6) -> list[tuple[int, float]]:
        """(item, part of the score) of the items in the history that say most for or against it."""
        parts_I = self.history * self.weights(fused)[:, 0]
        total = float(parts_I.sum()) or 1.0
        factor = float(self.score(fused)[0]) / total
        order = parts_I.abs().argsort(descending=True)[: min(max_items, int(self.history.sum()))].tolist()
        return [(int(self.known_items[place]), float(parts_I[place]) * factor) for place in order]


@torch.no_grad()
def user_score_target(
    encoder: RunEncoder,
    config: FitConfig,
    dataset: Dataset,
    user: str,
    item: int,
    *,
    seed: int,
    features: str | Path,
    progress: bool = True,
) -> UserScore:
    """The question for a user of the run: histories, known items and candidates as in its test.

    Args:
        encoder: the run's model.
        config: the run's settings.
        dataset: the run's data.
        user: id.
        item: number of the item in the data set.
        seed: which of the run's splits.
        features: folder of the feature store.
        progress: show bars while encoding.

    Raises:
        InputError: the head recommends nothing, no such user, or one without a history.
    """
    head = encoder.model.head(encoder.head)
    if not isinstance(head, RecommendationHead):
        raise InputError(f"explain: head {encoder.head!r} recommends nothing, so no user can be asked about")
    row = index_of(user, dataset.user_ids, "user")
    split = make_split(dataset, config.protocol, seed)
    everything = split.known_items("test")
    known = everything[everything != item]
    history = split.known("test")[[row]][:, known].toarray()[0].astype(np.float32)
    if not history.any():
        raise InputError(f"explain: user {user!r} has no history, so nothing fits or does not fit")
    inputs = encoder.read_inputs(dataset.items, features, progress=progress)
    vectors = item_vectors(
        encoder.model, inputs, encoder.head, None if head.id_embedding is None else everything
    )
    device = vectors.device
    found = UserScore(
        head, user, vectors[torch.from_numpy(known).to(device)], torch.from_numpy(history).to(device), known,
        learned_index=None if head.id_embedding is None else (item if item in everything else -1),
    )  # fmt: skip
    candidates = split.candidates("test")
    candidates = candidates[~np.isin(candidates, split.known("test")[[row]].indices)]
    if item in candidates:
        place = {int(number): index for index, number in enumerate(known)}
        own = torch.tensor([place.get(int(number), -1) for number in candidates], device=device)
        weights = head.weights(found.known_vectors, vectors[torch.from_numpy(candidates).to(device)], own)
        scores = head.score(found.history[None], weights)[0]
        found.rank = int((scores > scores[int(np.flatnonzero(candidates == item)[0])]).sum()) + 1
        found.n_candidates = len(candidates)
    return found


def index_of(name: str, names: Sequence[str], kind: str) -> int:
    """Where a name stands among the known ones.

    Raises:
        InputError: nowhere; the nearest ones are named.
    """
    try:
        return list(names).index(name)
    except ValueError:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or list(names[:3])
        raise InputError(
            f"explain: no {kind} {name!r} among {len(names):,}; the nearest are {', '.join(map(repr, close))}"
        ) from None
