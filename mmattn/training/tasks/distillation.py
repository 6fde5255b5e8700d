"""Distillation: a small model learns from what a large one says, beside what is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.training.tasks.supervised import SupervisedTask
from mmattn.types import Fused

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.model.model import Model

__all__ = ["DistillationTask", "distillation_loss"]


class DistillationTask(SupervisedTask):
    """A supervised task with a teacher: a trained model with the same head, of any size.

        loss = (1 - share) * head's own + share * T^2 * distance of the answers at temperature T
               + hidden * (1 - cosine of the joint vectors, the small one projected)

    The teacher sees whole samples, also where the student has a modality dropped or its tokens perturbed.

    Paper: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015; Romero et al.,
    "FitNets: Hints for Thin Deep Nets", 2015 (joint vectors).

    Args:
        model: the student.
        inputs: as for `SupervisedTask`; the teacher's encoders read the same contents and stored tokens.
        targets: as for `SupervisedTask`.
        rows: as for `SupervisedTask`.
        validate_fn: as for `SupervisedTask`.
        teacher: the trained model; it does not change.
        head: name of the head in both models.
        temperature: T, above 0; higher ones tell more of the classes that are not the answer.
        teacher_weight: of the teacher's answers in the loss, from 0 to 1.
        hint_weight: weight of the joint vectors; 0 for none.
        **options: as for `SupervisedTask`.

    Raises:
        InputError: an argument out of range, or a teacher whose head knows other classes.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        targets: Sequence[Any],
        rows: Sequence[int] | np.ndarray,
        validate_fn: Callable[[Model], dict[str, float]] | None = None,
        *,
        teacher: Model,
        head: str,
        temperature: float = 2.0,
        teacher_weight: float = 0.5,
        hint_weight: float = 0.0,
        **options: Any,
    ):
        super().__init__(model, inputs, targets, rows, validate_fn, head=head, **options)
        if temperature <= 0 or not 0 <= teacher_weight <= 1 or hint_weight < 0:
            raise InputError(
                f"distillation: got temperature {temperature}, teacher_weight {teacher_weight} and "
                f"hint_weight "
                f"{hint_weight}, expected a temperature above 0, a teacher_weight from 0 to 1 and a "
                f"hint_weight from 0"
            )
        known = [getattr(teacher.head(head), "classes", None), getattr(self.head, "classes", None)]
        if known[0] != known[1]:
            raise InputError(f"distillation: the teacher's head knows {known[0]}, the student's {known[1]}")
        self.temperature, self.teacher_weight, self.hint_weight = temperature, teacher_weight, hint_weight
        # In a tuple, so that the teacher is no part of what is trained, averaged and saved.
        self._teacher = (teacher.eval(),)
        self.student_projection = nn.Linear(model.core.dim, teacher.core.dim) if hint_weight else None

    @property
    def teacher(self) -> Model:
        """The trained model."""
        return self._teacher[0]

    def criterion(self, batch: ModelInputs, targets: Sequence[Any]) -> Callable[[Fused], Tensor]:
        """Return the function from fused samples to the loss: the head's own and the distance to the teacher.

        Args:
            batch: the samples of one step.
            targets: one a sample.
        """
        with torch.no_grad():
            teacher = self.teacher.to(self.model.device)
            seen = teacher.fuse(teacher.tokens(batch, torch.arange(len(targets))), self._teacher_context())
            teacher_logits = teacher.head(self.head_name)(seen)

        def loss_of(fused: Fused) -> Tensor:
            head_loss = self.head.loss(fused, targets)
            soft = distillation_loss(
                self.head(fused), teacher_logits, self.temperature, multi_label=self.head.independent_labels
            )
            loss = (1 - self.teacher_weight) * head_loss + self.teacher_weight * soft
            if self.student_projection is not None:
                alike_B = F.cosine_similarity(self.student_projection(fused.pooled), seen.pooled)
                loss = loss + self.hint_weight * (1 - alike_B).mean()
            return loss

        return loss_of

    def _teacher_context(self) -> Any:
        """The context of the student, and the task where the teacher was trained on several."""
        if not self.teacher.core.task_embeddings:
            return self.context
        return {**(self.context or {}), "task": self.head_name}


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, *, multi_label: bool = False
) -> Tensor:
    """How far answers are from the teacher's, times the square of the temperature: gradients keep their size.

    Args:
        student_logits: [..., C] of the student.
        teacher_logits: [..., C] of the teacher.
        temperature: that both are divided by.
        multi_label: are these independent labels, and not classes of which one is true?

    Returns:
        The mean Kullback-Leibler divergence, a scalar; summed over independent labels.

    Raises:
        InputError: answers of different shapes.

    Example:
        >>> distillation_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 0.0]]), 2.0).item()
        0.0
    """
    if student_logits.shape != teacher_logits.shape:
        raise InputError(
            f"distillation: the student says {tuple(student_logits.shape)}, the teacher "
            f"{tuple(teacher_logits.shape)}, "
            "expected one shape"
        )
    if not student_logits.numel():
        return student_logits.sum() * 0.0
    mine, theirs = student_logits.float() / temperature, teacher_logits.float() / temperature
    if multi_label:
        teacher_entropy = F.binary_cross_entropy_with_logits(theirs, theirs.sigmoid(), reduction="none")
        apart = F.binary_cross_entropy_with_logits(mine, theirs.sigmoid(), reduction="none") - teacher_entropy
    else:
        apart = F.kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True)
    return apart.sum(-1).mean() * temperature**2
