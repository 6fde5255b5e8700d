"""Read COCO's JSON of images, categories and boxes."""

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
    """Read images and their boxes from a COCO instances file and a folder of images.

    COCO's box is left, top, width, height from 0. A crowd (`iscrowd`) is not an object: it is dropped and
    listed. Boxes refer to the upright image, rotated by its EXIF tag. Where the file states another size, the
    image is dropped and listed.

    Reference: Lin et al. 2014, "Microsoft COCO: Common Objects in Context", arXiv:1405.0312.

    Args:
        file: the JSON with images, annotations and categories.
        image_folder: the folder that `file_name` is relative to.
        labels: the allowed category names; None for any.
        bad_boxes: "drop" and list invalid boxes, or "refuse" the data (see `BoxValidator`).
        rejected: log of the rejections; None discards them.
        reject_limit: maximum fraction of the images that may be dropped.

    Returns:
        (path, boxes) of each image, in the order of the file, including images without boxes.

    Raises:
        InputError: not a COCO file, an unknown category or label, an id of several images, or more rejected
            images than the limit.

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
    names = {category.get("id"): str(category.get("name", "")).strip() for category in content["categories"]}
    boxes_of = _boxes_by_image(content, names, file, rejected)
    images: list[tuple[Path, Boxes]] = []
    first_reason = ""
    for row, image in enumerate(content["images"], start=1):
        id = str(image.get("file_name") or image.get("id"))
        try:
            path = Path(image_folder) / id
            size = upright_size(path, _stated_size(image))
        except BadCell as error:
            first_reason = first_reason or f"{id}: {error}"
            rejected.add(file.name, row, id, "", "row dropped", str(error))
            continue
        images.append((path, checks.validate(boxes_of[image.get("id")], size, row, id)))
    total = len(content["images"])
    rejected.check_limit(f"{file}: images", total - len(images), total, reject_limit, first_reason)
    checks.warn_if_unbalanced()
    return images


def _read_sections(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the three lists of the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be opened: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from error
    sections = {}
    for name in ("images", "annotations", "categories"):
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InputError(f"{file}: no list {name!r} of mappings in it, expected COCO's instances")
        sections[name] = entries
    ids = [image.get("id") for image in sections["images"]]
    if duplicates := [id for id, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{file}: id {duplicates[0]!r} stands for several images, expected each id once")
    return sections


def _boxes_by_image(
    content: Mapping[str, list[dict[str, Any]]], names: Mapping[Any, str], file: Path, rejected: RejectionLog
) -> Mapping[Any, list[tuple[str, Any]]]:
    """Map the id of each image to the label and corners of each of its boxes."""
    boxes_of: dict[Any, list[tuple[str, Any]]] = defaultdict(list)
    known = {image.get("id") for image in content["images"]}
    for row, entry in enumerate(content["annotations"], start=1):
        category, image = entry.get("category_id"), entry.get("image_id")
        if category not in names:
            hint = did_you_mean(str(category), map(str, names))
            raise InputError(f"{file}: annotation {row}: no category {category!r}.{hint}")
        if image not in known:
            rejected.add(file.name, row, str(image), "image_id", "part dropped", "a box of no image")
        elif entry.get("iscrowd"):
            rejected.add(file.name, row, str(image), "iscrowd", "part dropped", "a crowd, not one object")
        else:
            boxes_of[image].append((names[category], _xywh_to_xyxy(entry.get("bbox"))))
    return boxes_of


def _xywh_to_xyxy(bbox: Any) -> Any:
    """Convert [left, top, width, height] to corners; `BoxValidator` rejects anything else."""
    try:
        left, top, width, height = bbox
        return [left, top, left + width, top + height]
    except (TypeError, ValueError):
        return bbox


def _stated_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """The (height, width) stated in the file, or None."""
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None
