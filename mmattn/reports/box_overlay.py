"""Boxes drawn on their picture: what is there dashed, what was found solid and in the colour of its class."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mmattn.boxes import Boxes
from mmattn.encoders.image.image_io import read_image
from mmattn.errors import InputError

__all__ = ["draw_boxes"]

# Okabe and Ito's colours, which colour-blind people tell apart (Wong 2011, "Color blindness").
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
_DARK, _LIGHT = "#111111", "#FFFFFF"
_MAX_LABEL_AREA = 0.12  # of a picture, by names
_DASH, _GAP = 3, 3  # in line widths

Rectangle = tuple[float, float, float, float]


def draw_boxes(
    image: Any,
    targets: Boxes | None = None,
    predictions: Boxes | None = None,
    *,
    labels: Sequence[str] = (),
    long_side: int = 640,
    score_threshold: float = 0.5,
    max_detections: int = 40,
    legend: bool = True,
) -> bytes:
    """A PNG of the picture with its boxes.

    Every line has a dark rim, so that it is seen on light and dark alike. A name and its score stand beside
    their box; in a crowd, where they would hide the picture, only the score or nothing at all, as far as the
    legend tells what the colours mean. Truth and prediction differ by the kind of their line, not by colour.

    Args:
        image: what `mmattn.encoders.image.image_io.read_image` reads, or a uint8 tensor [3, H, W].
        targets: drawn dashed; None leaves it out.
        predictions: predictions with scores, drawn solid; None leaves them out.
        labels: all classes, so that several pictures give the same colour to each; left out, those here.
        long_side: pixels of the longer side of the result, without the legend.
        score_threshold: score from which a prediction is drawn.
        max_detections: predictions drawn at most, the best ones.
        legend: lines below that say what colours and kinds of line mean.

    Raises:
        Unreadable: the picture cannot be read.
        InputError: predictions without scores.

    Example:
        >>> import numpy as np, torch
        >>> boxes = Boxes(torch.tensor([[8.0, 8.0, 24.0, 24.0]]), ["seven"], (32, 48))
        >>> draw_boxes(np.zeros((32, 48), np.uint8), boxes)[1:4]
        b'PNG'
    """
    if isinstance(image, Tensor):
        image = image.permute(1, 2, 0).cpu().numpy()
    canvas = read_image(image)
    scale = long_side / max(canvas.size)
    canvas = canvas.resize(
        (max(round(canvas.width * scale), 1), max(round(canvas.height * scale), 1)),
        Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC,
    )
    size = (canvas.height, canvas.width)
    named = labels or sorted({label for boxes in (targets, predictions) if boxes for label in boxes.labels})
    targets = None if targets is None else targets.scaled(size)
    predictions = (
        None
        if predictions is None
        else _top_predictions(predictions.scaled(size), score_threshold, max_detections)
    )
    colours = {label: _COLOURS[index % len(_COLOURS)] for index, label in enumerate(named)}
    sketch = _Canvas(canvas)
    if predictions is not None:
        for box, label in zip(predictions.boxes.tolist(), predictions.labels, strict=True):
            sketch.rectangle(box, colours.get(label, _LIGHT), dashed=False)
    if targets is not None:
        for box in targets.boxes.tolist():
            sketch.rectangle(box, _LIGHT, dashed=True)
    shown = targets if predictions is None else predictions
    told = legend and len(colours) <= len(_COLOURS)
    if shown is not None:
        for box, text, label in zip(
            shown.boxes.tolist(), _box_captions(shown, sketch, told), shown.labels, strict=True
        ):
            sketch.draw_label(box, text, colours.get(label, _LIGHT))
    result = sketch.image
    if legend:
        entries: list[tuple[str, str]] = []
        if shown is not None and told:
            entries += [(label, colour) for label, colour in colours.items() if label in shown.labels]
        entries += [("dashed: what is there", "")] * (targets is not None)
        entries += [(f"solid: found, score {score_threshold:g} or more", "")] * (predictions is not None)
        result = _add_legend(result, entries, sketch.font)
    buffer = io.BytesIO()
    result.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _top_predictions(predictions: Boxes, score_threshold: float, max_detections: int) -> Boxes:
    """The surest predictions, the least sure one first so that the surest lies on top."""
    if predictions.scores is None:
        raise InputError("draw_boxes: got predictions without scores, expected scores from 0 to 1")
    rows = [
        row
        for row in predictions.scores.argsort(descending=True).tolist()
        if predictions.scores[row] >= score_threshold
    ]
    rows = rows[:max_detections][::-1]
    return Boxes(
        predictions.boxes[rows],
        [predictions.labels[row] for row in rows],
        predictions.size,
        predictions.scores[rows],
    )


def _box_captions(boxes: Boxes, canvas: _Canvas, color_coded: bool) -> list[str]:
    """What stands beside each box, as much as does not hide the picture.

    Args:
        boxes: the boxes.
        canvas: what they are drawn on.
        color_coded: is the class known from the colour alone?
    """
    names, nothing = list(boxes.labels), [""] * len(boxes)
    choices = [names]
    if boxes.scores is not None:
        scores = [f"{score:.2f}" for score in boxes.scores.tolist()]
        both = [f"{label} {score}" for label, score in zip(names, scores, strict=True)]
        choices = [both, scores if color_coded else names]
    most = _MAX_LABEL_AREA * canvas.image.width * canvas.image.height
    for texts in choices:
        if sum(map(canvas.label_area, texts)) <= most:
            return texts
    return nothing if color_coded else names


class _Canvas:
    """Draws on a picture and remembers where names stand.

    Args:
        image: is changed.
    """

    def __init__(self, image: Image.Image):
        self.image = image
        self.pen = ImageDraw.Draw(image)
        longer = max(image.size)
        self.line_width = max(2, round(longer / 300))
        self.font = ImageFont.load_default(max(12, longer / 46))
        self.occupied: list[Rectangle] = []

    def rectangle(self, box: Sequence[float], colour: str, *, dashed: bool) -> None:
        """A frame around a box, with a dark rim of one pixel on either side."""
        # Thinner where it is dashed: on a prediction that fits, both can be seen.
        edges = list(_edges(box, max(1, self.line_width // 2) if dashed else self.line_width))
        if dashed:
            edges = [piece for edge in edges for piece in _dashes(edge, self.line_width)]
        for left, top, right, bottom in edges:
            self.pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=_DARK)
        for edge in edges:
            self.pen.rectangle(edge, fill=colour)

    def draw_label(self, box: Sequence[float], text: str, colour: str) -> None:
        """A name on a patch of its colour, where it hides as little as possible; "" for none."""
        if not text:
            return
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font=self.font)
        wide, high = right - left + 6, bottom - top + 6
        corner = min(self._label_positions(box, wide, high), key=self._overlap_area)
        self.occupied.append(corner)
        self.pen.rectangle(corner, fill=colour, outline=_DARK)
        self.pen.text(
            (corner[0] + 3 - left, corner[1] + 3 - top), text, fill=_text_color(colour), font=self.font
        )

    def label_area(self, text: str) -> float:
        """Pixels that a name hides."""
        left, top, right, bottom = self.pen.textbbox((0, 0), text, font=self.font)
        return (right - left + 6) * (bottom - top + 6)

    def _label_positions(self, box: Sequence[float], width: float, height: float) -> list[Rectangle]:
        """Above, below and inside, on the left and on the right; all within the picture."""
        left, top, right, bottom = box
        inner = self.line_width
        corners = [
            (x, y)
            for y in (top - height - inner, bottom + inner, top + inner, bottom - height - inner)
            for x in (left, right - width)
        ]
        rectangles: list[Rectangle] = []
        for x, y in corners:
            x = min(max(x, 0), self.image.width - 1 - width)
            y = min(max(y, 0), self.image.height - 1 - height)
            rectangles.append((round(x), round(y), round(x + width), round(y + height)))
        return rectangles

    def _overlap_area(self, candidate: Rectangle) -> float:
        """Pixels of other names under a place."""
        return sum(_intersection_area(candidate, other) for other in self.occupied)


def _edges(box: Sequence[float], line_width: int) -> Iterator[tuple[int, int, int, int]]:
    """The four sides of a frame as filled rectangles, their corners included; the frame lies on the box."""
    left, top, right, bottom = (round(value) for value in box)
    right, bottom = max(right - 1, left + line_width), max(bottom - 1, top + line_width)
    inner = line_width - 1
    yield left, top, right, top + inner
    yield left, bottom - inner, right, bottom
    yield left, top, left + inner, bottom
    yield right - inner, top, right, bottom


def _dashes(edge: tuple[int, int, int, int], line_width: int) -> Iterator[tuple[int, int, int, int]]:
    """A side as dashes."""
    left, top, right, bottom = edge
    dash, step = _DASH * line_width, (_DASH + _GAP) * line_width
    if right - left >= bottom - top:
        for start in range(left, right + 1, step):
            yield start, top, min(start + dash - 1, right), bottom
    else:
        for start in range(top, bottom + 1, step):
            yield left, start, right, min(start + dash - 1, bottom)


def _intersection_area(a: Rectangle, b: Rectangle) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)


def _text_color(colour: str) -> str:
    """Black or white, whichever is read better."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else _LIGHT


def _add_legend(image: Image.Image, entries: Sequence[tuple[str, str]], font: Any) -> Image.Image:
    """The picture with a strip below it: texts, some after a patch of their colour, in lines of its width."""
    high = int(font.getbbox("Hg")[3]) + 6
    placed: list[tuple[float, int, str, str]] = []
    x, line = 6.0, 0
    for text, colour in entries:
        wide = font.getlength(text) + (high if colour else 0)
        if placed and x + wide > image.width - 6:
            x, line = 6.0, line + 1
        placed.append((x, line, text, colour))
        x += wide + high
    result = Image.new("RGB", (image.width, image.height + (line + 1) * high + 6), _LIGHT)
    result.paste(image, (0, 0))
    pen = ImageDraw.Draw(result)
    for x, line, text, colour in placed:
        top = image.height + 3 + line * high
        if colour:
            pen.rectangle((x, top + 3, x + high - 8, top + high - 5), fill=colour, outline=_DARK)
        pen.text((x + (high if colour else 0), top), text, fill=_DARK, font=font)
    return result
