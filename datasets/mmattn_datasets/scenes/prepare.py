"""`mmattn prepare scenes --out DIR`: scenes of handwritten digits, with written and spoken queries."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile
from PIL import Image

from mmattn.boxes import Boxes
from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn.files import atomic_path
from mmattn_datasets.scenes.draw import DIGITS, PARTS, Part, make_scenes
from mmattn_datasets.scenes.queries import AudioSource, FsddAudio, Query, SyntheticAudio, make_queries

__all__ = ["Scenes"]

_SPLIT_FRACTIONS: dict[Part, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}

_CARD = {
    "name": "scenes",
    "description": (
        "Scenes of several handwritten digits (scikit-learn), each asked for one digit in words and aloud. "
        "The handwriting is real; sheets, clutter and phrases are made; the spoken words are synthetic "
        "sound patterns, or recordings where their folder was given."
    ),
    "licence": "handwriting: UCI Optical Recognition of Handwritten Digits, CC BY 4.0; the rest: Apache-2.0",
    "items": {
        "file": "items.parquet",
        "id": "query",
        "split": "split",
        "columns": {
            "image": "image",
            "text": "text",
            "audio": "audio",
            "boxes": "boxes",
            "scene_boxes": "boxes",
            "digit": "label",
            "scene": "label",
            "speaker": "label",
        },
    },
}


class Scenes:
    """Images of several handwritten digits, with written and spoken queries ("the sevens") and boxes.

    One row is one query of one scene. Its `boxes` answer the query; `scene_boxes` are those of all digits in
    the image. The handwriting of test scenes never occurs in training scenes.
    """

    def prepare(
        self,
        root: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] = "scenes",
        *,
        items: int = 1200,
        queries_per_scene: int = 3,
        absent_rate: float = 0.2,
        size: int = 96,
        heldout_speakers: Sequence[str] = (),
        seed: int = 0,
    ) -> Card:
        """Write images/, sounds/, items as parquet, rejected.csv and card.yaml.

        Args:
            root: the Free Spoken Digit Dataset, whose recordings are not copied; None for synthetic sound
                patterns.
            out: the folder to write to.
            items: number of scenes; 70% for training, 10% for validation, 20% for test.
            queries_per_scene: queries per scene.
            absent_rate: probability that a query asks for a digit that its scene lacks.
            size: side of an image in pixels.
            heldout_speakers: with `root`: speakers of the test split, who occur in no other split.
            seed: the same seed gives the same files.

        Returns:
            The card, loaded and checked.

        Raises:
            InputError: an argument out of range, or no recordings at `root`.
        """
        if items < 10:
            raise InputError(f"scenes: got items {items}, expected at least 10 scenes")
        if heldout_speakers and root is None:
            raise InputError("scenes: got heldout_speakers and no root, expected the folder of recordings")
        out = Path(out)
        rows: list[dict[str, Any]] = []
        for part in PARTS:
            audio_source = SyntheticAudio() if root is None else FsddAudio(root, part, heldout_speakers)
            count = round(items * _SPLIT_FRACTIONS[part])
            rows += _write_part(
                part,
                count,
                audio_source,
                out,
                queries_per_scene=queries_per_scene,
                absent_rate=absent_rate,
                size=size,
                seed=seed,
            )
        with atomic_path(out / "items.parquet") as temporary:
            pd.DataFrame(rows).to_parquet(temporary, index=False)
        RejectionLog().write(out / "rejected.csv")
        return Card.load(Card.parse(_CARD).save(out))  # last: a folder with a card is complete


def _write_part(
    part: Part,
    count: int,
    audio_source: AudioSource,
    out: Path,
    *,
    queries_per_scene: int,
    absent_rate: float,
    size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Write the images and audio of one part, and return its rows of the table."""
    scenes = make_scenes(count, part, seed=seed, size=size, digits=(2, min(7, size * size // 1300)))
    for folder in ("images", "sounds"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        Image.fromarray(scene.image).save(out / f"images/{scene.id}.png")
    # The seed includes the part: otherwise all parts would have the same queries in the same order.
    queries = make_queries(
        scenes,
        audio_source,
        seed=3 * seed + PARTS.index(part),
        queries_per_scene=queries_per_scene,
        absent_rate=absent_rate,
    )
    return [_row(query, part, out) for query in queries]


def _row(query: Query, part: Part, out: Path) -> dict[str, Any]:
    name = f"{query.scene.id}-{DIGITS[query.digit]}"
    if query.recording.path is None:
        audio = f"sounds/{name}.flac"
        soundfile.write(out / audio, query.recording.samples, query.recording.rate, subtype="PCM_16")
    else:
        audio = str(query.recording.path.resolve())
    return {
        "query": name,
        "split": part,
        "image": f"images/{query.scene.id}.png",
        "text": query.phrase,
        "audio": audio,
        "boxes": _boxes_to_dicts(query.boxes),
        "scene_boxes": _boxes_to_dicts(query.scene.boxes),
        "digit": DIGITS[query.digit],
        "scene": query.scene.id,
        "speaker": query.recording.speaker,
        "drawings": list(query.scene.drawings),
    }


def _boxes_to_dicts(boxes: Boxes) -> list[dict[str, Any]]:
    return [
        {"label": label, "box": box} for label, box in zip(boxes.labels, boxes.boxes.tolist(), strict=True)
    ]
