"""COCO's JSON of pictures, categories and boxes."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattn.boxes import Boxes
from mmattn.data.box_checks import BadBoxPolicy, BoxValidator, upright_size
from mmattn.data.cell_parsing import BadCell
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError, did_you_mean

__all__ = ["read_coco"]


def read_coco(
    file: str | os.PathLike[str],
    image_folder: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None = None,
    bad_boxes: BadBoxPolicy = "drop",
    rejected: RejectionLog | None = None,
    reject_limit: float = 0.05,
) -> list[tuple[Path, Boxes]]:
    """Pictures with their boxes, from an instances file and the folder of its pictures.

    COCO's box is left, top, width, height from 0. A crowd (`iscrowd`) is no object: it is dropped and listed.

    Boxes belong to the picture as it is seen, that is, turned as EXIF says. Where the file states another
    size than that, its boxes were drawn on something else, and the picture is dropped and listed.

    Args:
        file: the JSON with images, annotations and categories.
        image_folder: the folder that `file_name` is relative to.
        labels: the names of categories that may occur; None for any.
        bad_boxes: "drop" and list boxes that cannot be used, or "refuse" the data (see `BoxValidator`).
        rejected: where complaints go; left out, they are lost.
        reject_limit: largest fraction of the pictures that may be dropped.

    Returns:
        (path, boxes) of each picture, in the file's order; pictures without boxes are there, too.

    Raises:
        InputError: not such a file, a category or label that is not known, an id that stands for two
            pictures, or more bad pictures than the limit.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (7, 5)).save(folder / "a.png")
        >>> content = {
        ...     "images": [{"id": 1, "file_name": "a.png"}],
        ...     "categories": [{"id": 3, "name": "cat"}],
        ...     "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 2]}]}
        >>> _ = (folder / "all.json").write_text(json.dumps(content))
        >>> ((path, boxes),) = read_coco(folder / "all.json", folder)
        >>> path.name, boxes.boxes.tolist(), boxes.labels
        ('a.png', [[1.0, 2.0, 4.0, 4.0]], ('cat',))
    """
    file = Path(file)
    content = _read_sections(file)
    rejected = RejectionLog() if rejected is None else rejected
    checks = BoxValidator(file.name, rejected, bad_boxes, labels)
    names = {each.get("id"): str(each.get("name", "")).strip() for each in content["categories"]}
    boxes_of = _boxes_by_image(content, names, file, rejected)
    found: list[tuple[Path, Boxes]] = []
    first = ""
    for row, image in enumerate(content["images"], start=1):
        id = str(image.get("file_name") or image.get("id"))
        try:
            path = Path(image_folder) / id
            size = upright_size(path, _stated_size(image))
        except BadCell as error:
            first = first or f"{id}: {error}"
            rejected.add(file.name, row, id, "", "row dropped", str(error))
            continue
        found.append((path, checks.validate(boxes_of[image.get("id")], size, row, id)))
    images = len(content["images"])
    rejected.check_limit(f"{file}: pictures", images - len(found), images, reject_limit, first)
    checks.warn_if_unbalanced()
    return found


def _read_sections(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The three lists of the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from error
    found = {}
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{file}: no list {name!r} of mappings in it, expected COCO's instances")
        found[name] = entries
    ids = [image.get("id") for image in found["images"]]
    if twice := [id for id, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{file}: id {twice[0]!r} stands for several pictures, expected each id once")
    return found


def _boxes_by_image(
    content: Mapping[str, list[dict[str, Any]]], names: Mapping[Any, str], file: Path, rejected: RejectionLog
) -> Mapping[Any, list[tuple[str, Any]]]:
    """Id of a picture -> label and corners of each of its boxes."""
    boxes_of: dict[Any, list[tuple[str, Any]]] = defaultdict(list)
    known = {image.get("id") for image in content["images"]}
    for row, entry in enumerate(content["annotations"], start=1):
        category, image = entry.get("category_id"), entry.get("image_id")
        if category not in names:
            hint = did_you_mean(str(category), map(str, names))
            raise InputError(f"{file}: annotation {row}: no category {category!r}.{hint}")
        if image not in known:
            rejected.add(file.name, row, str(image), "image_id", "part dropped", "a box of no picture")
        elif entry.get("iscrowd"):
            rejected.add(file.name, row, str(image), "iscrowd", "part dropped", "a crowd, not one object")
        else:
            boxes_of[image].append((names[category], _xywh_to_xyxy(entry.get("bbox"))))
    return boxes_of


def _xywh_to_xyxy(bbox: Any) -> Any:
    """Corners of [left, top, width, height]; what is none is left to `BoxValidator` to find."""
    try:
        left, top, width, height = bbox
        return [left, top, left + width, top + height]
    except (TypeError, ValueError):
        return bbox


def _stated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (height, width) that the file states, where it does."""
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
