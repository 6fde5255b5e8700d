"""`mmattn prepare flickr-trimodal --root RAW --out DIR`: photographs, captions and a spoken caption each."""

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

CAPTIONS_PER_IMAGE = 5  # a photograph; the first one is the one that is spoken

_CAPTIONS_FILE = "captions.csv"
_REQUIRED = (_CAPTIONS_FILE, "images", "audio")
_TEST, _VALIDATION = 0.2, 0.1  # shares of the photographs; validation comes out of the other 80%

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

    The caption that is spoken is kept apart from the other four, so that a written query never has the very
    words of the clip. See README.md beside this file for what the set is and where it comes from.
    """

    def prepare(
        self, root: str | os.PathLike[str] | None, out: str | os.PathLike[str], *, seed: int = 0
    ) -> Card:
        """Write items.parquet, rejected.csv and card.yaml; pictures and clips stay where they lie.

        Args:
            root: the folder with captions.csv, images/ and audio/.
            out: the folder to write to.
            seed: of the split, which goes by photograph: a fifth is test, a tenth validation.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: a file or folder is not there, captions.csv cannot be read, or is mostly bad.
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
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is whole


def transcript_of(caption: str) -> str:
    """What is heard of a written caption: lower case, without punctuation, hyphens as spaces.

    Example:
        >>> transcript_of("A red-haired boy 's kite , high up .")
        "a red haired boy's kite high up"
    """
    text = re.sub(r"[^a-z0-9' ]", "", caption.lower().replace("-", " ").replace(" '", "'"))
    return " ".join(word for part in text.split() if (word := part.strip("'")))


def _read_captions(path: Path, rejected: RejectionLog) -> dict[str, list[str]]:
    """Name of each photograph -> its captions, in the order of the file."""
    captions: dict[str, list[str]] = {}
    bad, first, total = 0, "", 0
    for total, (row, reason) in enumerate(_rows(path), start=1):
        name = Path(row[0].strip()).stem if row else ""
        if not reason and name and len(captions.get(name, [])) == CAPTIONS_PER_IMAGE:
            reason = (
                f"caption {CAPTIONS_PER_IMAGE + 1} of the photograph, expected at most {CAPTIONS_PER_IMAGE}"
            )
        if reason:
            rejected.add(_CAPTIONS_FILE, total, name, "", "row dropped", reason)
            bad, first = bad + 1, first or f"row {total}: {reason}"
        else:
            captions.setdefault(name, []).append(row[1].strip())
    if not total:
        raise InputError(f"{path}: no captions, expected rows of image,caption")
    rejected.check_limit(f"{path}: rows", bad, total, 0.5, first)
    return captions


def _rows(path: Path) -> list[tuple[list[str], str]]:
    """Every data row with what is wrong with it, "" where nothing is."""
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
    """The part of each photograph, by a hash of its name: another order of the file changes nothing."""
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    test, held_out = round(_TEST * len(drawn)), round((_TEST + _VALIDATION) * len(drawn))
    parts = {name: "test" if place < test else "validation" for place, name in enumerate(drawn[:held_out])}
    return {name: parts.get(name, "train") for name in names}


def _row(root: Path, out: Path, name: str, captions: Sequence[str], rejected: RejectionLog) -> dict[str, Any]:
    """The columns of one photograph beside its name and part."""
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
    """The path as the card wants it: relative to the card where it lies beside it, else absolute."""
    if not path.is_file():
        rejected.add(_CAPTIONS_FILE, 0, name, column, "cell dropped", f"no file {path}")
        return None
    whole = path.resolve()
    inside = whole.is_relative_to(out.resolve())
    return str(whole.relative_to(out.resolve()) if inside else whole)
