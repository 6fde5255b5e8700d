"""Alignment as an auxiliary task beside a recommendation task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mmattn.errors import InputError
from mmattn.training.tasks.alignment import AlignmentTask
from mmattn.training.tasks.multitask import MultiTask
from mmattn.training.tasks.task_weighting import FixedWeights

if TYPE_CHECKING:
    from mmattn.training.tasks.recommender import RecommenderTask

__all__ = ["with_alignment"]


def with_alignment(task: RecommenderTask, weight: float, batch_size: int = 128) -> MultiTask:
    """A recommender's task with a contrastive loss between the modalities of its items beside it.

    An item's text, picture and sound are drawn towards each other, so that an item with one of them only
    comes to lie where it would with all.

    Args:
        task: its model has a head called "alignment" too.
        weight: of the contrastive loss; the task's own has weight 1.
        batch_size: items of a step that are aligned.

    Raises:
        InputError: the weight is not above 0, or the model has no such head.
    """
    if weight <= 0:
        raise InputError(f"training alignment: got weight {weight}, expected one above 0")
    task.model.head("alignment")
    aligned = AlignmentTask(
        task.model, task.inputs, torch.arange(len(task.inputs)), lambda _: {},
        samples=torch.from_numpy(task.items), batch_size=batch_size, context=task.context,
    )  # fmt: skip
    return MultiTask({"ranking": task, "alignment": aligned}, FixedWeights({"alignment": weight}))
