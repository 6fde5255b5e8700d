"""`mmattn prepare bccd --root RAW --out DIR`: blood cells with boxes, in the published splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from mmattn.boxes import Boxes
from mmattn.data.box_checks import BadBoxPolicy
from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.data.voc import read_voc
from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["BCCD", "LABELS"]

LABELS = ("Platelets", "RBC", "WBC")

_PARTS = {"train": "train", "val": "validation", "test": "test"}  # list in ImageSets/Main -> split

_CARD = {
    "name": "bccd",
    "description": "Blood smears with a box around each platelet, red (RBC) and white (WBC) blood cell.",
    "licence": "MIT (github.com/Shenggan/BCCD_Dataset)",
    "items": {
        "file": "items.parquet",
        "id": "picture",
        "split": "split",
        "columns": {"image": "image", "boxes": "boxes"},
    },
}


class BCCD:
    """The Blood Cell Count and Detection dataset: 364 microscope images of 640 x 480.

    Example:
        >>> BCCD().prepare("BCCD_Dataset", "data/bccd")  # doctest: +SKIP
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None,
        out: str | os.PathLike[str],
        *,
        bad_boxes: BadBoxPolicy = "drop",
    ) -> Card:
        """Write items as parquet, rejected.csv and card.yaml; the images are not copied.

        Args:
            root: the folder with Annotations/, ImageSets/ and JPEGImages/, or its parent with BCCD/.
            out: the folder to write to.
            bad_boxes: "drop" and list boxes without area, or "refuse" the data.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: no such folder, an unknown label, or a bad box with "refuse".
        """
        if root is None:
            raise InputError("bccd: no root given, expected the folder with Annotations and JPEGImages")
        root, out = Path(root), Path(out)
        if not (root / "Annotations").is_dir() and (root / "BCCD").is_dir():
            root = root / "BCCD"
        rejected = RejectionLog()
        rows: list[dict[str, Any]] = []
        for name, part in _PARTS.items():
            images = read_voc(root, name, labels=LABELS, bad_boxes=bad_boxes, rejected=rejected)
            rows += [_row(path, boxes, part) for path, boxes in images]
        with atomic_path(out / "items.parquet") as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)
        rejected.write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def _row(path: Path, boxes: Boxes, part: str) -> dict[str, Any]:
    entries = zip(boxes.labels, boxes.boxes.tolist(), strict=True)
    return {
        "picture": path.stem,
        "split": part,
        "image": str(path.resolve()),
        "boxes": [{"label": label, "box": box} for label, box in entries],
    }
