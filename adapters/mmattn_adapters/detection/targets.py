"""Pictures and boxes on their way into a torchvision detector and out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.encoders.base import Unreadable
from mmattn.encoders.image.image_io import read_image
from mmattn.errors import InputError, did_you_mean

__all__ = ["check_targets", "from_torchvision", "to_image_tensor", "to_torchvision_target"]


def to_image_tensor(content: Any) -> Tensor:
    """A picture as torchvision's detectors take it: float32 [3, H, W] from 0 to 1.

    Args:
        content: what `mmattn.encoders.image.image_io.read_image` reads; a uint8 tensor [3, H, W]; or what
            this function gave, which passes through.

    Raises:
        Unreadable: with the reason.

    Example:
        >>> to_image_tensor(np.zeros((5, 7), np.uint8)).shape
        torch.Size([3, 5, 7])
    """
    if not isinstance(content, Tensor):
        content = torch.from_numpy(np.array(read_image(content))).permute(2, 0, 1)
    if content.dim() != 3 or content.shape[0] != 3 or 0 in content.shape:
        raise Unreadable(f"got a tensor {tuple(content.shape)}, expected [3, H, W]")
    if content.dtype == torch.uint8:
        return content / 255
    if content.dtype != torch.float32:
        raise Unreadable(f"got a tensor of {content.dtype}, expected uint8, or float32 from 0 to 1")
    return content.contiguous()


def check_targets(targets: Sequence[Boxes], sizes: Sequence[tuple[int, int]]) -> None:
    """Refuse targets that do not fit the pictures: their number, their size, a box without area or outside.

    Args:
        targets: one a picture.
        sizes: (height, width) of the pictures.

    Raises:
        InputError: naming the target, the box, what came and what was expected.
    """
    if len(targets) != len(sizes):
        raise InputError(
            f"detector: got {len(targets)} targets, expected {len(sizes)}, one a picture or question"
        )
    for number, (target, (height, width)) in enumerate(zip(targets, sizes, strict=True)):
        if tuple(target.size) != (height, width):
            raise InputError(
                f"detector: target {number} is of a picture {tuple(target.size)}, expected {(height, width)}"
            )
        left, top, right, bottom = target.boxes.unbind(1)
        # Written so that NaN is refused as well.
        fine = (
            (left >= 0) & (top >= 0) & (left < right) & (top < bottom) & (right <= width) & (bottom <= height)
        )
        if not bool(fine.all()):
            wrong = int((~fine).nonzero()[0, 0])
            corners = [round(value, 2) for value in target.boxes[wrong].tolist()]
            raise InputError(
                f"detector: target {number}, box {wrong}: got {corners}, expected left < right and "
                f"top < bottom within {width} x {height} pixels"
            )


def to_torchvision_target(
    boxes: Boxes, class_ids: Mapping[str, int], resized_size: tuple[int, int], device: torch.device
) -> dict[str, Tensor]:
    """Boxes as torchvision wants them, on a picture that was resized.

    Args:
        boxes: the truth.
        class_ids: class -> its number.
        resized_size: (height, width) of the picture now.
        device: of the detector.

    Raises:
        InputError: a label that is no class.
    """
    unknown = next((label for label in boxes.labels if label not in class_ids), None)
    if unknown is not None:
        raise InputError(f"detector: no class {unknown!r}.{did_you_mean(unknown, class_ids)}")
    labels = torch.tensor([class_ids[label] for label in boxes.labels], dtype=torch.int64, device=device)
    # A size in pixels may be rounded, so that the two sides have ratios of their own; as torchvision does it.
    ratio_h, ratio_w = (
        torch.tensor(now, dtype=torch.float32) / torch.tensor(then, dtype=torch.float32)
        for now, then in zip(resized_size, boxes.size, strict=True)
    )
    scaled = boxes.boxes.float() * torch.stack([ratio_w, ratio_h, ratio_w, ratio_h])
    return {"boxes": scaled.to(device), "labels": labels}


def from_torchvision(
    detections: Mapping[str, Tensor], class_names: Mapping[int, str], size: tuple[int, int]
) -> Boxes:
    """What torchvision found on a picture of (height, width) `size`, the surest first, on the CPU.

    Args:
        detections: its boxes, scores and labels.
        class_names: number -> class.
        size: (height, width) of the picture.
    """
    order = detections["scores"].argsort(descending=True, stable=True)
    labels = [class_names[number] for number in detections["labels"][order].tolist()]
    return Boxes(
        detections["boxes"][order].float().cpu(), labels, size, detections["scores"][order].float().cpu()
    )
