"""`mmattn prepare flickr-trimodal --root RAW --out DIR`: photographs with written and spoken captions."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["CAPTIONS_PER_IMAGE", "FlickrTrimodal", "transcript_of"]

CAPTIONS_PER_IMAGE = 5  # the first one is the spoken one

_CAPTIONS_FILE = "captions.csv"
_REQUIRED = (_CAPTIONS_FILE, "images", "audio")
_TEST, _VALIDATION = 0.2, 0.1  # fractions of the photographs

_CARD: Mapping[str, Any] = {
    "name": "flickr-trimodal",
    "description": (
        "Photographs of people and dogs, five written captions each, and the first of these spoken by a "
        "speech synthesiser. The text of an item is its other four captions."
    ),
    "licence": "none stated; research only",
    "items": {
        "file": "items.parquet",
        "id": "item",
        "split": "split",
        "columns": {
            "image": "image",
            **{f"caption_{number}": "text" for number in range(1, CAPTIONS_PER_IMAGE)},
            "audio": "audio",
            "caption_0": "transcript",
            "transcript": "transcript",
        },
    },
}


class FlickrTrimodal:
    """Photographs with written captions and a spoken one.

    The spoken caption is separate from the other four, so that a written query never has the words of the
    clip. README.md in this folder describes the dataset and its source.
    """

    def prepare(
        self, root: str | os.PathLike[str] | None, out: str | os.PathLike[str], *, seed: int = 0
    ) -> Card:
        """Write items.parquet, rejected.csv and card.yaml; images and clips are not copied.

        Args:
            root: the folder with captions.csv, images/ and audio/.
            out: the folder to write to.
            seed: seed of the split by photograph: 20% test, 10% validation.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: a missing file or folder, or captions.csv is unreadable or mostly bad.
        """
        if root is None:
            raise InputError(f"flickr-trimodal: no root given, expected a folder with {', '.join(_REQUIRED)}")
        root, out = Path(root), Path(out)
        missing = [name for name in _REQUIRED if not (root / name).exists()]
        if missing:
            raise InputError(f"{root}: no {', '.join(missing)} here, expected {', '.join(_REQUIRED)}")
        rejected = RejectionLog()
        captions = _read_captions(root / _CAPTIONS_FILE, rejected)
        split = _split(list(captions), seed)
        rows = [
            {"item": name, "split": split[name], **_row(root, out, name, captions[name], rejected)}
            for name in captions
        ]
        columns = ["item", "split", *_CARD["items"]["columns"]]
        with atomic_path(out / "items.parquet") as temporary:
            pd.DataFrame(rows, columns=columns).to_parquet(temporary, index=False)
        rejected.write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def transcript_of(caption: str) -> str:
    """Convert a written caption to its transcript: lower case, no punctuation, hyphens as spaces.

    Args:
        caption: the caption as written.

    Example:
        >>> transcript_of("A red-haired boy 's kite , high up .")
        "a red haired boy's kite high up"
    """
    text = re.sub(r"[^a-z0-9' ]", "", caption.lower().replace("-", " ").replace(" '", "'"))
    return " ".join(word for part in text.split() if (word := part.strip("'")))


def _read_captions(path: Path, rejected: RejectionLog) -> dict[str, list[str]]:
    """Map the name of each photograph to its captions, in the order of the file."""
    captions: dict[str, list[str]] = {}
    num_bad, first_reason, total = 0, "", 0
    for total, (row, reason) in enumerate(_rows(path), start=1):
        name = Path(row[0].strip()).stem if row else ""
        if not reason and name and len(captions.get(name, [])) == CAPTIONS_PER_IMAGE:
            reason = (
                f"caption {CAPTIONS_PER_IMAGE + 1} of the photograph, expected at most {CAPTIONS_PER_IMAGE}"
            )
        if reason:
            rejected.add(_CAPTIONS_FILE, total, name, "", "row dropped", reason)
            num_bad, first_reason = num_bad + 1, first_reason or f"row {total}: {reason}"
        else:
            captions.setdefault(name, []).append(row[1].strip())
    if not total:
        raise InputError(f"{path}: no captions, expected rows of image,caption")
    rejected.check_limit(f"{path}: rows", num_bad, total, 0.5, first_reason)
    return captions


def _rows(path: Path) -> list[tuple[list[str], str]]:
    """Read every data row and the reason to reject it, "" for a valid row."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error}), expected CSV in UTF-8") from error
    if header != ["image", "caption"]:
        raise InputError(f"{path}: got the columns {', '.join(header)}, expected image, caption")
    return [(row, _row_problem(row)) for row in rows]


def _row_problem(row: Sequence[str]) -> str:
    if len(row) != 2:
        return f"got {len(row)} columns, expected 2: {','.join(row)!r}"
    if not row[0].strip():
        return "no image"
    return "" if transcript_of(row[1]) else f"got the caption {row[1]!r}, expected words"


def _split(names: Sequence[str], seed: int) -> dict[str, str]:
    """Assign each photograph to a split by a hash of its name, independently of the order of the file."""
    shuffled = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    test, held_out = round(_TEST * len(shuffled)), round((_TEST + _VALIDATION) * len(shuffled))
    parts = {name: "test" if index < test else "validation" for index, name in enumerate(shuffled[:held_out])}
    return {name: parts.get(name, "train") for name in names}


def _row(root: Path, out: Path, name: str, captions: Sequence[str], rejected: RejectionLog) -> dict[str, Any]:
    """The columns of one photograph, except its name and split."""
    if len(captions) < CAPTIONS_PER_IMAGE:
        reason = f"got {len(captions)} captions, expected {CAPTIONS_PER_IMAGE}"
        rejected.add(_CAPTIONS_FILE, 0, name, "caption", "kept", reason)
    return {
        "image": _card_path(root / "images" / f"{name}.jpg", out, name, "image", rejected),
        **{f"caption_{number}": caption for number, caption in enumerate(captions)},
        "audio": _card_path(root / "audio" / f"{name}.ogg", out, name, "audio", rejected),
        "transcript": transcript_of(captions[0]),
    }


def _card_path(path: Path, out: Path, name: str, column: str, rejected: RejectionLog) -> str | None:
    """Return the path for the card: relative to the card if inside its folder, otherwise absolute."""
    if not path.is_file():
        rejected.add(_CAPTIONS_FILE, 0, name, column, "cell dropped", f"no file {path}")
        return None
    path, folder = path.resolve(), out.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)
