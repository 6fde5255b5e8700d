"""Bounding boxes of an image: ground truth and predictions of object detection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmattn.errors import InputError

__all__ = ["Boxes", "cxcywh_to_xyxy", "xyxy_to_cxcywh"]


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one image; there may be none.

    Args:
        boxes: [K, 4] floating point: left, top, right, bottom in pixels; right and bottom are exclusive.
        labels: [K] class names.
        size: (height, width) of the image in pixels; (1, 1) for relative coordinates.
        scores: [K] confidence of predicted boxes, from 0 to 1; None for ground truth.

    Raises:
        InputError: shapes or dtypes that do not match.

    Example:
        >>> found = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["seven"], size=(24, 32))
        >>> len(found), found.area.tolist()
        (1, [72.0])
    """

    boxes: Tensor
    labels: Sequence[str]
    size: tuple[int, int]
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        count = len(self.labels)
        if tuple(self.boxes.shape) != (count, 4) or not self.boxes.is_floating_point():
            raise InputError(
                f"Boxes: got boxes {self.boxes.dtype} {tuple(self.boxes.shape)} and {count} labels, "
                f"expected floats ({count}, 4)"
            )
        if self.scores is not None and tuple(self.scores.shape) != (count,):
            raise InputError(f"Boxes: got scores {tuple(self.scores.shape)}, expected ({count},)")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def area(self) -> Tensor:
        """[K] areas in square pixels."""
        return (self.boxes[:, 2:] - self.boxes[:, :2]).prod(1)

    def scaled(self, size: tuple[int, int]) -> Boxes:
        """Rescale the boxes to another size of the image; size (1, 1) makes them relative.

        Args:
            size: new (height, width); the aspect ratio may change.

        Raises:
            InputError: a height or width of 0 or less.

        Example:
            >>> found = Boxes(torch.tensor([[0.25, 0.5, 0.75, 1.0]]), ["seven"], size=(1, 1))
            >>> found.scaled((20, 40)).boxes.tolist()
            [[10.0, 10.0, 30.0, 20.0]]
        """
        if min(*self.size, *size) <= 0:
            raise InputError(f"Boxes.scaled: got {self.size} to {tuple(size)}, expected sizes above 0")
        down, across = size[0] / self.size[0], size[1] / self.size[1]
        return replace(self, boxes=self.boxes * self.boxes.new_tensor([across, down] * 2), size=size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        return {
            "boxes": self.boxes.tolist(),
            "labels": list(self.labels),
            "size": list(self.size),
            "scores": None if self.scores is None else self.scores.tolist(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Boxes:
        """Create the boxes that `to_dict` was made of.

        Args:
            value: "boxes", "labels", "size" and "scores".

        Example:
            >>> boxes = Boxes(torch.tensor([[0.0, 0.5, 1.0, 2.0]]), ["seven"], size=(4, 3))
            >>> Boxes.from_dict(boxes.to_dict()).boxes.tolist()
            [[0.0, 0.5, 1.0, 2.0]]
        """
        height, width = value["size"]
        scores = None if value["scores"] is None else torch.tensor(value["scores"], dtype=torch.float32)
        corners = torch.tensor(value["boxes"], dtype=torch.float32).reshape(-1, 4)
        return cls(corners, value["labels"], (height, width), scores)

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Boxes:
        """Boxes of an image without objects.

        Args:
            size: (height, width) of the image.
        """
        return cls(torch.zeros(0, 4), (), size)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert corner to centre coordinates.

    Args:
        boxes: [..., 4] left, top, right, bottom.

    Returns:
        [..., 4] centre x, centre y, width, height.

    Example:
        >>> xyxy_to_cxcywh(torch.tensor([1.0, 2.0, 3.0, 8.0])).tolist()
        [2.0, 5.0, 2.0, 6.0]
    """
    first, last = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(first + last) / 2, last - first], dim=-1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert centre to corner coordinates.

    Args:
        boxes: [..., 4] centre x, centre y, width, height.

    Returns:
        [..., 4] left, top, right, bottom.

    Example:
        >>> cxcywh_to_xyxy(torch.tensor([2.0, 5.0, 2.0, 6.0])).tolist()
        [1.0, 2.0, 3.0, 8.0]
    """
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)
