"""Draw scenes by seed: several real handwritten digits on one noisy background, with their boxes."""

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

_SPLIT_FRACTIONS = (0.7, 0.1, 0.2)  # fractions of each digit's drawings for train, validation, test
_INK_THRESHOLD = 0.25  # relative to a drawing's darkest stroke: boxes enclose what is darker
_MAX_PLACEMENTS = 40  # positions tried for a digit before the scene is restarted


@dataclass(frozen=True)
class Scene:
    """An image of several handwritten digits.

    Args:
        id: part, seed and number, from which `make_scenes` draws the same scene.
        image: [size, size] uint8, bright ink on a dark background; encoders read it directly.
        boxes: every digit, labelled "zero" to "nine".
        drawings: K rows of `sklearn.datasets.load_digits`, one per box.
    """

    id: str
    image: np.ndarray
    boxes: Boxes
    drawings: tuple[int, ...]

    @property
    def pixels(self) -> Tensor:
        """The image as a network input: uint8 [3, size, size]."""
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
    """Draw scenes, about a thousand a second, so that training can draw new ones in every epoch.

    A digit is scikit-learn's 8 x 8 handwriting, enlarged to a height of 16 to 34 pixels, stretched, rotated
    by up to 12 degrees, with an ink of its own. Boxes fit the ink, and a digit covers at most a tenth of
    another one's box. The drawings of each part are fixed: with any seed, the handwriting of test scenes
    never occurs in a training scene.

    Args:
        count: number of scenes.
        part: split of the drawings: "train", "validation" or "test".
        seed: the same seed gives the same scenes; those of other parts differ.
        size: side of the square image in pixels, at least 64.
        digits: minimum and maximum number of digits (64 pixels hold up to 3, 96 up to 7).
        clutter: maximum number of faint distractor strokes.
        noise: standard deviation of the noise, on a scale of 255.

    Returns:
        `count` scenes.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> first, second = make_scenes(2, "test", seed=3)
        >>> first.image.shape, 2 <= len(first.boxes) <= 7, set(first.boxes.labels) <= set(DIGITS)
        ((96, 96), True, True)
    """
    low, high = digits
    capacity = size * size // 1300
    if part not in PARTS:
        raise InputError(f"make_scenes: got part {part!r}, expected {', '.join(PARTS)}")
    if size < 64:
        raise InputError(f"make_scenes: got size {size}, expected at least 64 pixels")
    if not 1 <= low <= high <= capacity:
        raise InputError(f"make_scenes: got digits {digits}, expected 1 to {capacity} at {size} pixels")
    generator = np.random.default_rng([seed, PARTS.index(part)])
    return [
        _scene(f"{part}-{seed}-{number:05d}", part, generator, size, digits, clutter, noise)
        for number in range(count)
    ]


def drawings_for_part(part: Part) -> np.ndarray:
    """Return the rows of `sklearn.datasets.load_digits` that belong to a part; they never change.

    Args:
        part: "train", "validation" or "test".
    """
    return _parts()[PARTS.index(part)]


@lru_cache(maxsize=1)
def _drawings() -> tuple[np.ndarray, np.ndarray]:
    """Load the drawings [1797, 8, 8] as uint8 from 0 to 255, and their digits [1797]."""
    shades, digits = load_digits(return_X_y=True)
    return (shades.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8), digits


@lru_cache(maxsize=1)
def _parts() -> tuple[np.ndarray, ...]:
    """Divide each digit's drawings among the parts, with a fixed generator."""
    digits = _drawings()[1]
    generator = np.random.default_rng(1797)
    rows_by_digit: list[list[np.ndarray]] = []
    for digit in range(10):
        rows = generator.permutation(np.flatnonzero(digits == digit))
        borders = (np.cumsum(_SPLIT_FRACTIONS[:-1]) * len(rows)).round().astype(int)
        rows_by_digit.append(np.split(rows, borders))
    return tuple(np.sort(np.concatenate(parts)) for parts in zip(*rows_by_digit, strict=True))


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
    image = _background(generator, size)
    image = np.maximum(image, _clutter_strokes(generator, size, clutter))
    for patch, (left, top) in placed:
        height, width = patch.shape
        region = image[top : top + height, left : left + width]
        ink = generator.uniform(130, 245)
        region += (patch / 255) * np.maximum(ink - region, 0)
    image += generator.normal(0, noise, image.shape)
    corners = [(left, top, left + patch.shape[1], top + patch.shape[0]) for patch, (left, top) in placed]
    labels = [DIGITS[digit] for digit in _drawings()[1][rows]]
    boxes = Boxes(torch.tensor(corners, dtype=torch.float32), labels, (size, size))
    return Scene(id, image.clip(0, 255).astype(np.uint8), boxes, tuple(rows.tolist()))


def _place_digits(
    rows: np.ndarray, generator: np.random.Generator, size: int
) -> list[tuple[np.ndarray, tuple[int, int]]] | None:
    """Place each drawing as a patch with its left top corner; None where one does not fit."""
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
    """Resize, stretch and rotate a drawing, and crop it to its ink: its edges are its box."""
    height = generator.uniform(16, 34)
    width = height * generator.uniform(0.8, 1.1)
    # A margin of two cells keeps the rotated drawing inside.
    padded = Image.fromarray(np.pad(drawing, 2)).resize(
        (round(width * 12 / 8), round(height * 12 / 8)), Image.Resampling.BICUBIC
    )
    rotated = np.asarray(padded.rotate(generator.uniform(-12, 12), Image.Resampling.BILINEAR))
    is_ink = rotated > _INK_THRESHOLD * rotated.max()
    rows, columns = np.flatnonzero(is_ink.any(1)), np.flatnonzero(is_ink.any(0))
    return rotated[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)


def _overlap_fraction(
    patch: np.ndarray, corner: Sequence[Any], other: np.ndarray, other_corner: Sequence[int]
) -> float:
    """The fraction of the smaller of two boxes that the other covers."""
    sides = []
    for axis in (0, 1):  # horizontal, then vertical
        a, b = int(corner[axis]), int(other_corner[axis])
        sides.append(min(a + patch.shape[1 - axis], b + other.shape[1 - axis]) - max(a, b))
    return max(sides[0], 0) * max(sides[1], 0) / min(patch.size, other.size)


def _background(generator: np.random.Generator, size: int) -> np.ndarray:
    """A dark background with a brightness gradient."""
    slope = generator.uniform(-25, 25, 2)
    ramp = np.linspace(-0.5, 0.5, size)
    return generator.uniform(25, 70) + slope[0] * ramp[:, None] + slope[1] * ramp


def _clutter_strokes(generator: np.random.Generator, size: int, max_strokes: int) -> np.ndarray:
    """Thin faint arcs, about as long as digits are high."""
    sheet = Image.new("L", (size, size))
    pen = ImageDraw.Draw(sheet)
    for _ in range(generator.integers(0, max_strokes + 1)):
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
