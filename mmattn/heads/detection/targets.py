"""What a detector learns from, as tensors: labels as numbers, boxes relative to their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.boxes import Boxes, xyxy_to_cxcywh
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.heads.vocabulary import Vocabulary

__all__ = ["BoxTargets"]


@dataclass(frozen=True, eq=False)
class BoxTargets:
    """The objects of a batch, one sample behind the other.

    Args:
        labels: [K] int64.
        boxes: [K, 4] centre x, centre y, width, height, relative to the picture.
        counts: objects of each sample.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]

    def __len__(self) -> int:
        """Number of objects K."""
        return len(self.labels)

    @classmethod
    def from_targets(cls, targets: Sequence[Any], vocabulary: Vocabulary, device: torch.device) -> BoxTargets:
        """Create the targets of a batch; boxes are clipped to their images.

        Args:
            targets: [B] boxes; None if unknown.
            vocabulary: names of the labels.
            device: of the result.

        Raises:
            InputError: a target that is not `Boxes`, a label that the head does not know, a box that is not
                finite or has no area within its picture.

        Example:
            >>> from mmattn.heads.vocabulary import Vocabulary
            >>> seven = Boxes(torch.tensor([[0.0, 0.0, 8.0, 12.0]]), ["seven"], size=(24, 32))
            >>> names = Vocabulary(["six", "seven"], "detection head", "label")
            >>> found = BoxTargets.from_targets([seven], names, torch.device("cpu"))
            >>> found.labels.tolist(), found.boxes.tolist()
            ([1], [[0.125, 0.25, 0.25, 0.5]])
        """
        labels, boxes = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, 4)]
        for target in targets:
            if not isinstance(target, Boxes):
                raise InputError(
                    f"{vocabulary.where}: got a target {type(target).__name__}, expected mmattn.boxes.Boxes"
                )
            labels.append(torch.tensor([vocabulary.index(name) for name in target.labels]).long())
            boxes.append(_relative_boxes(target, vocabulary.where))
        counts = tuple(len(target) for target in targets)
        return cls(torch.cat(labels).to(device), torch.cat(boxes).to(device), counts)


def _relative_boxes(target: Boxes, where: str) -> Tensor:
    """[K, 4] centres and sides of the boxes as far as they lie within their picture, from 0 to 1."""
    corners_K4 = target.scaled((1, 1)).boxes.float().cpu().clamp(0.0, 1.0)
    there_K = (corners_K4[:, 2:] > corners_K4[:, :2]).all(1)  # not where a number is NaN
    if not bool(there_K.all()):
        box = target.boxes[int((~there_K).nonzero()[0, 0])].tolist()
        raise InputError(
            f"{where}: got the box {box} on a picture of {target.size} (height, width), expected "
            "left < right and top < bottom within it"
        )
    return xyxy_to_cxcywh(corners_K4)
