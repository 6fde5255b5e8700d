"""Training of a supervised head: batches of samples with their targets, through encoders and core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.data.collate import drop_modalities
from mmattn.encoders.inputs import Inputs
from mmattn.errors import InputError
from mmattn.heads.supervised import SupervisedHead
from mmattn.model import Model
from mmattn.training.task import Task
from mmattn.types import Tokens

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
        judge: validation figures of the model; left out, none.
        head: name of the head.
        batch: samples a step.
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
        inputs: Inputs,
        targets: Sequence[Any],
        rows: Sequence[int] | np.ndarray,
        judge: Callable[[Model], dict[str, float]] | None = None,
        *,
        head: str,
        batch: int = 32,
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
        self.model, self.inputs, self.targets, self.judge = model, inputs, targets, judge
        known = [int(row) for row in rows if targets[int(row)] is not None]
        if not known:
            raise InputError(f"task {head!r}: got no sample with a target to learn from")
        self.rows = torch.tensor(known)
        self.head_name, self.batch, self.drop_modality = head, batch, drop_modality
        self.augment, self.perturb, self.context = augment, perturb, context

    @property
    def head(self) -> SupervisedHead:
        """The head that is trained."""
        head: SupervisedHead = self.model.head(self.head_name)
        return head

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[Tensor]:
        """The rows in a random order."""
        yield from self.rows[torch.randperm(len(self.rows), generator=generator)].split(self.batch)

    def batch_count(self, epoch: int) -> int:
        return -(-len(self.rows) // self.batch)

    def forward(self, rows: Tensor) -> Tensor:
        """The head's loss of some samples."""
        inputs, targets = self._augmented(rows)
        parts = drop_modalities(inputs, self.drop_modality)
        loss_of = self.loss_of(parts, targets)
        return loss_of(parts) if self.perturb is None else self.perturb(parts, loss_of)

    def loss_of(
        self, parts: Mapping[str, Tokens], targets: Sequence[Any]
    ) -> Callable[[Mapping[str, Tokens]], Tensor]:
        """What gives the loss of these samples, or of what becomes of them when they are perturbed."""
        return lambda tokens: self.head.loss(self.model.fuse(tokens, self.context), targets)

    def _augmented(self, rows: Tensor) -> tuple[dict[str, Tokens], list[Any]]:
        """Tokens and targets of the rows, changed at random where that was asked for."""
        targets = [self.targets[row] for row in rows.tolist()]
        if self.augment is None:
            return self.model.tokens(self.inputs, rows), targets
        contents: dict[str, list[Any]] = {name: [] for name in self.inputs.contents}
        for place, row in enumerate(rows.tolist()):
            sample = {name: found[row] for name, found in self.inputs.contents.items()}
            sample, targets[place] = self.augment(sample, targets[place])
            for name, changed in contents.items():
                changed.append(sample.get(name))
        stored = {name: tokens.select(rows) for name, tokens in self.inputs.tokens.items()}
        batch = Inputs(stored, contents)
        return self.model.tokens(batch, torch.arange(len(rows))), targets

    @torch.no_grad()
    def predict(self, rows: Sequence[int] | np.ndarray, batch: int = 64) -> list[Any]:
        """What the head says of some samples, in their order, in evaluation mode."""
        training = self.model.training
        self.model.eval()
        found: list[Any] = []
        for part in torch.tensor([int(row) for row in rows]).long().split(batch):
            found += self.head.predict(self.model.fuse(self.model.tokens(self.inputs, part), self.context))
        self.model.train(training)
        return found

    def validate(self) -> dict[str, float]:
        return {} if self.judge is None else self.judge(self.model)
