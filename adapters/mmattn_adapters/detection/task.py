"""Training of a detector: pictures with what is said of them, and the boxes that are meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.training.task import Task
from mmattn.types import Sample

if TYPE_CHECKING:
    from mmattn_adapters.torchvision import Detector

__all__ = ["DetectionTask"]

Augment = Callable[[Any, Boxes], tuple[Any, Boxes]]


class DetectionTask(Task):
    """Samples and their boxes, for `mmattn.training.loop.train`.

    A batch is a pair of lists, samples and boxes: a subclass may draw fresh ones in `batches`. Samples that
    hold the same picture object are several questions about one picture: they come in one batch and share
    the pass of the backbone.

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
        super().__init__()
        if len(targets) != len(samples):
            raise InputError(f"detection: got {len(targets)} targets, expected {len(samples)}, one a sample")
        self.detector, self.judge = detector, judge
        self.batch, self.drop_modality, self.augment = batch, drop_modality, augment
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
        """The sum of the detector's losses."""
        samples, targets = batch
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


def _by_picture(
    samples: Sequence[Sample], targets: Sequence[Boxes | None], picture: str
) -> list[list[tuple[Sample, Boxes]]]:
    """Samples with their boxes, those about one picture together."""
    groups: dict[int, list[tuple[Sample, Boxes]]] = {}
    for sample, boxes in zip(samples, targets, strict=True):
        if boxes is not None:
            groups.setdefault(id(sample.content.get(picture)), []).append((sample, boxes))
    return list(groups.values())
