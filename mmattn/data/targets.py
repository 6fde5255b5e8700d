"""Cells that say what a model should answer: several labels, a tag for each word, boxes on a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmattn.boxes import Boxes
from mmattn.data.box_checks import clip_box, format_box, parse_corners, stored_and_upright_size
from mmattn.data.cell_parsing import BadCell, is_empty, parse_json_list, parse_list, parse_texts

__all__ = ["parse_boxes", "parse_labels", "parse_tags"]


def parse_labels(cell: Any, separator: str) -> list[str] | None:
    """Names without repetition; an empty list is an answer, too, and an empty cell is none.

    Example:
        >>> parse_labels("a|b|a", "|"), parse_labels([], "|"), parse_labels("[]", "|"), parse_labels("", "|")
        (['a', 'b'], [], [], None)
    """
    if is_empty(cell):
        return None
    return list(dict.fromkeys(parse_texts(parse_list(cell, separator))))


def parse_tags(cell: Any, separator: str, words: Sequence[str] | None) -> list[str] | None:
    """One tag a word, or None for an empty cell.

    Raises:
        BadCell: as many as words are expected, none of them empty.

    Example:
        >>> parse_tags("O B-place I-place", " ", ["in", "New", "York"])
        ['O', 'B-place', 'I-place']
    """
    tags = parse_list(cell, separator)
    if not tags:
        return None
    if words is None:
        raise BadCell(f"got {len(tags)} tags, but there are no words that can be used")
    if len(tags) != len(words):
        raise BadCell(f"got {len(tags)} tags, expected {len(words)}, one a word")
    texts = parse_texts(tags)
    if len(texts) != len(tags):
        raise BadCell(f"{len(tags) - len(texts)} of {len(tags)} tags are empty, expected a name a word")
    return texts


def parse_boxes(cell: Any, image_path: Path | None) -> tuple[Boxes | None, list[tuple[str, str]]]:
    """The boxes of a picture, cut at its edges; an empty list is a picture without any.

    Args:
        cell: a list of {label, box}, or that as JSON.
        image_path: its file.

    Returns:
        The boxes (None for an empty cell), and for each that was changed or dropped the effect ("kept" or
        "part dropped") and the reason.

    Raises:
        BadCell: not a list, or a picture whose size cannot be found.
    """
    if is_empty(cell):
        return None, []
    entries = parse_json_list(cell)
    if image_path is None:
        raise BadCell(f"got {len(entries)} boxes, but there is no image that can be used")
    height, width = stored_and_upright_size(image_path)[1]
    boxes, labels, problems = [], [], []
    for number, entry in enumerate(entries, start=1):
        try:
            label, given = _parse_box_entry(entry)
            box = clip_box(given, width, height)
        except BadCell as error:
            problems.append(("part dropped", f"box {number} of {len(entries)}: {error}"))
            continue
        if box != given:
            outside = f"box {number} of {len(entries)}: {format_box(given)} cut at the image's edge"
            problems.append(("kept", f"{outside}, {width} x {height}"))
        boxes.append(box)
        labels.append(label)
    values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Boxes(values, labels, (height, width)), problems


def _parse_box_entry(entry: Any) -> tuple[str, list[float]]:
    """Label and corners of one box."""
    if not isinstance(entry, Mapping) or not {"label", "box"} <= set(entry):
        raise BadCell(f"got {entry!r}, expected label and box")
    label = ", ".join(parse_texts(entry["label"]))
    if not label:
        raise BadCell("it has no label")
    return label, parse_corners(entry["box"])
