"""Training of a detector: pictures with what is said of them, and the boxes that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.training.tasks.base import Task
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn_adapters.torchvision import Detector

__all__ = ["DetectionTask", "SyntheticDetectionTask"]

Augment = Callable[[Any, Boxes], tuple[Any, Boxes]]


class _DetectionTaskBase(Task):
    """What both tasks have in common: the loss of some samples with their boxes, and a judge."""

    def __init__(
        self,
        detector: Detector,
        validate_fn: Callable[[Detector], dict[str, float]] | None,
        modality_dropout: float,
        augment: Augment | None,
    ):
        super().__init__()
        self.detector, self.validate_fn = detector, validate_fn
        self.modality_dropout, self.augment = modality_dropout, augment

    def compute_loss(self, samples: list[Sample], targets: list[Boxes]) -> Tensor:
        """The sum of the detector's losses."""
        if self.augment is not None:
            pairs = [
                self._augment_sample(sample, boxes, self.augment)
                for sample, boxes in zip(samples, targets, strict=True)
            ]
            samples, targets = [sample for sample, _ in pairs], [boxes for _, boxes in pairs]
        losses = self.detector.losses(samples, targets, self.modality_dropout)
        return torch.stack(list(losses.values())).sum()

    def _augment_sample(self, sample: Sample, boxes: Boxes, augment: Augment) -> tuple[Sample, Boxes]:
        name = self.detector.config.image_key
        picture, boxes = augment(sample.content[name], boxes)
        return Sample(sample.id, {**sample.content, name: picture}), boxes

    def validate(self) -> dict[str, float]:
        return {} if self.validate_fn is None else self.validate_fn(self.detector)


class DetectionTask(_DetectionTaskBase):
    """Samples and their boxes, for `mmattn.training.loop.train`.

    Samples that hold the same picture object are several questions about one picture: they come in one
    batch and share the pass of the backbone.

    Args:
        detector: what is trained.
        samples: each with a picture, and with what is said of it, if anything.
        targets: the boxes that are meant, one a sample; a sample with None is left out.
        validate_fn: validation figures; left out, none.
        batch_size: pictures a step.
        modality_dropout: probability that a modality of what is said is left out of a question in a step.
        augment: changes a picture and its boxes, anew each time; then each question has a picture of its own.

    Raises:
        InputError: as many targets as samples are expected, and one that is known.
    """

    def __init__(
        self,
        detector: Detector,
        samples: Sequence[Sample],
        targets: Sequence[Boxes | None],
        validate_fn: Callable[[Detector], dict[str, float]] | None = None,
        *,
        batch_size: int = 8,
        modality_dropout: float = 0.0,
        augment: Augment | None = None,
    ):
        super().__init__(detector, validate_fn, modality_dropout, augment)
        if len(targets) != len(samples):
            raise InputError(f"detection: got {len(targets)} targets, expected {len(samples)}, one a sample")
        self.batch_size = batch_size
        self.image_groups = _group_by_image(samples, targets, detector.config.image_key)
        if not self.image_groups:
            raise InputError("detection: got no sample with boxes to learn from, expected at least one")

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[tuple[list[Sample], list[Boxes]]]:
        """The pictures in a random order, each with all its questions.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        for batch in torch.randperm(len(self.image_groups), generator=generator).split(self.batch_size):
            pairs = [pair for index in batch.tolist() for pair in self.image_groups[index]]
            yield [sample for sample, _ in pairs], [boxes for _, boxes in pairs]

    def num_batches(self, epoch: int) -> int:
        return -(-len(self.image_groups) // self.batch_size)

    def forward(self, batch: tuple[list[Sample], list[Boxes]]) -> Tensor:
        """The sum of the detector's losses on a batch.

        Args:
            batch: samples and their boxes.
        """
        return self.compute_loss(*batch)


class SyntheticDetectionTask(_DetectionTaskBase):
    """Samples that are made up anew in every step: simulated scenes, joined sounds.

    Args:
        detector: what is trained.
        sample_fn: a seed -> samples and their boxes; what it draws from torch's global generator is seeded,
            too.
        validate_fn: as in `DetectionTask`.
        steps_per_epoch: steps an epoch.
        modality_dropout: as in `DetectionTask`.
        augment: as in `DetectionTask`.
    """

    def __init__(
        self,
        detector: Detector,
        sample_fn: Callable[[int], tuple[list[Sample], list[Boxes]]],
        validate_fn: Callable[[Detector], dict[str, float]] | None = None,
        *,
        steps_per_epoch: int,
        modality_dropout: float = 0.0,
        augment: Augment | None = None,
    ):
        super().__init__(detector, validate_fn, modality_dropout, augment)
        self.sample_fn, self.steps_per_epoch = sample_fn, steps_per_epoch

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[int]:
        """Seeds.

        Args:
            epoch: its number, from 1.
            generator: source of randomness.
        """
        yield from torch.randint(2**31, (self.steps_per_epoch,), generator=generator).tolist()

    def num_batches(self, epoch: int) -> int:
        return self.steps_per_epoch

    def forward(self, batch: int) -> Tensor:
        """The sum of the detector's losses on what the seed gives.

        Args:
            batch: a seed.
        """
        return self.compute_loss(*self.sample_fn(batch))


def _group_by_image(
    samples: Sequence[Sample], targets: Sequence[Boxes | None], image_key: str
) -> list[list[tuple[Sample, Boxes]]]:
    """Samples with their boxes, those about one picture together."""
    groups: dict[int, list[tuple[Sample, Boxes]]] = {}
    for sample, boxes in zip(samples, targets, strict=True):
        if boxes is not None:
            groups.setdefault(id(sample.content.get(image_key)), []).append((sample, boxes))
    return list(groups.values())
