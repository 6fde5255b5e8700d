"""The section `training` of a run's file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mmattn.training.loop_config import LoopConfig

__all__ = ["TrainingConfig"]

_RECOMMENDER = {"of": "recommender"}


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """How a model is trained: the keys of `LoopConfig`, and how batches are drawn.

    Args:
        steps_per_epoch: steps an epoch; 0 is 25 for a recommender, and for tasks as many as the largest task
            has batches.
        refit: train again on training and validation together, for as many epochs as validation selected
            (recommenders).
        users_per_batch: users a batch; 0 for all. Or {epochs done: users}; `{0: 256, 10: 1024}` goes on with
            1,024 users a batch after 10 epochs (recommenders).
        candidate_fraction: fraction of the known items that a step hides and ranks (recommenders).
        history_fraction: fraction of the known items that a step's histories may hold (recommenders).
        drop_modality: probability of dropping a modality of an item in training (recommenders; a task has its
            own).
        alignment: weight of a contrastive loss between the modalities of an item beside the ranking; 0 for
            none (recommenders).
        alignment_options: of its head, `mmattn.heads.contrastive.alignment.AlignmentHead`; `{loss:
            TripletMarginLoss}`.
    """

    steps_per_epoch: int = 0
    refit: bool = field(default=True, metadata=_RECOMMENDER)
    users_per_batch: int | dict[int, int] = field(default=2048, metadata=_RECOMMENDER)
    candidate_fraction: float = field(default=0.25, metadata=_RECOMMENDER)
    history_fraction: float = field(default=0.6, metadata=_RECOMMENDER)
    drop_modality: float = field(default=0.1, metadata=_RECOMMENDER)
    alignment: float = field(default=0.0, metadata=_RECOMMENDER)
    alignment_options: dict[str, Any] = field(default_factory=dict, metadata=_RECOMMENDER)
