"""Distillation: a small model learns from what a large one says, beside what is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.encoders.model_inputs import Inputs
from mmattn.errors import InputError
from mmattn.model.model import Model
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.types import Fused

__all__ = ["DistilledTask", "soft_loss"]


class DistilledTask(SupervisedTask):
    """A supervised task with a teacher: a trained model with the same head, of any size.

        loss = (1 - share) * head's own + share * T^2 * distance of the answers at temperature T
               + hidden * (1 - cosine of the joint vectors, the small one projected)

    The teacher sees whole samples, also where the student has a modality dropped or its tokens perturbed.

    Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; Romero et al.,
    "FitNets: Hints for Thin Deep Nets", 2015 (joint vectors).

    Args:
        model: the student.
        inputs, targets, rows, judge, options: as for `SupervisedTask`. The teacher's encoders read the same
            contents and stored tokens.
        teacher: the trained model; it does not change.
        temperature: T, above 0; higher ones tell more of the classes that are not the answer.
        share: of the teacher's answers in the loss, from 0 to 1.
        hidden: weight of the joint vectors; 0 for none.

    Raises:
        InputError: an argument out of range, or a teacher whose head knows other classes.
    """

    def __init__(
        self,
        model: Model,
        inputs: Inputs,
        targets: Sequence[Any],
        rows: Sequence[int] | np.ndarray,
        judge: Callable[[Model], dict[str, float]] | None = None,
        *,
        teacher: Model,
        head: str,
        temperature: float = 2.0,
        share: float = 0.5,
        hidden: float = 0.0,
        **options: Any,
    ):
        super().__init__(model, inputs, targets, rows, judge, head=head, **options)
        if temperature <= 0 or not 0 <= share <= 1 or hidden < 0:
            raise InputError(
                f"distillation: got temperature {temperature}, share {share} and hidden {hidden}, expected a "
                "temperature above 0, a share from 0 to 1 and hidden from 0"
            )
        known = [getattr(teacher.head(head), "classes", None), getattr(self.head, "classes", None)]
        if known[0] != known[1]:
            raise InputError(f"distillation: the teacher's head knows {known[0]}, the student's {known[1]}")
        self.temperature, self.share, self.hidden = temperature, share, hidden
        # In a tuple, so that the teacher is no part of what is trained, averaged and saved.
        self._teacher = (teacher.eval(),)
        self.lift = nn.Linear(model.core.dim, teacher.core.dim) if hidden else None

    @property
    def teacher(self) -> Model:
        """The trained model."""
        return self._teacher[0]

    def criterion(self, batch: Inputs, targets: Sequence[Any]) -> Callable[[Fused], Tensor]:
        """The head's loss, and the distance to what the teacher says of the same samples."""
        with torch.no_grad():
            teacher = self.teacher.to(self.model.device)
            seen = teacher.fuse(teacher.tokens(batch, torch.arange(len(targets))), self.context)
            said = teacher.head(self.head_name)(seen)

        def loss_of(fused: Fused) -> Tensor:
            own = self.head.loss(fused, targets)
            soft = soft_loss(self.head(fused), said, self.temperature, several=self.head.kind == "labels")
            loss = (1 - self.share) * own + self.share * soft
            if self.lift is not None:
                alike_B = F.cosine_similarity(self.lift(fused.pooled), seen.pooled)
                loss = loss + self.hidden * (1 - alike_B).mean()
            return loss

        return loss_of


def soft_loss(logits: Tensor, taught: Tensor, temperature: float, *, several: bool = False) -> Tensor:
    """How far answers are from the teacher's, times the square of the temperature: gradients keep their size.

    Args:
        logits: [..., C] of the student.
        taught: [..., C] of the teacher.
        temperature: that both are divided by.
        several: are these independent labels, and not classes of which one is true?

    Returns:
        The mean Kullback-Leibler divergence, a scalar; summed over independent labels.

    Raises:
        InputError: answers of different shapes.

    Example:
        >>> soft_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]), 2.0).item()
        0.0
    """
    if logits.shape != taught.shape:
        raise InputError(
            f"distillation: the student says {tuple(logits.shape)}, the teacher {tuple(taught.shape)}, "
            "expected one shape"
        )
    if not logits.numel():
        return logits.sum() * 0.0
    mine, theirs = logits.float() / temperature, taught.float() / temperature
    if several:
        own = F.binary_cross_entropy_with_logits(theirs, theirs.sigmoid(), reduction="none")
        apart = F.binary_cross_entropy_with_logits(mine, theirs.sigmoid(), reduction="none") - own
    else:
        apart = F.kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True)
    return apart.sum(-1).mean() * temperature**2
