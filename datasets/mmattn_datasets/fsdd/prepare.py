"""`mmattn prepare fsdd --root RAW --out DIR`: digits spoken by six people."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.encoders.audio.audio_io import read_clip
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["DIGIT_WORDS", "Fsdd"]

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.(?:flac|wav)", re.IGNORECASE)
_AUDIO_SUFFIXES = (".flac", ".wav")
_SAMPLE_RATE = 8000  # of the recordings

_CARD = {
    "name": "fsdd",
    "description": "Free Spoken Digit Dataset: English digits, 50 recordings of each by each of six people.",
    "licence": "CC BY-SA 4.0 (Jackson and others, Free Spoken Digit Dataset)",
    "items": {
        "file": "items.parquet",
        "id": "item",
        "split": "split",
        "columns": {
            "audio": "audio",
            "digit": "label",
            "speaker": "label",
            "index": "label",
            "transcript": "transcript",
        },
    },
}


class Fsdd:
    """Recordings of single digits with the digit, the word and the speaker.

    The official test split is the first five recordings of each digit and speaker; validation is the next
    five. The label `speaker` allows splits by speaker.
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] = "fsdd",
        *,
        test: int = 5,
        validation: int = 5,
        reject_limit: float = 0.05,
    ) -> Card:
        """Write items.parquet, rejected.csv and card.yaml.

        The recordings are not copied: the items hold their absolute paths, or paths relative to the card for
        recordings inside `out`.

        Args:
            root: the folder of `{digit}_{speaker}_{index}.flac` (or .wav), or its parent with `recordings`.
            out: the folder to write to.
            test: number of recordings of each digit and speaker for the test, the first by index.
            validation: number of the following ones for validation.
            reject_limit: maximum fraction of bad recordings.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: no recordings, too many bad ones, or none left for training.
        """
        files = _recordings(root)
        out, rejected = Path(out), RejectionLog()
        rows: dict[str, dict[str, object]] = {}
        first_reason = ""
        for path in files:
            row, reason = _row(path, out, test, validation)
            if not reason and row["item"] in rows:
                reason = f"the same digit, speaker and index as {rows[str(row['item'])]['audio']}"
            if reason:
                first_reason = first_reason or f"{path.name}: {reason}"
                rejected.add(path.name, 0, "", "audio", "row dropped", reason)
            else:
                rows[str(row["item"])] = row
        rejected.check_limit(f"{root}: recordings", len(rejected), len(files), reject_limit, first_reason)
        if not any(row["split"] == "train" for row in rows.values()):
            raise InputError(
                f"fsdd: got no recording of index {test + validation} or more, expected some to train on"
            )
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / "items.parquet") as temporary:
            pd.DataFrame(list(rows.values())).to_parquet(temporary, index=False)
        rejected.write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def _recordings(root: str | os.PathLike[str] | None) -> list[Path]:
    """The audio files of the folder, sorted by name."""
    for folder in () if root is None else (Path(root), Path(root) / "recordings"):
        files = sorted(path for path in folder.glob("*") if path.suffix.lower() in _AUDIO_SUFFIXES)
        if files:
            return files
    raise InputError(
        f"fsdd: got root {root!s}, expected the folder of the recordings, "
        "{digit}_{speaker}_{index}.flac or .wav"
    )


def _row(path: Path, out: Path, test: int, validation: int) -> tuple[dict[str, object], str]:
    """Return the item of a recording, and the reason to reject it or ""."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        return {}, "expected {digit}_{speaker}_{index}.flac"
    try:
        read_clip(path, _SAMPLE_RATE)
    except Unreadable as error:
        return {}, str(error)
    digit, speaker, index = int(name["digit"]), name["speaker"], int(name["index"])
    split = "test" if index < test else "validation" if index < test + validation else "train"
    audio, folder = path.resolve(), out.resolve()
    return {
        "item": f"{digit}_{speaker}_{index}",
        "audio": str(audio.relative_to(folder) if audio.is_relative_to(folder) else audio),
        "digit": str(digit),
        "speaker": speaker,
        "index": index,
        "transcript": DIGIT_WORDS[digit],
        "split": split,
    }, ""
