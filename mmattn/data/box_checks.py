"""Validate boxes: a finite area inside the image. Others are dropped and listed, or refused."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from mmattn.boxes import Boxes
from mmattn.data.cell_parsing import BadCell
from mmattn.data.class_balance import imbalance_warning
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError, did_you_mean

__all__ = [
    "BadBoxPolicy",
    "BoxValidator",
    "clip_box",
    "format_box",
    "parse_corners",
    "stored_and_upright_size",
    "upright_size",
]

logger = logging.getLogger(__name__)

BadBoxPolicy = Literal["drop", "refuse"]
SIDES = ("left", "top", "right", "bottom")
_EXIF_ORIENTATION = 0x0112  # EXIF tag; values from 5 on mean a rotation by 90 degrees


@dataclass
class BoxValidator:
    """Validate the boxes of a dataset's images, image by image.

    A box is invalid if it has no area, numbers that are not finite, or lies completely outside its image. A
    box that is partly outside is clipped. An image without valid boxes is kept as a negative example. Unknown
    labels are refused, since they are a mistake in the label names rather than in single boxes.

    Args:
        table: the file with the boxes, for messages.
        rejected: log of the rejections.
        bad_boxes: "drop" (and list) invalid boxes, and list clipped ones; or "refuse" the data.
        labels: the allowed labels; None for any.

    Raises:
        InputError: an unknown value of `bad_boxes`.

    Example:
        >>> checks = BoxValidator("boxes.json", RejectionLog())
        >>> boxes = checks.validate([("cat", [2, 3, 70, 12]), ("dog", [5, 5, 5, 9])], (24, 32), 1, "a.jpg")
        >>> boxes.boxes.tolist(), boxes.labels
        ([[2.0, 3.0, 32.0, 12.0]], ('cat',))
        >>> [(row.effect, row.reason) for row in checks.rejected][1]
        ('part dropped', 'box 2 of 2: [5, 5, 5, 9] has no area, expected right > left and bottom > top')
    """

    table: str
    rejected: RejectionLog
    bad_boxes: BadBoxPolicy = "drop"
    labels: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.bad_boxes not in get_args(BadBoxPolicy):
            raise InputError(
                f"bad_boxes: got {self.bad_boxes!r}, expected {', '.join(get_args(BadBoxPolicy))}"
            )
        self.label_counts: Counter[str] = Counter()

    def validate(
        self, entries: Sequence[tuple[str, Sequence[Any]]], size: tuple[int, int], row: int, id: str
    ) -> Boxes:
        """Validate the boxes of one image.

        Args:
            entries: label, and left, top, right, bottom in pixels, of each box.
            size: (height, width) of the image.
            row: row of the image in the file, for messages.
            id: id of the image, for messages.

        Returns:
            The valid boxes.

        Raises:
            InputError: an unknown label; with "refuse", an invalid or clipped box.
        """
        boxes, labels = [], []
        for number, (label, values) in enumerate(entries, start=1):
            where = f"box {number} of {len(entries)}"
            if self.labels is not None and label and label not in self.labels:
                raise InputError(
                    f"{self.table}: {id}: {where}: no label {label!r}.{did_you_mean(label, self.labels)}"
                )
            try:
                if not label:
                    raise BadCell("it has no label")
                corners = parse_corners(values)
                box = clip_box(corners, width=size[1], height=size[0])
            except BadCell as error:
                self._reject(row, id, "part dropped", f"{where}: {error}")
                continue
            if box != corners:
                note = f"cut at the image's edge, {size[1]} x {size[0]}"
                self._reject(row, id, "kept", f"{where}: {format_box(corners)} {note}")
            boxes.append(box)
            labels.append(label)
        self.label_counts.update(labels)
        return Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, size)

    def warn_if_unbalanced(self) -> None:
        """Warn of unbalanced classes, in the log and in the list of rejections."""
        if message := imbalance_warning(self.label_counts, "class"):
            logger.warning("%s: %s", self.table, message)
            self.rejected.add(self.table, 0, "", "boxes", "kept", message)

    def _reject(self, row: int, id: str, effect: Literal["part dropped", "kept"], reason: str) -> None:
        if self.bad_boxes == "refuse":
            raise InputError(f"{self.table}: {id}: {reason}")
        self.rejected.add(self.table, row, id, "boxes", effect, reason)


def parse_corners(values: Any) -> list[float]:
    """Parse the four corners of a box.

    Args:
        values: left, top, right, bottom.

    Returns:
        Four finite numbers.

    Raises:
        BadCell: anything else.

    Example:
        >>> parse_corners((1, 2, 30.5, 4))
        [1.0, 2.0, 30.5, 4.0]
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 4:
        raise BadCell(f"got {values!r}, expected four numbers: {', '.join(SIDES)}")
    numbers = [
        float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
        for value in values
    ]
    if not all(math.isfinite(number) for number in numbers):
        raise BadCell(f"got {values!r}, expected four finite numbers: {', '.join(SIDES)}")
    return numbers


def clip_box(box: Sequence[float], width: int, height: int) -> list[float]:
    """Clip a box to its image.

    Args:
        box: left, top, right, bottom.
        width: width of the image in pixels.
        height: height of the image in pixels.

    Returns:
        The clipped box.

    Raises:
        BadCell: the box has no area, or lies outside the image.

    Example:
        >>> clip_box([-3.0, 2.0, 5.0, 9.0], width=7, height=8)
        [0.0, 2.0, 5.0, 8.0]
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise BadCell(f"{format_box(box)} has no area, expected right > left and bottom > top")
    clipped = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        raise BadCell(f"{format_box(box)} lies outside the image, {width} x {height}")
    return clipped


def format_box(box: Iterable[float]) -> str:
    """Format a box for a message.

    Args:
        box: left, top, right, bottom.
    """
    return "[" + ", ".join(f"{side:g}" for side in box) + "]"


def stored_and_upright_size(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Read the size of an image from the header of its file, as stored and upright.

    The two differ where EXIF declares a rotation by 90 degrees.

    Args:
        path: the image file.

    Returns:
        (height, width) of the stored pixels, and of the upright image.

    Raises:
        BadCell: there is no such file, or it cannot be read.
    """
    from PIL import Image

    if not path.is_file():
        raise BadCell(f"no file {path}")
    try:
        with Image.open(path) as image:
            width, height = image.size
            rotated = image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except Exception as error:  # decoders can raise anything on damaged files
        raise BadCell(f"the size of {path.name} cannot be read ({type(error).__name__})") from error
    stored = (height, width)
    return stored, stored[::-1] if rotated else stored


def upright_size(path: Path, stated_size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size of the upright image, to which boxes refer.

    Args:
        path: the image file.
        stated_size: (height, width) in the annotation; None where it has none.

    Returns:
        (height, width) of the upright image.

    Raises:
        BadCell: the image cannot be read, or the annotation has another size.
    """
    stored, upright = stored_and_upright_size(path)
    if stated_size is not None and stated_size != upright:
        rotated = ", turned as its EXIF says" if stated_size == stored else ""
        raise BadCell(
            f"its boxes were drawn on {stated_size[1]} x {stated_size[0]} pixels, but {path.name} "
            f"is seen with {upright[1]} x {upright[0]}{rotated}"
        )
    return upright
