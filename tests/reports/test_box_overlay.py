"""Boxes on pictures: lines where they must be, colours for the colour-blind, names within the picture."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmattn.boxes import Boxes
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError
from mmattn.reports.box_overlay import _COLOURS, _box_captions, _Canvas, draw_boxes

GREY = np.full((60, 80, 3), 128, np.uint8)
ORANGE, BLUE = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)


def boxes(*corners: tuple[float, ...], labels: str = "a", scores: list[float] | None = None) -> Boxes:
    rows = torch.tensor(corners).float().reshape(-1, 4)
    return Boxes(rows, list(labels), (60, 80), None if scores is None else torch.tensor(scores))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def of(shown: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return (shown == colour).all(2)


def test_a_prediction_is_a_frame_at_its_place() -> None:
    shown = pixels(
        draw_boxes(GREY, predictions=boxes((20, 25, 60, 50), scores=[0.9]), long_side=320, legend=False)
    )
    assert shown.shape == (240, 320, 3)
    frame = of(shown, ORANGE)
    assert all(frame[row, column] for row, column in ((150, 80), (150, 239), (100, 160), (199, 160)))
    columns = np.nonzero(frame[100:200])[1]
    assert (columns.min(), columns.max()) == (80, 239)
    assert (shown[140:180, 100:220] == 128).all()  # within it, the picture is as it was
    assert (shown[150, 79] < 40).all()  # the dark rim
    assert (shown[150, 77] == 128).all()


def test_truth_is_dashed_and_both_are_seen_where_they_fit() -> None:
    same = (20, 25, 60, 50)
    truth = pixels(draw_boxes(GREY, boxes(same), long_side=320, legend=False))
    edge = of(truth, (255, 255, 255))[199, 80:240]
    assert 0.3 < edge.mean() < 0.7
    changes = np.flatnonzero(np.diff(edge.astype(int)))
    assert len(changes) > 10  # dashes
    both = pixels(draw_boxes(GREY, boxes(same), boxes(same, scores=[0.9]), long_side=320, legend=False))
    line = both[198:200, 90:230]
    assert of(line, (255, 255, 255)).any()
    assert of(line, ORANGE).any()


def test_only_sure_predictions_and_at_most_so_many() -> None:
    actual = boxes((5, 15, 25, 40), (45, 15, 75, 40), labels="ab", scores=[0.49, 0.51])
    shown = pixels(draw_boxes(GREY, predictions=actual, legend=False))
    assert not of(shown, ORANGE).any()
    assert of(shown, BLUE).any()
    every = pixels(draw_boxes(GREY, predictions=actual, score_threshold=0.0, legend=False))
    assert of(every, ORANGE).any()
    assert of(every, BLUE).any()
    entry = pixels(draw_boxes(GREY, predictions=actual, score_threshold=0.0, max_detections=1, legend=False))
    assert of(entry, BLUE).any()
    assert not of(entry, ORANGE).any()


def test_classes_keep_their_colour_when_they_are_named() -> None:
    actual = boxes((20, 25, 60, 50), labels="b", scores=[0.9])
    assert of(pixels(draw_boxes(GREY, predictions=actual)), ORANGE).any()
    assert of(pixels(draw_boxes(GREY, predictions=actual, labels=["a", "b"])), BLUE).any()


def test_colours_differ_in_brightness_or_are_far_apart_for_the_colour_blind() -> None:
    """Machado, Oliveira and Fernandes 2009, full deuteranopia: any two colours stay apart."""
    deuteranopia = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    )
    values = [
        deuteranopia @ ((np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255) ** 2.2)
        for colour in _COLOURS
    ]
    assert min(np.linalg.norm(a - b) for a, b in combinations(values, 2)) > 0.1


@pytest.mark.parametrize("side", [64, 200, 1280])
def test_small_and_large(side: int) -> None:
    png = draw_boxes(GREY, boxes((0, 0, 80, 60)), boxes((1, 1, 79, 59), scores=[0.8]), long_side=side)
    shown = Image.open(io.BytesIO(png))
    assert shown.format == "PNG"
    assert shown.width >= side
    assert shown.height > side * 3 / 4  # the legend is below


def test_names_stay_within_the_picture_and_avoid_each_other() -> None:
    sketch = _Canvas(Image.new("RGB", (300, 200)))
    for box in ((0, 0, 60, 30), (240, 170, 300, 200), (0, 170, 30, 200), (100, 70, 220, 140)):
        sketch.draw_label(box, "a long name 0.99", "#E69F00")
    for _ in range(3):
        sketch.draw_label((100, 70, 220, 140), "again", "#E69F00")
    assert all(0 <= x0 < x1 < 300 and 0 <= y0 < y1 < 200 for x0, y0, x1, y1 in sketch.occupied)
    for (a0, b0, a1, b1), (c0, d0, c1, d1) in combinations(sketch.occupied, 2):
        assert min(a1, c1) - max(a0, c0) <= 0 or min(b1, d1) - max(b0, d0) <= 0


def test_a_crowd_is_not_hidden_by_names() -> None:
    """The more boxes, the less is said of each: at most about an eighth of the picture is hidden."""
    few = boxes((20, 25, 60, 50), scores=[0.9])
    many = boxes(*[(x, y, x + 7, y + 7) for x in range(0, 72, 9) for y in range(0, 54, 9)], labels="a" * 48)
    sure = Boxes(many.boxes, many.labels, many.size, torch.full((48,), 0.9))
    some = Boxes(many.boxes[:16], many.labels[:16], many.size, torch.full((16,), 0.9))
    sketch = _Canvas(Image.new("RGB", (320, 240)))
    assert _box_captions(few, sketch, color_coded=True) == ["a 0.90"]
    assert _box_captions(some, _Canvas(Image.new("RGB", (160, 120))), color_coded=True) == [""] * 16
    assert _box_captions(some, sketch, color_coded=True) == ["0.90"] * 16
    assert _box_captions(sure, sketch, color_coded=True) == [""] * 48
    assert _box_captions(many, _Canvas(Image.new("RGB", (640, 480))), color_coded=True) == ["a"] * 48
    # Where colours do not tell the class, its name stays.
    assert _box_captions(some, sketch, color_coded=False) == ["a"] * 16
    assert _box_captions(sure, sketch, color_coded=False) == ["a"] * 48


@pytest.mark.parametrize("side", [200, 640])
def test_the_legend_has_lines_as_wide_as_the_picture(side: int) -> None:
    actual = boxes((5, 15, 25, 40), (45, 15, 75, 40), labels="ab", scores=[0.9, 0.9])
    shown = pixels(draw_boxes(GREY, actual, actual, long_side=side))
    bare = pixels(draw_boxes(GREY, actual, actual, long_side=side, legend=False))
    assert shown.shape[1] == side
    assert np.array_equal(shown[: len(bare)], bare)
    assert of(shown[len(bare) :], ORANGE).any()
    assert of(shown[len(bare) :], BLUE).any()


def test_the_size_of_boxes_need_not_be_that_of_the_picture() -> None:
    at_half = boxes((20, 25, 60, 50), scores=[0.9]).scaled((30, 40))
    assert draw_boxes(GREY, predictions=at_half) == draw_boxes(
        GREY, predictions=boxes((20, 25, 60, 50), scores=[0.9])
    )


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY).save(path)
    same = draw_boxes(GREY, boxes((20, 25, 60, 50)))
    assert draw_boxes(path, boxes((20, 25, 60, 50))) == same
    assert draw_boxes(torch.from_numpy(GREY).permute(2, 0, 1), boxes((20, 25, 60, 50))) == same
    assert draw_boxes(GREY, Boxes.empty((60, 80)), legend=False)[1:4] == b"PNG"
    with pytest.raises(InputError, match="predictions without scores"):
        draw_boxes(GREY, predictions=boxes((20, 25, 60, 50)))
    with pytest.raises(Unreadable):
        draw_boxes(b"none", boxes((20, 25, 60, 50)))


def test_the_same_boxes_give_the_same_picture() -> None:
    actual = boxes((5, 15, 25, 40), (45, 15, 75, 40), labels="ab", scores=[0.9, 0.9])
    assert draw_boxes(GREY, predictions=actual) == draw_boxes(GREY, predictions=actual)
