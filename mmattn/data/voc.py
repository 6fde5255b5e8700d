"""Pascal VOC folders: a picture, an XML file of boxes, and lists of names as splits."""

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
    """Pictures with their boxes, from Annotations/, JPEGImages/ and ImageSets/Main/ in a folder.

    VOC counts pixels from 1 and includes both corners: its (1, 1, 640, 480) is the whole of a picture 640
    wide, which is (0, 0, 640, 480) here. A box whose corners fall together was not drawn: it has no area.

    Boxes belong to the picture as it is seen, that is, turned as EXIF says. Where a file states another
    size than that, its boxes were drawn on something else, and the picture is dropped and listed.

    Args:
        root: the folder.
        split: a list in ImageSets/Main without its ".txt"; None for all that have an XML file.
        labels: the names that may occur; None for any.
        bad_boxes: "drop" and list boxes that cannot be used, or "refuse" the data (see `BoxValidator`).
        rejected: where complaints go; left out, they are lost.
        reject_limit: largest fraction of the pictures that may be dropped.

    Returns:
        (path, boxes) of each picture, in the order of the list; pictures without boxes are there, too.

    Raises:
        InputError: no such folder or split, a label that is not known, or more bad pictures than the limit.

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
    found: list[tuple[Path, Boxes]] = []
    first = ""
    for row, name in enumerate(names, start=1):
        try:
            entries, stated, file = _read_annotation(root / "Annotations" / f"{name}.xml")
            picture = _find_image(root / "JPEGImages", name, file)
            size = upright_size(picture, stated)
        except BadCell as error:
            first = first or f"{name}: {error}"
            rejected.add(table, row, name, "", "row dropped", str(error))
            continue
        found.append((picture, checks.validate(entries, size, row, name)))
    rejected.check_limit(f"{root}: pictures", len(names) - len(found), len(names), reject_limit, first)
    checks.warn_if_unbalanced()
    return found


def _split_names(root: Path, split: str | None) -> list[str]:
    """Names of the pictures that belong to a split."""
    folder = root / ("ImageSets/Main" if split else "Annotations")
    if not folder.is_dir():
        raise InputError(f"{root}: no folder {folder.relative_to(root)}, expected the layout of Pascal VOC")
    if split is None:
        return sorted(path.stem for path in folder.glob("*.xml"))
    file = folder / f"{split}.txt"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.txt")))
        raise InputError(f"{root}: no split {split!r}, expected one of: {there}")
    # Lists of a class have a second column, 1 or -1.
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_annotation(path: Path) -> tuple[list[tuple[str, list[float]]], tuple[int, int] | None, str]:
    """Boxes, the stated (height, width), and the name of the picture's file.

    Raises:
        BadCell: no such file, or not one of VOC.
    """
    if not path.is_file():
        raise BadCell(f"no file Annotations/{path.name}")
    try:
        tree = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadCell(f"Annotations/{path.name} is damaged: {error}") from error
    width, height = (_parse_number(tree.findtext(f"size/{side}")) for side in ("width", "height"))
    stated = (int(height), int(width)) if width > 0 and height > 0 else None  # some tools write 0 x 0
    entries = []
    for thing in tree.findall("object"):
        label = (thing.findtext("name") or "").strip()
        left, top, right, bottom = (
            _parse_number(thing.findtext(f"bndbox/{corner}")) for corner in _CORNER_TAGS
        )
        if right > left and bottom > top:
            left, top = left - 1, top - 1
        entries.append((label, [left, top, right, bottom]))
    return entries, stated, Path((tree.findtext("filename") or "").strip()).name


def _find_image(folder: Path, name: str, file: str) -> Path:
    """The picture's own file: as the annotation calls it, or else called like the annotation."""
    candidates = [
        folder / each for each in (file, *(f"{name}{suffix}" for suffix in _IMAGE_SUFFIXES)) if each
    ]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _parse_number(text: str | None) -> float:
    """NaN where there is none, which `BoxValidator` then finds."""
    try:
        return float(text or "")
    except ValueError:
        return math.nan
