"""Read Pascal VOC folders: images, XML files of boxes, and lists of names as splits."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from mmattn.boxes import Boxes
from mmattn.data.box_checks import BadBoxPolicy, BoxValidator, upright_size
from mmattn.data.cell_parsing import BadCell
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError

__all__ = ["read_voc"]

_CORNER_TAGS = ("xmin", "ymin", "xmax", "ymax")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff")


def read_voc(
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    labels: Sequence[str] | None = None,
    bad_boxes: BadBoxPolicy = "drop",
    rejected: RejectionLog | None = None,
    reject_limit: float = 0.05,
) -> list[tuple[Path, Boxes]]:
    """Read images and their boxes from Annotations/, JPEGImages/ and ImageSets/Main/ in a folder.

    VOC counts pixels from 1 and includes both corners: its (1, 1, 640, 480) covers an image 640 wide, which
    is (0, 0, 640, 480) here. A box with equal corners has no area. Boxes refer to the upright image, rotated
    by its EXIF tag. Where a file states another size, the image is dropped and listed.

    Reference: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge".

    Args:
        root: the folder.
        split: name of a list in ImageSets/Main; None for all images with an XML file.
        labels: the allowed labels; None for any.
        bad_boxes: "drop" and list invalid boxes, or "refuse" the data (see `BoxValidator`).
        rejected: log of the rejections; None discards them.
        reject_limit: maximum fraction of the images that may be dropped.

    Returns:
        (path, boxes) of each image, in the order of the list, including images without boxes.

    Raises:
        InputError: no such folder or split, an unknown label, or more rejected images than the limit.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "Annotations").mkdir(), (root / "JPEGImages").mkdir()
        (None, None)
        >>> Image.new("RGB", (7, 5)).save(root / "JPEGImages/a.jpg")
        >>> box = "<xmin>1</xmin><ymin>2</ymin><xmax>7</xmax><ymax>5</ymax>"
        >>> _ = (root / "Annotations/a.xml").write_text(
        ...     f"<annotation><object><name>cat</name><bndbox>{box}</bndbox></object></annotation>")
        >>> ((path, boxes),) = read_voc(root)
        >>> path.name, boxes.boxes.tolist(), boxes.labels
        ('a.jpg', [[0.0, 1.0, 7.0, 5.0]], ('cat',))
    """
    root = Path(root)
    rejected = RejectionLog() if rejected is None else rejected
    table = f"ImageSets/Main/{split}.txt" if split else "Annotations"
    checks = BoxValidator(table, rejected, bad_boxes, labels)
    names = _split_names(root, split)
    images: list[tuple[Path, Boxes]] = []
    first_reason = ""
    for row, name in enumerate(names, start=1):
        try:
            entries, stated_size, file = _read_annotation(root / "Annotations" / f"{name}.xml")
            path = _find_image(root / "JPEGImages", name, file)
            size = upright_size(path, stated_size)
        except BadCell as error:
            first_reason = first_reason or f"{name}: {error}"
            rejected.add(table, row, name, "", "row dropped", str(error))
            continue
        images.append((path, checks.validate(entries, size, row, name)))
    rejected.check_limit(f"{root}: images", len(names) - len(images), len(names), reject_limit, first_reason)
    checks.warn_if_unbalanced()
    return images


def _split_names(root: Path, split: str | None) -> list[str]:
    """Read the names of the images of a split."""
    folder = root / ("ImageSets/Main" if split else "Annotations")
    if not folder.is_dir():
        raise InputError(f"{root}: no folder {folder.relative_to(root)}, expected the layout of Pascal VOC")
    if split is None:
        return sorted(path.stem for path in folder.glob("*.xml"))
    file = folder / f"{split}.txt"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise InputError(f"{root}: no split {split!r}, expected one of: {known}")
    # Lists of a single class have a second column, 1 or -1.
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_annotation(path: Path) -> tuple[list[tuple[str, list[float]]], tuple[int, int] | None, str]:
    """Read the boxes, the stated (height, width), and the file name of the image.

    Raises:
        BadCell: no such file, or a damaged one.
    """
    if not path.is_file():
        raise BadCell(f"no file Annotations/{path.name}")
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadCell(f"Annotations/{path.name} is damaged: {error}") from error
    width, height = (_parse_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    stated_size = (int(height), int(width)) if width > 0 and height > 0 else None  # some tools write 0 x 0
    entries = []
    for element in tree.findall("object"):
        label = (element.findtext("name") or "").strip()
        left, top, right, bottom = (
            _parse_number(element.findtext(f"bndbox/{corner}")) for corner in _CORNER_TAGS
        )
        if right > left and bottom > top:
            left, top = left - 1, top - 1
        entries.append((label, [left, top, right, bottom]))
    return entries, stated_size, Path((tree.findtext("filename") or "").strip()).name


def _find_image(folder: Path, name: str, file: str) -> Path:
    """Find the image file: the one named in the annotation, or one with the annotation's own name."""
    file_names = (file, *(f"{name}{suffix}" for suffix in _IMAGE_SUFFIXES))
    candidates = [folder / file_name for file_name in file_names if file_name]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _parse_number(text: str | None) -> float:
    """Parse a number; NaN where there is none, which `BoxValidator` rejects."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan
