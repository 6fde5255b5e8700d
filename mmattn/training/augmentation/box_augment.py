"""Augmentation of pictures with boxes, by torchvision's transforms: where a thing goes, its box goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.training.tasks.supervised import Augment

__all__ = ["BoxAugment"]

_FLIPS = ("horizontal", "vertical")


class BoxAugment:
    """Changes a picture and its boxes together, anew at each call, drawing from torch's global generator.

    In this order: colours, quarter turns, flips, an IoU crop (Liu et al. 2016, "SSD", arXiv:1512.02325) at
    the picture's own size, zoom and shift within the picture's frame. A box that is left with less than
    `min_visibility` of its area is dropped, and so is one whose middle was cropped away; others are cut at
    the edge.

    Args:
        flips: any of "horizontal" and "vertical", each for half of the pictures.
        quarter_turns: quarter turns, all four alike; a picture that is not square changes its sides.
        zoom: least and most magnification, about the picture's middle.
        shift: most that the picture is moved, as a fraction of its sides.
        crop: probability of an IoU crop.
        photometric: probability of a change of brightness, contrast, saturation and hue each.
        min_visibility: least part of a box that must be left, from 0 to 1.
        fill: shade, or three of them, of what lies outside of the picture.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> augment = BoxAugment(flips=(), zoom=(2.0, 2.0))
        >>> picture = torch.zeros(3, 20, 20, dtype=torch.uint8)
        >>> truth = Boxes(torch.tensor([[8.0, 8.0, 14.0, 12.0], [0.0, 0.0, 4.0, 4.0]]), ["a", "b"], (20, 20))
        >>> _, boxes = augment(picture, truth)
        >>> boxes.boxes.tolist(), boxes.labels
        ([[6.0, 6.0, 18.0, 14.0]], ('a',))
    """

    def __init__(
        self,
        *,
        flips: Sequence[str] = ("horizontal",),
        quarter_turns: bool = False,
        zoom: tuple[float, float] = (1.0, 1.0),
        shift: float = 0.0,
        crop: float = 0.0,
        photometric: float = 0.0,
        min_visibility: float = 0.3,
        fill: int | Sequence[int] = 0,
    ):
        if unknown := set(flips) - set(_FLIPS):
            raise InputError(f"BoxAugment: got flips {sorted(unknown)}, expected any of {', '.join(_FLIPS)}")
        if not 0 < zoom[0] <= zoom[1]:
            raise InputError(f"BoxAugment: got zoom {zoom}, expected 0 < least <= most")
        for name, value in (
            ("shift", shift),
            ("crop", crop),
            ("photometric", photometric),
            ("min_visibility", min_visibility),
        ):
            if not 0 <= value <= 1:
                raise InputError(f"BoxAugment: got {name} {value}, expected 0 to 1")
        steps: list[nn.Module] = []
        if photometric:
            steps.append(v2.RandomPhotometricDistort(p=photometric))
        if quarter_turns:
            steps.append(v2.RandomChoice([_QuarterTurn(quarters) for quarters in range(4)]))
        if "horizontal" in flips:
            steps.append(v2.RandomHorizontalFlip())
        if "vertical" in flips:
            steps.append(v2.RandomVerticalFlip())
        if crop:
            steps.append(v2.RandomApply([_IoUCrop()], p=crop))
        if tuple(zoom) != (1.0, 1.0) or shift:
            bilinear = v2.InterpolationMode.BILINEAR
            moved = (shift, shift) if shift else None
            steps.append(
                v2.RandomAffine(0, translate=moved, scale=tuple(zoom), interpolation=bilinear, fill=fill)
            )
        self.transforms = v2.Compose(steps) if steps else v2.Identity()
        self.min_visibility = min_visibility

    def __call__(self, image: Tensor, boxes: Boxes) -> tuple[Tensor, Boxes]:
        """The changed picture and its boxes.

        Args:
            image: [C, H, W] uint8, or floating point from 0 to 1; colours need three channels.
            boxes: on this picture.

        Raises:
            InputError: the boxes belong to a picture of another size.
        """
        if image.dim() != 3 or tuple(image.shape[1:]) != tuple(boxes.size):
            raise InputError(
                f"BoxAugment: got a picture {tuple(image.shape)} and boxes on {tuple(boxes.size)}, "
                "expected [C, H, W] and the same (height, width)"
            )
        # Not clamped before the end: how much of a box is left can only be seen then.
        given = _bounding_boxes(boxes.boxes, boxes.size)
        changed, moved = self.transforms(tv_tensors.Image(image), given)
        size = (int(changed.shape[1]), int(changed.shape[2]))
        return changed.as_subclass(Tensor), self._visible_boxes(moved.as_subclass(Tensor), boxes, size)

    def _visible_boxes(self, moved_K4: Tensor, original: Boxes, size: tuple[int, int]) -> Boxes:
        """The boxes that can still be seen, cut at the edges."""
        height, width = size
        most_4 = moved_K4.new_tensor([width, height, width, height])
        cut_K4 = torch.minimum(moved_K4.clamp(min=0), most_4)
        area_K, left_K = (
            (corners[:, 2:] - corners[:, :2]).clamp(min=0).prod(1) for corners in (moved_K4, cut_K4)
        )
        rows = ((left_K > 0) & (left_K >= self.min_visibility * area_K)).nonzero().squeeze(1)
        return replace(
            original,
            boxes=cut_K4[rows],
            labels=[original.labels[row] for row in rows.tolist()],
            size=size,
            scores=None if original.scores is None else original.scores[rows],
        )

    def for_modality(self, modality: str) -> Augment:
        """Return the augmentation for `SupervisedTask(augment=...)`.

        A target that is boxes moves along; boxes on the picture at another size, as its file has it and an
        encoder squeezes it, are brought to the size it is read at. Other targets stay as they are.

        Args:
            modality: of the image.

        Example:
            >>> augment = BoxAugment(flips=("horizontal",)).for_modality("image")
            >>> picture = torch.zeros(3, 8, 8, dtype=torch.uint8)
            >>> contents, boxes = augment({"image": picture, "text": "seven"}, Boxes.empty((480, 640)))
            >>> contents["text"], contents["image"].shape, boxes.size
            ('seven', torch.Size([3, 8, 8]), (8, 8))
        """

        def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
            picture = contents.get(modality)
            if picture is None:
                return contents, target
            size = (int(picture.shape[1]), int(picture.shape[2]))
            moves = isinstance(target, Boxes)
            changed, boxes = self(picture, target.scaled(size) if moves else Boxes.empty(size))
            return {**contents, modality: changed}, boxes if moves else target

        return augment


def _bounding_boxes(corners_K4: Tensor, size: tuple[int, ...]) -> Any:
    return tv_tensors.BoundingBoxes(corners_K4, format="XYXY", canvas_size=size, clamping_mode=None)


class _QuarterTurn(nn.Module):
    """Some quarter turns, exact to the pixel."""

    def __init__(self, quarters: int):
        super().__init__()
        self.quarters = quarters

    def forward(self, image: Any, boxes: Any) -> tuple[Any, Any]:
        turned = v2.functional.rotate(image, 90.0 * self.quarters, expand=True)
        if not len(boxes):  # torchvision 0.26 leaves the canvas of no boxes as it was
            return turned, _bounding_boxes(boxes, tuple(turned.shape[1:]))
        return turned, v2.functional.rotate(boxes, 90.0 * self.quarters, expand=True)


class _IoUCrop(nn.Module):
    """A crop that some box keeps enough of, brought back to the size that the picture had."""

    def __init__(self) -> None:
        super().__init__()
        self.crop = v2.RandomIoUCrop()

    def forward(self, image: Any, boxes: Any) -> tuple[Any, Any]:
        size = list(image.shape[1:])
        image, boxes = self.crop(image, boxes)
        return v2.functional.resize(image, size), v2.functional.resize(boxes, size)
