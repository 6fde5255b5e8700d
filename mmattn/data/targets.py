"""Parse cells with targets: several labels, a tag for each word, a number, boxes in an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mmattn.boxes import Boxes
from mmattn.data.box_checks import clip_box, format_box, parse_corners, stored_and_upright_size
from mmattn.data.cell_parsing import BadCell, is_empty, parse_json_list, parse_list, parse_number, parse_texts

__all__ = ["parse_boxes", "parse_labels", "parse_tags", "parse_value"]


def parse_labels(cell: Any, separator: str) -> list[str] | None:
    """Parse a list of labels, without duplicates.

    Args:
        cell: a list, JSON, or text with separators.
        separator: separator of text.

    Returns:
        The labels; an empty list is a valid target, None is an empty cell.

    Raises:
        BadCell: anything else.

    Example:
        >>> parse_labels("a|b|a", "|"), parse_labels([], "|"), parse_labels("[]", "|"), parse_labels("", "|")
        (['a', 'b'], [], [], None)
    """
    if is_empty(cell):
        return None
    return list(dict.fromkeys(parse_texts(parse_list(cell, separator))))


def parse_value(cell: Any) -> float | None:
    """Parse a number to predict.

    Args:
        cell: a number, or one as text.

    Returns:
        The number; None for an empty cell.

    Raises:
        BadCell: anything else, or a number that is not finite.

    Example:
        >>> parse_value("3.5"), parse_value(4), parse_value(None)
        (3.5, 4.0, None)
    """
    text = ", ".join(parse_texts(cell))
    return parse_number(text) if text else None


def parse_tags(cell: Any, separator: str, words: Sequence[str] | None) -> list[str] | None:
    """Parse the tags of words.

    Args:
        cell: a list, JSON, or text with separators.
        separator: separator of text.
        words: the words; None where they are missing.

    Returns:
        One tag per word, or None for an empty cell.

    Raises:
        BadCell: another number of tags than of words, or an empty tag.

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
    """Parse the boxes of an image and clip them to it; an empty list is an image without boxes.

    Args:
        cell: a list of {label, box}, or the same as JSON.
        image_path: the image file; None where it is missing.

    Returns:
        The boxes (None for an empty cell), and for each clipped or dropped box the effect ("kept" or "part
        dropped") and the reason.

    Raises:
        BadCell: not a list, or an image whose size cannot be read.
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
            label, corners = _parse_box_entry(entry)
            box = clip_box(corners, width, height)
        except BadCell as error:
            problems.append(("part dropped", f"box {number} of {len(entries)}: {error}"))
            continue
        if box != corners:
            note = f"{format_box(corners)} cut at the image's edge, {width} x {height}"
            problems.append(("kept", f"box {number} of {len(entries)}: {note}"))
        boxes.append(box)
        labels.append(label)
    values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Boxes(values, labels, (height, width)), problems


def _parse_box_entry(entry: Any) -> tuple[str, list[float]]:
    """Parse the label and corners of one box."""
    if not isinstance(entry, Mapping) or not {"label", "box"} <= set(entry):
        raise BadCell(f"got {entry!r}, expected label and box")
    label = ", ".join(parse_texts(entry["label"]))
    if not label:
        raise BadCell("it has no label")
    return label, parse_corners(entry["box"])
