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

__all__ = ["DetectionTask", "DrawnDetectionTask"]

Augment = Callable[[Any, Boxes], tuple[Any, Boxes]]


class _Learning(Task):
    """What both tasks have in common: the loss of some samples with their boxes, and a judge."""

    def __init__(
        self,
        detector: Detector,
        judge: Callable[[Detector], dict[str, float]] | None,
        drop_modality: float,
        augment: Augment | None,
    ):
        super().__init__()
        self.detector, self.judge = detector, judge
        self.drop_modality, self.augment = drop_modality, augment

    def loss(self, samples: list[Sample], targets: list[Boxes]) -> Tensor:
        """The sum of the detector's losses."""
        if self.augment is not None:
            pairs = [
                self._augmented(sample, boxes, self.augment)
                for sample, boxes in zip(samples, targets, strict=True)
            ]
            samples, targets = [sample for sample, _ in pairs], [boxes for _, boxes in pairs]
        losses = self.detector.losses(samples, targets, self.drop_modality)
        return torch.stack(list(losses.values())).sum()

    def _augmented(self, sample: Sample, boxes: Boxes, augment: Augment) -> tuple[Sample, Boxes]:
        name = self.detector.config.picture
        picture, boxes = augment(sample.content[name], boxes)
        return Sample(sample.id, {**sample.content, name: picture}), boxes

    def validate(self) -> dict[str, float]:
        return {} if self.judge is None else self.judge(self.detector)


class DetectionTask(_Learning):
    """Samples and their boxes, for `mmattn.training.loop.train`.

    Samples that hold the same picture object are several questions about one picture: they come in one
    batch and share the pass of the backbone.

    Args:
        detector: what is trained.
        samples: each with a picture, and with what is said of it, if anything.
        targets: the boxes that are meant, one a sample; a sample with None is left out.
        judge: validation figures; left out, none.
        batch: pictures a step.
        drop_modality: probability that a modality of what is said is left out of a question in a step.
        augment: changes a picture and its boxes, anew each time; then each question has a picture of its own.

    Raises:
        InputError: as many targets as samples are expected, and one that is known.
    """

    def __init__(
        self,
        detector: Detector,
        samples: Sequence[Sample],
        targets: Sequence[Boxes | None],
        judge: Callable[[Detector], dict[str, float]] | None = None,
        *,
        batch: int = 8,
        drop_modality: float = 0.0,
        augment: Augment | None = None,
    ):
        super().__init__(detector, judge, drop_modality, augment)
        if len(targets) != len(samples):
            raise InputError(f"detection: got {len(targets)} targets, expected {len(samples)}, one a sample")
        self.batch = batch
        self.questions = _by_picture(samples, targets, detector.config.picture)
        if not self.questions:
            raise InputError("detection: got no sample with boxes to learn from, expected at least one")

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[tuple[list[Sample], list[Boxes]]]:
        """The pictures in a random order, each with all its questions."""
        for places in torch.randperm(len(self.questions), generator=generator).split(self.batch):
            pairs = [pair for place in places.tolist() for pair in self.questions[place]]
            yield [sample for sample, _ in pairs], [boxes for _, boxes in pairs]

    def batch_count(self, epoch: int) -> int:
        return -(-len(self.questions) // self.batch)

    def forward(self, batch: tuple[list[Sample], list[Boxes]]) -> Tensor:
        """The sum of the detector's losses on a batch."""
        return self.loss(*batch)


class DrawnDetectionTask(_Learning):
    """Samples that are made up anew in every step: simulated scenes, joined sounds.

    Args:
        detector: what is trained.
        draw: a seed -> samples and their boxes; what it draws from torch's global generator is seeded, too.
        steps: an epoch.
        judge, drop_modality, augment: as in `DetectionTask`.
    """

    def __init__(
        self,
        detector: Detector,
        draw: Callable[[int], tuple[list[Sample], list[Boxes]]],
        judge: Callable[[Detector], dict[str, float]] | None = None,
        *,
        steps: int,
        drop_modality: float = 0.0,
        augment: Augment | None = None,
    ):
        super().__init__(detector, judge, drop_modality, augment)
        self.draw, self.steps = draw, steps

    def batches(self, epoch: int, generator: torch.Generator) -> Iterator[int]:
        """Seeds."""
        yield from torch.randint(2**31, (self.steps,), generator=generator).tolist()

    def batch_count(self, epoch: int) -> int:
        return self.steps

    def forward(self, batch: int) -> Tensor:
        """The sum of the detector's losses on what the seed gives."""
        return self.loss(*self.draw(batch))


def _by_picture(
    samples: Sequence[Sample], targets: Sequence[Boxes | None], picture: str
) -> list[list[tuple[Sample, Boxes]]]:
    """Samples with their boxes, those about one picture together."""
    groups: dict[int, list[tuple[Sample, Boxes]]] = {}
    for sample, boxes in zip(samples, targets, strict=True):
        if boxes is not None:
            groups.setdefault(id(sample.content.get(picture)), []).append((sample, boxes))
    return list(groups.values())
