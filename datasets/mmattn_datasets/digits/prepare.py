"""`mmattn prepare digits --out DIR`: a small generated dataset with three modalities, offline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from PIL import Image
from sklearn.datasets import load_digits

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn.files import atomic_path
from mmattn_datasets.digits.collectors import simulate_picks
from mmattn_datasets.digits.sounds import SAMPLE_RATE, synthesize, voices
from mmattn_datasets.digits.words import DIGIT_WORDS, phrase_digit

__all__ = ["Digits"]

_IMAGE_SIZE = 32  # pixels per side; scikit-learn's images have 8
_SPLIT_PATTERN = ("train",) * 7 + ("validation",) + ("test",) * 2

_CARD = {
    "name": "digits",
    "description": (
        "Handwritten digits (scikit-learn), number words in twelve languages, synthetic sound patterns. "
        "The handwriting is real; the words are composed, the sounds and the collectors are simulated."
    ),
    "licence": "handwriting: UCI Optical Recognition of Handwritten Digits, CC BY 4.0; the rest: Apache-2.0",
    "items": {
        "file": "items.parquet",
        "id": "item",
        "split": "split",
        "columns": {
            "image": "image",
            "text": "text",
            "audio": "audio",
            "digit": "label",
            "language": "label",
            "voice": "label",
            "drawing": "label",
        },
    },
    "interactions": {
        "file": "interactions.parquet",
        "user": "user",
        "item": "item",
        "time": "time",
        "split": "split",
    },
}


class Digits:
    """Items of one digit each: a real handwritten image, number words, a synthetic sound pattern.

    Any of the three may be absent, but never all. Simulated collectors pick items by taste. Items of the
    validation and test splits, and all interactions with them, are unseen in training.

    Example:
        >>> Digits().prepare(out="data/digits", items=200)  # doctest: +SKIP
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] = "digits",
        *,
        items: int = 1200,
        users: int = 300,
        missing_rate: float = 0.15,
        seed: int = 0,
    ) -> Card:
        """Write images/, sounds/, items and interactions as parquet, rejected.csv and card.yaml.

        Args:
            root: None, since there are no original files.
            out: the folder to write to.
            items: number of items, at most 1797, one per drawing.
            users: number of collectors.
            missing_rate: probability that a modality of an item is absent.
            seed: the same seed gives the same files.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: an argument out of range.
        """
        drawings, digits = load_digits(return_X_y=True)
        if root is not None:
            raise InputError(
                f"digits: got root {os.fspath(root)!r}, expected none: there are no original files"
            )
        _check_range("items", items, 100, len(drawings))
        _check_range("users", users, 1, 100_000)
        _check_range("missing_rate", missing_rate, 0, 0.9)
        out = Path(out)
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(len(drawings))[:items]
        table = _sample_items(digits[chosen], missing_rate, generator)
        table["drawing"] = chosen
        table["ink"] = np.where(table["image"].notna(), drawings[chosen].mean(1), np.nan)
        _write_images(table, drawings, out)
        _write_audio(table, out, generator)
        picks = simulate_picks(table, users, generator)
        picks["split"] = table["split"].to_numpy()[picks["item"]]
        _write(table.drop(columns="ink"), out / "items.parquet")
        _write(picks, out / "interactions.parquet")
        RejectionLog().write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def _check_range(name: str, value: float, min_value: float, max_value: float) -> None:
    if not min_value <= value <= max_value:
        raise InputError(f"digits: got {name} {value}, expected {min_value} to {max_value}")


def _sample_items(digits: np.ndarray, missing_rate: float, generator: np.random.Generator) -> pd.DataFrame:
    """Draw the table of items: their contents, and which modalities are absent."""
    count = len(digits)
    present = generator.random((count, 3)) >= missing_rate
    empty = ~present.any(1)
    present[empty, generator.integers(3, size=empty.sum())] = True
    image, text, audio = present.T
    language = _assign_evenly(digits, list(DIGIT_WORDS), generator)
    phrases = [phrase_digit(digit, name, generator) for digit, name in zip(digits, language, strict=True)]
    return pd.DataFrame(
        {
            "item": np.arange(count),
            "digit": digits,
            "split": _assign_evenly(digits, _SPLIT_PATTERN, generator),
            "image": _mask_missing(image, [f"images/{item:04d}.png" for item in range(count)]),
            "text": _mask_missing(text, phrases),
            "audio": _mask_missing(audio, [f"sounds/{item:04d}.flac" for item in range(count)]),
            "language": _mask_missing(text, language),
            "voice": _mask_missing(
                audio, _assign_evenly(digits, [voice.name for voice in voices()], generator)
            ),
        }
    )


def _assign_evenly(digits: np.ndarray, choices: Sequence[str], generator: np.random.Generator) -> list[str]:
    """Assign a choice to each item, with equal frequencies for every digit."""
    assigned = np.empty(len(digits), dtype=object)
    for digit in np.unique(digits):
        rows = np.flatnonzero(digits == digit)
        assigned[rows] = generator.permutation(np.resize(np.array(choices, dtype=object), len(rows)))
    return assigned.tolist()


def _mask_missing(present: np.ndarray, values: Sequence[str]) -> list[str | None]:
    return [value if is_present else None for is_present, value in zip(present, values, strict=True)]


def _write_images(table: pd.DataFrame, drawings: np.ndarray, out: Path) -> None:
    (out / "images").mkdir(parents=True, exist_ok=True)
    for name, drawing in table.loc[table["image"].notna(), ["image", "drawing"]].itertuples(index=False):
        shades = (drawings[drawing].reshape(8, 8) * (255 / 16)).round().astype(np.uint8)
        Image.fromarray(shades).resize((_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.BICUBIC).save(out / name)


def _write_audio(table: pd.DataFrame, out: Path, generator: np.random.Generator) -> None:
    (out / "sounds").mkdir(parents=True, exist_ok=True)
    voice_of = {voice.name: voice for voice in voices()}
    rows = table.loc[table["audio"].notna(), ["audio", "digit", "voice"]]
    for name, digit, voice in rows.itertuples(index=False):
        samples = synthesize(digit, voice_of[voice], generator)
        soundfile.write(out / name, samples, SAMPLE_RATE, subtype="PCM_16")


def _write(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
