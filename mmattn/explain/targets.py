"""Explanation targets: scores of an item that are attributed to its tokens."""

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
from mmattn.experiments.recommendation.protocol import make_split
from mmattn.heads.recommendation.recommendation import RecommendationHead
from mmattn.serving.run_encoder import RunEncoder
from mmattn.training.tasks.recommendation import item_vectors
from mmattn.types import Fused, Sample

__all__ = ["ExplanationTarget", "ItemSimilarity", "ItemVector", "UserScore", "index_of", "user_score_target"]


class ExplanationTarget(Protocol):
    """A score of one item, defined for any subset of its tokens."""

    @property
    def question(self) -> str:
        """The question that the explanation answers, as a sentence."""
        ...

    @property
    def name(self) -> str:
        """Short name of the score."""
        ...

    def score(self, fused: Fused) -> Tensor:
        """Compute differentiable scores.

        Args:
            fused: B versions of the item.

        Returns:
            [B] scores.
        """
        ...


@dataclass(eq=False)
class ItemVector:
    """Projection of a version's joint vector onto that of the complete item: 1 for the complete item.

    Args:
        vector: [D] joint vector of the complete item.
    """

    vector: Tensor

    question = "What makes this item's vector?"
    name = "projection on the vector"

    def score(self, fused: Fused) -> Tensor:
        return fused.pooled @ self.vector / self.vector.square().sum().clamp(min=1e-12)


@dataclass(eq=False)
class ItemSimilarity:
    """Cosine similarity of two items' vectors, as output by a head.

    Args:
        head: maps fused samples to vectors [B, D].
        other_vector: [D], vector of the other item.
        other_item: the other item.
        other_title: title of the other item.
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
    """Score of the item for a user by the recommendation head.

    Args:
        head: recommendation head.
        user_id: id of the user.
        known_vectors: [I, D] vectors of the known items, without this one.
        history: [I] 1 for the known items in the user's history.
        known_items: [I] indices of the known items in the dataset.
        learned_index: index of the item's learned embedding; None without one.
        rank: rank among the candidates from 1; None if the item is no candidate.
        n_candidates: number of candidates.
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
        """Compute the weight of each known item for each version of the item.

        Args:
            fused: B versions of the item.

        Returns:
            [I, B] weights.
        """
        count = len(fused)
        ids = (
            None
            if self.learned_index is None
            else torch.full((count,), self.learned_index, device=self.known_vectors.device)
        )
        return self.head.weights(self.known_vectors, self.head(fused, ids))

    @torch.no_grad()
    def contributions(self, fused: Fused, max_items: int = 6) -> list[tuple[int, float]]:
        """Return the history items with the largest contributions to the score.

        Args:
            fused: the complete item.
            max_items: maximum number of items.

        Returns:
            (item index, contribution), largest absolute contribution first.
        """
        parts_I = self.history * self.weights(fused)[:, 0]
        total = float(parts_I.sum()) or 1.0
        factor = float(self.score(fused)[0]) / total
        order = parts_I.abs().argsort(descending=True)[: min(max_items, int(self.history.sum()))].tolist()
        return [(int(self.known_items[index]), float(parts_I[index]) * factor) for index in order]


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
    """Create the target for a user of a run, with the histories and candidates of its test part.

    Args:
        encoder: model of the run.
        config: settings of the run.
        dataset: data of the run.
        user: id of the user.
        item: index of the item in the dataset.
        seed: seed of the split.
        features: folder of the feature store.
        progress: show progress bars while encoding.

    Raises:
        InputError: no recommendation head, an unknown user, or one without a history.
    """
    head = encoder.model.head(encoder.head)
    if not isinstance(head, RecommendationHead):
        raise InputError(f"explain: head {encoder.head!r} recommends nothing, so no user can be asked about")
    row = index_of(user, dataset.user_ids, "user")
    split = make_split(dataset, config.protocol, seed)
    all_known = split.known_items("test")
    known = all_known[all_known != item]
    history = split.known("test")[[row]][:, known].toarray()[0].astype(np.float32)
    if not history.any():
        raise InputError(f"explain: user {user!r} has no history, so nothing fits or does not fit")
    inputs = encoder.read_inputs(dataset.items, features, progress=progress)
    vectors = item_vectors(
        encoder.model, inputs, encoder.head, None if head.id_embedding is None else all_known
    )
    device = vectors.device
    score = UserScore(
        head, user, vectors[torch.from_numpy(known).to(device)], torch.from_numpy(history).to(device), known,
        learned_index=None if head.id_embedding is None else (item if item in all_known else -1),
    )  # fmt: skip
    candidates = split.candidates("test")
    candidates = candidates[~np.isin(candidates, split.known("test")[[row]].indices)]
    if item in candidates:
        known_index = {int(number): index for index, number in enumerate(known)}
        known_rows = torch.tensor([known_index.get(int(number), -1) for number in candidates], device=device)
        weights = head.weights(
            score.known_vectors, vectors[torch.from_numpy(candidates).to(device)], known_rows
        )
        scores = head.score(score.history[None], weights)[0]
        score.rank = int((scores > scores[int(np.flatnonzero(candidates == item)[0])]).sum()) + 1
        score.n_candidates = len(candidates)
    return score


def index_of(name: str, names: Sequence[str], kind: str) -> int:
    """Return the index of a name.

    Args:
        name: name to find.
        names: known names.
        kind: kind of name, for the message.

    Raises:
        InputError: unknown name; the message lists the nearest names.
    """
    try:
        return list(names).index(name)
    except ValueError:
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or list(names[:3])
        raise InputError(
            f"explain: no {kind} {name!r} among {len(names):,}; the nearest are {', '.join(map(repr, close))}"
        ) from None
