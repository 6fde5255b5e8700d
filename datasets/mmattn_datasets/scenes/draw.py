"""Scenes drawn by seed: several real handwritten digits on one noisy sheet, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn_datasets.digits.words import DIGIT_WORDS

__all__ = ["DIGITS", "PARTS", "Part", "Scene", "drawings_for_part", "make_scenes"]

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

# The label of each digit.
DIGITS: tuple[str, ...] = DIGIT_WORDS["English"]

_SPLIT_SHARES = (0.7, 0.1, 0.2)  # of each digit's drawings, for train, validation, test
_INK_THRESHOLD = 0.25  # of a drawing's darkest stroke: what is fainter lies outside of its box
_MAX_PLACEMENTS = 40  # places tried for a digit before the whole sheet is begun anew


@dataclass(frozen=True)
class Scene:
    """A picture of several handwritten digits.

    Args:
        id: part, seed and number: the same scene again with `make_scenes`.
        image: [size, size] uint8, bright ink on dark paper; encoders read it as it is.
        boxes: every digit, labelled "zero" to "nine".
        drawings: [K] rows of `sklearn.datasets.load_digits`, one a box.
    """

    id: str
    image: np.ndarray
    boxes: Boxes
    drawings: tuple[int, ...]

    @property
    def pixels(self) -> Tensor:
        """The picture as networks take it: uint8 [3, size, size]."""
        return torch.from_numpy(self.image).expand(3, -1, -1)


def make_scenes(
    count: int,
    part: Part = "train",
    *,
    seed: int = 0,
    size: int = 96,
    digits: tuple[int, int] = (2, 7),
    clutter: int = 5,
    noise: float = 12.0,
) -> list[Scene]:
    """Draw scenes: about a thousand a second, so training may have fresh ones in every epoch.

    A digit is scikit-learn's 8 x 8 handwriting, made 16 to 34 pixels high, stretched, turned by up to 12
    degrees, in its own ink. Boxes fit the ink, and a digit covers at most a tenth of another's box. Which
    drawings a part may use is fixed: whatever the seeds are, the handwriting of test scenes has never
    occurred in a training scene.

    Args:
        count: how many.
        part: whose handwriting: "train", "validation" or "test".
        seed: the same seed gives the same scenes, and other parts other ones.
        size: side of the square picture in pixels, at least 64.
        digits: least and most of them in a scene (64 pixels have room for 3, 96 for 7).
        clutter: most faint strokes that mean nothing.
        noise: standard deviation, of 255 shades.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> first, second = make_scenes(2, "test", seed=3)
        >>> first.image.shape, 2 <= len(first.boxes) <= 7, set(first.boxes.labels) <= set(DIGITS)
        ((96, 96), True, True)
    """
    low, high = digits
    room = size * size // 1300
    if part not in PARTS:
        raise InputError(f"make_scenes: got part {part!r}, expected {', '.join(PARTS)}")
    if size < 64:
        raise InputError(f"make_scenes: got size {size}, expected at least 64 pixels")
    if not 1 <= low <= high <= room:
        raise InputError(f"make_scenes: got digits {digits}, expected 1 to {room} at {size} pixels")
    generator = np.random.default_rng([seed, PARTS.index(part)])
    return [
        _scene(f"{part}-{seed}-{number:05d}", part, generator, size, digits, clutter, noise)
        for number in range(count)
    ]


def drawings_for_part(part: Part) -> np.ndarray:
    """Rows of `sklearn.datasets.load_digits` that a part may use, the same at all times."""
    return _parts()[PARTS.index(part)]


@lru_cache(maxsize=1)
def _drawings() -> tuple[np.ndarray, np.ndarray]:
    """[1797, 8, 8] uint8 from 0 to 255, and the [1797] digits."""
    shades, digits = load_digits(return_X_y=True)
    return (shades.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), digits


@lru_cache(maxsize=1)
def _parts() -> tuple[np.ndarray, ...]:
    """Each digit's drawings dealt to the parts, by a generator that nobody can seed."""
    digits = _drawings()[1]
    generator = np.random.default_rng(1797)
    dealt: list[list[np.ndarray]] = []
    for digit in range(10):
        own = generator.permutation(np.flatnonzero(digits == digit))
        borders = (np.cumsum(_SPLIT_SHARES[:-1]) * len(own)).round().astype(int)
        dealt.append(np.split(own, borders))
    return tuple(np.sort(np.concatenate(rows)) for rows in zip(*dealt, strict=True))


