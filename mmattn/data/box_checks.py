"""Which boxes can be used: a finite area on the picture. Others are dropped and listed, or refused."""

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
_EXIF_ORIENTATION = 0x0112  # EXIF; from 5 on the picture lies on its side


@dataclass
class BoxValidator:
    """The boxes of a data set's pictures, one picture after the other.

    A box without area, with numbers that are not finite, or wholly outside its picture cannot be used. One
    that is partly outside is cut at the picture's edge. A picture that is left without boxes stays: it
    shows what there is where nothing is. Names that are not known are refused, for they are a mistake in
    the names, not in single boxes.

    Args:
        table: the file that the boxes stand in, for complaints.
        rejected: where complaints go.
        bad_boxes: "drop" (and list) what cannot be used, and list what is cut; or "refuse" the data.
        labels: the names that may occur; None for any.

    Example:
        >>> checks = BoxValidator("boxes.json", RejectionLog())
        >>> found = checks.validate([("cat", [2, 3, 70, 12]), ("dog", [5, 5, 5, 9])], (24, 32), 1, "a.jpg")
        >>> found.boxes.tolist(), found.labels
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
        """The boxes of one picture that can be used.

        Args:
            entries: label, and left, top, right, bottom in pixels.
            size: (height, width) of the picture.
            row: where it stands in the file, for complaints.
            id: of the picture, for complaints.

        Raises:
            InputError: a label that is not known; with "refuse", a box that cannot be used or must be cut.
        """
        boxes, labels = [], []
        for number, (label, given) in enumerate(entries, start=1):
            place = f"box {number} of {len(entries)}"
            if self.labels is not None and label and label not in self.labels:
                raise InputError(
                    f"{self.table}: {id}: {place}: no label {label!r}.{did_you_mean(label, self.labels)}"
                )
            try:
                if not label:
                    raise BadCell("it has no label")
                corners = parse_corners(given)
                box = clip_box(corners, width=size[1], height=size[0])
            except BadCell as error:
                self._reject(row, id, "part dropped", f"{place}: {error}")
                continue
            if box != corners:
                edge = f"cut at the picture's edge, {size[1]} x {size[0]}"
                self._reject(row, id, "kept", f"{place}: {format_box(corners)} {edge}")
            boxes.append(box)
            labels.append(label)
        self.label_counts.update(labels)
        return Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, size)

    def warn_if_unbalanced(self) -> None:
        """Say that the classes are unbalanced, where they are: in the log and in the list."""
        if message := imbalance_warning(self.label_counts, "class"):
            logger.warning("%s: %s", self.table, message)
            self.rejected.add(self.table, 0, "", "boxes", "kept", message)

    def _reject(self, row: int, id: str, effect: Literal["part dropped", "kept"], reason: str) -> None:
        if self.bad_boxes == "refuse":
            raise InputError(f"{self.table}: {id}: {reason}")
        self.rejected.add(self.table, row, id, "boxes", effect, reason)


def parse_corners(values: Any) -> list[float]:
    """Four finite numbers.

    Raises:
        BadCell: it is something else.

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
    """The part of a box [left, top, right, bottom] that is on the picture.

    Raises:
        BadCell: it has no area, or none of it is there.

    Example:
        >>> clip_box([-3.0, 2.0, 5.0, 9.0], width=7, height=8)
        [0.0, 2.0, 5.0, 8.0]
    """
    left, top, right, bottom = box
    if right <= left or bottom <= top:
        raise BadCell(f"{format_box(box)} has no area, expected right > left and bottom > top")
    cut = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise BadCell(f"{format_box(box)} lies outside the picture, {width} x {height}")
    return cut


def format_box(box: Iterable[float]) -> str:
    """A box for a message."""
    return "[" + ", ".join(f"{side:g}" for side in box) + "]"


def stored_and_upright_size(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of a picture as its pixels are stored, and as it is seen; from the head of its file.

    The two differ where EXIF says that the camera lay on its side.

    Raises:
        BadCell: there is no such picture, or it cannot be read.
    """
    from PIL import Image

    if not path.is_file():
        raise BadCell(f"no file {path}")
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            on_its_side = picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except Exception as error:  # on damaged files the decoders raise nearly anything
        raise BadCell(f"the size of {path.name} cannot be read ({type(error).__name__})") from error
    stored = (height, width)
    return stored, stored[::-1] if on_its_side else stored


def upright_size(path: Path, stated_size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of a picture as it is seen, which boxes refer to.

    Args:
        path: of the picture.
        stated_size: the size that the file of the boxes gives; None where it gives none.

    Raises:
        BadCell: the picture cannot be read, or its boxes were drawn on something of another size.
    """
    stored, upright = stored_and_upright_size(path)
    if stated_size is not None and stated_size != upright:
        turned = ", turned as its EXIF says" if stated_size == stored else ""
        raise BadCell(
            f"its boxes were drawn on {stated_size[1]} x {stated_size[0]} pixels, but {path.name} "
            f"is seen with {upright[1]} x {upright[0]}{turned}"
        )
    return upright
