"""Training of a supervised head: batches of samples with their targets, through encoders and core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmattn.data.modality_dropout import drop_modalities
from mmattn.errors import InputError
from mmattn.training.tasks.base import Task
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.heads.base import SupervisedHead
    from mmattn.model.model import Model

__all__ = ["Augment", "Perturb", "SupervisedTask"]

# Contents of one sample as the encoders' `read` left them, and its target; draws from torch's generator.
Augment = Callable[[dict[str, Any], Any], tuple[dict[str, Any], Any]]
# The loss to train with, from the encoders' tokens and the function that gives the loss of such tokens.
Perturb = Callable[[Mapping[str, Tokens], Callable[[Mapping[str, Tokens]], Tensor]], Tensor]


class SupervisedTask(Task):
    """Samples with targets, for one `SupervisedHead` of a model.

    Args:
        model: with such a head under `head`.
        inputs: all samples.
        targets: one a sample; None where it is not known.
        rows: the samples to learn from; those without a target are left out.
        validate_fn: validation figures of the model; left out, none.
        head: name of the head.
        batch_size: samples a step.
        drop_modality: probability of dropping a modality of a sample in a step.
        augment: changes contents and target of a sample, anew in each epoch.
        perturb: adversarial training, for example; left out, the plain loss.
        context: for the attention programs.

    Raises:
        InputError: as many targets as samples are expected, and one that is known.
    """

    def __init__(
        self,
        model: Model,
        inputs: ModelInputs,
        targets: Sequence[Any],
        rows: Sequence[int] | np.ndarray,
        validate_fn: Callable[[Model], dict[str, float]] | None = None,
        *,
        head: str,
        batch_size: int = 32,
        drop_modality: float = 0.0,
        augment: Augment | None = None,
        perturb: Perturb | None = None,
        context: Any = None,
    ):
        super().__init__()
        if len(targets) != len(inputs):
            raise InputError(
                f"task {head!r}: got {len(targets)} targets, expected {len(inputs)}, one a sample"
            )
        self.model, self.inputs, self.targets, self.validate_fn = model, inputs, targets, validate_fn
        known = [int(row) for row in rows if targets[int(row)] is not None]
        if not known:
            raise InputError(f"task {head!r}: got no sample with a target to learn from")
        self.rows = torch.tensor(known)
        self.head_name, self.batch_size, self.drop_modality = head, batch_size, drop_modality
        self.augment, self.perturb, self.context = augment, perturb, context

    @property
    def head(self) -> SupervisedHead:
        """The head that is trained."""
        head: SupervisedHead = self.model.head(self.head_name)
        return head

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The rows in a random order.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        yield from self.rows[torch.randperm(len(self.rows), generator=generator)].split(self.batch_size)

    def num_batches(self, epoch: int) -> int:
        return -(-len(self.rows) // self.batch_size)

    def forward(self, rows: Tensor) -> Tensor:
        """The loss of some samples.

        Args:
            rows: [B] int64.
        """
        batch, targets = self._load_batch(rows)
        criterion = self.criterion(batch, targets)
        parts = self.model.tokens(batch, torch.arange(len(rows)))
        parts = drop_modalities(parts, self.drop_modality)

        def loss_of(tokens: Mapping[str, Tokens]) -> Tensor:
            return criterion(self.model.fuse(tokens, self.context))

        return loss_of(parts) if self.perturb is None else self.perturb(parts, loss_of)

    def criterion(self, batch: ModelInputs, targets: Sequence[Any]) -> Callable[[Fused], Tensor]:
        """What gives the loss of these samples, however often they are fused.

        Args:
            batch: the samples of one step, before any modality is dropped.
            targets: one a sample.
        """
        return lambda fused: self.head.loss(fused, targets)

    def _load_batch(self, rows: Tensor) -> tuple[ModelInputs, list[Any]]:
        """Inputs and targets of the rows, changed at random where that was asked for."""
        batch, targets = self.inputs.subset(rows), [self.targets[row] for row in rows.tolist()]
        if self.augment is None:
            return batch, targets
        samples = [
            {name: items[row] for name, items in batch.contents.items()} for row in range(len(targets))
        ]
        changed = [self.augment(*pair) for pair in zip(samples, targets, strict=True)]
        contents = {name: [sample.get(name) for sample, _ in changed] for name in batch.contents}
        return replace(batch, contents=contents), [target for _, target in changed]

    @torch.no_grad()
    def predict(self, rows: Sequence[int] | np.ndarray, batch_size: int = 64) -> list[Any]:
        """Predict samples in their order, in evaluation mode.

        Args:
            rows: of the samples.
            batch_size: samples at a time.
        """
        training = self.model.training
        self.model.eval()
        predictions: list[Any] = []
        for part in torch.tensor([int(row) for row in rows]).long().split(batch_size):
            predictions += self.head.predict(
                self.model.fuse(self.model.tokens(self.inputs, part), self.context)
            )
        self.model.train(training)
        return predictions

    def validate(self) -> dict[str, float]:
        return {} if self.validate_fn is None else self.validate_fn(self.model)