def _scene(
    id: str,
    part: Part,
    generator: np.random.Generator,
    size: int,
    digits: tuple[int, int],
    clutter: int,
    noise: float,
) -> Scene:
    count = int(generator.integers(digits[0], digits[1] + 1))
    rows = generator.choice(drawings_for_part(part), count, replace=False)
    while (placed := _place_digits(rows, generator, size)) is None:
        pass
    sheet = _background(generator, size)
    sheet = np.maximum(sheet, _clutter_strokes(generator, size, clutter))
    for patch, (left, top) in placed:
        height, width = patch.shape
        region = sheet[top : top + height, left : left + width]
        ink = generator.uniform(130, 245)
        region += (patch / 255) * np.maximum(ink - region, 0)
    sheet += generator.normal(0, noise, sheet.shape)
    shapes = [(left, top, left + patch.shape[1], top + patch.shape[0]) for patch, (left, top) in placed]
    labels = [DIGITS[digit] for digit in _drawings()[1][rows]]
    boxes = Boxes(torch.tensor(shapes, dtype=torch.float32), labels, (size, size))
    return Scene(id, sheet.clip(0, 255).astype(np.uint8), boxes, tuple(rows.tolist()))


def _place_digits(
    rows: np.ndarray, generator: np.random.Generator, size: int
) -> list[tuple[np.ndarray, tuple[int, int]]] | None:
    """Each drawing as a patch and its left top corner; None where one of them found no place."""
    placed: list[tuple[np.ndarray, tuple[int, int]]] = []
    for row in rows:
        patch = _digit_patch(_drawings()[0][row], generator)
        for left, top in generator.integers(
            0, [size - patch.shape[1], size - patch.shape[0]], (_MAX_PLACEMENTS, 2)
        ):
            if all(_overlap_fraction(patch, (left, top), other, corner) <= 0.1 for other, corner in placed):
                placed.append((patch, (int(left), int(top))))
                break
        else:
            return None
    return placed


def _digit_patch(drawing: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A drawing in another size, stretch and slant, cut to its ink: its edges are its box."""
    height = generator.uniform(16, 34)
    width = height * generator.uniform(0.8, 1.1)
    # A margin of two of the 64 cells' sides, so that nothing is cut off when it turns.
    padded = Image.fromarray(np.pad(drawing, 2)).resize(
        (round(width * 12 / 8), round(height * 12 / 8)), Image.Resampling.BICUBIC
    )
    turned = np.asarray(padded.rotate(generator.uniform(-12, 12), Image.Resampling.BILINEAR))
    inked = turned > _INK_THRESHOLD * turned.max()
    tall, wide = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return turned[tall[0] : tall[-1] + 1, wide[0] : wide[-1] + 1].astype(np.float64)


def _overlap_fraction(
    patch: np.ndarray, corner: Sequence[Any], other: np.ndarray, other_corner: Sequence[int]
) -> float:
    """The part of the smaller of two boxes that the other covers."""
    sides = []
    for axis in (0, 1):  # left and width, then top and height
        a, b = int(corner[axis]), int(other_corner[axis])
        sides.append(min(a + patch.shape[1 - axis], b + other.shape[1 - axis]) - max(a, b))
    return max(sides[0], 0) * max(sides[1], 0) / min(patch.size, other.size)


def _background(generator: np.random.Generator, size: int) -> np.ndarray:
    """A dark sheet, brighter to one side."""
    slope = generator.uniform(-25, 25, 2)
    ramp = np.linspace(-0.5, 0.5, size)
    return generator.uniform(25, 70) + slope[0] * ramp[:, None] + slope[1] * ramp


def _clutter_strokes(generator: np.random.Generator, size: int, most: int) -> np.ndarray:
    """Thin faint arcs, about as long as digits are high."""
    sheet = Image.new("L", (size, size))
    pen = ImageDraw.Draw(sheet)
    for _ in range(generator.integers(0, most + 1)):
        left, top = generator.integers(-10, size, 2)
        wide, high = generator.integers(6, 40, 2)
        start = int(generator.integers(0, 360))
        pen.arc(
            (left, top, left + wide, top + high),
            start,
            start + int(generator.integers(30, 120)),
            fill=int(generator.integers(80, 150)),
            width=int(generator.integers(1, 3)),
        )
    return np.asarray(sheet, dtype=np.float64)
