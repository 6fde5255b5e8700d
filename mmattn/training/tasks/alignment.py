"""Training task of contrastive alignment between modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.errors import InputError
from mmattn.heads.contrastive.alignment import AlignmentHead, single_modality_views
from mmattn.training.batch_size import batch_size_at
from mmattn.training.tasks.base import Task

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.model.model import Model

__all__ = ["AlignmentTask"]


class AlignmentTask(Task):
    """Contrastive training: the modalities of one sample are views of the same thing.

    Args:
        model: with an alignment head under `head`; its encoders may be trained along.
        inputs: all samples.
        groups: [all samples] int64, equal where two show the same thing.
        validate_fn: validation figures of the model.
        samples: the samples to train on, by default all.
        head: name of the head.
        batch_size: samples a step.
        dropout: probability that a component of the encoders' tokens is left out in a step: what frozen
            features of few samples are best kept from being learned by heart with.
        context: for the attention programs, the same for every batch.

    Raises:
        InputError: a dropout out of range, or no sample.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        groups: Tensor,
        validate_fn: Callable[[Model], dict[str, float]],
        *,
        samples: Tensor | None = None,
        head: str = "alignment",
        batch_size: int = 128,
        dropout: float = 0.0,
        context: Any = None,
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"alignment task: got dropout {dropout}, expected a share from 0 to below 1")
        self.model = model
        self.samples = torch.arange(len(groups)) if samples is None else samples
        if not len(self.samples):
            raise InputError("alignment task: got no sample to train on")
        self.inputs = inputs
        self.groups = groups
        self.validate_fn = validate_fn
        self.head_name = head
        self.batch_size = batch_size
        self.dropout = dropout
        self.context = context

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """Return the samples in a random order; an incomplete last batch is left out.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        order = self.samples[torch.randperm(len(self.samples), generator=generator)]
        size = self._batch_size_in(epoch)
        yield from (batch for batch in order.split(size) if len(batch) == size)

    def num_batches(self, epoch: int) -> int:
        """Full batches only.

        Args:
            epoch: its number, from 1.
        """
        return len(self.samples) // self._batch_size_in(epoch)

    def _batch_size_in(self, epoch: int) -> int:
        return min(batch_size_at(self.batch_size, epoch) or len(self.samples), len(self.samples))

    def forward(self, samples: Tensor) -> Tensor:
        """The contrastive loss of the samples' single-modality views.

        Args:
            samples: [B] int64 rows.
        """
        parts = {
            name: tokens.with_values(F.dropout(tokens.values, self.dropout, self.training))
            for name, tokens in self.model.tokens(self.inputs, samples).items()
        }
        views, sample = single_modality_views(parts)
        head: AlignmentHead = self.model.head(self.head_name)
        fused = self.model.fuse(views, self.context)
        return head.loss(fused, group=self.groups[samples][sample.cpu()].to(sample.device))

    def validate(self) -> dict[str, float]:
        """What `judge` says of the model as it stands."""
        return self.validate_fn(self.model)
