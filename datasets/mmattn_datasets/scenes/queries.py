"""Queries of a scene: a phrase and a spoken word for one digit, and the boxes of the answer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from mmattn.boxes import Boxes
from mmattn.errors import InputError, did_you_mean
from mmattn_datasets.digits.sounds import SAMPLE_RATE, synthesize, voices
from mmattn_datasets.scenes.draw import DIGITS, PARTS, Part, Scene

__all__ = [
    "AudioSource",
    "FsddAudio",
    "Query",
    "Recording",
    "SyntheticAudio",
    "boxes_of_digit",
    "make_queries",
    "query_phrases",
]

_NAME = re.compile(r"([0-9])_([^_]+)_([0-9]+)\.(?:flac|wav)")
_PLURALS = ["zeros", "ones", "twos", "threes", "fours", "fives", "sixes", "sevens", "eights", "nines"]
_SINGULAR = ("{}", "every {}", "each {}", "the number {}", "find a {}", "where is a {}?")
_PLURAL = ("the {}", "all {}", "find all {}", "show me the {}", "where are the {}?", "{} only")


@dataclass(frozen=True)
class Recording:
    """One recording of a spoken digit.

    Args:
        samples: float32 [T] from -1 to 1.
        rate: samples per second.
        speaker: name of the speaker.
        path: its file, if any.
    """

    samples: np.ndarray
    rate: int
    speaker: str
    path: Path | None = None


class AudioSource(Protocol):
    """A source of spoken queries."""

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        """Draw a recording of a digit.

        Args:
            digit: 0 to 9.
            generator: the random generator.
        """


class SyntheticAudio:
    """Synthetic sound patterns, one per digit, in eight voices, with random variation.

    Example:
        >>> SyntheticAudio().sample(7, np.random.default_rng(0)).rate
        8000
    """

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        voice = voices()[generator.integers(len(voices()))]
        return Recording(synthesize(digit, voice, generator), SAMPLE_RATE, voice.name)


class FsddAudio:
    """Recordings of one part of the Free Spoken Digit Dataset.

    In its official split, indices 0 to 4 of each digit and speaker are for the test; 5 to 9 are used here for
    validation. Held-out speakers occur in the test part only, which then has no others.

    Args:
        root: the folder with `{digit}_{speaker}_{index}.flac` or .wav, or its parent with `recordings/`.
        part: "train", "validation" or "test".
        heldout_speakers: speakers of the test part only.

    Raises:
        InputError: an unknown part, no recordings, or no such speaker.
    """

    def __init__(self, root: str | os.PathLike[str], part: Part, heldout_speakers: Sequence[str] = ()):
        if part not in PARTS:
            raise InputError(f"FsddAudio: got part {part!r}, expected {', '.join(PARTS)}")
        self.root, self.part, self.heldout_speakers = Path(root), part, tuple(heldout_speakers)
        recordings = _recordings(self.root)
        speakers = {speaker for _, _, speaker, _ in recordings}
        for speaker in self.heldout_speakers:
            if speaker not in speakers:
                raise InputError(f"{self.root}: no speaker {speaker!r}.{did_you_mean(speaker, speakers)}")
        self._files: list[list[Path]] = [[] for _ in DIGITS]
        for path, digit, speaker, index in recordings:
            if self._belongs(speaker, index):
                self._files[digit].append(path)
        for digit, files in enumerate(self._files):
            if not files:
                raise InputError(f"{self.root}: no recording of {DIGITS[digit]} for the part {part!r}")

    def _belongs(self, speaker: str, index: int) -> bool:
        if self.heldout_speakers and self.part == "test":
            return speaker in self.heldout_speakers
        part = "test" if index < 5 else "validation" if index < 10 else "train"
        return speaker not in self.heldout_speakers and part == self.part

    @property
    def files(self) -> list[Path]:
        """The files of all recordings of this part."""
        return [path for files in self._files for path in files]

    @cached_property
    def _recording_cache(self) -> dict[Path, Recording]:
        return {}

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        files = self._files[digit]
        path = files[generator.integers(len(files))]
        if path not in self._recording_cache:  # at most 3,000 recordings of half a second
            import soundfile

            samples, rate = soundfile.read(path, dtype="float32")
            self._recording_cache[path] = Recording(samples, rate, path.stem.split("_")[1], path)
        return self._recording_cache[path]


def _recordings(root: Path) -> list[tuple[Path, int, str, int]]:
    """List the files with their digit, speaker and index."""
    folder = root / "recordings" if (root / "recordings").is_dir() else root
    recordings = [
        (path, int(name[1]), name[2], int(name[3]))
        for path in sorted(folder.glob("[0-9]_*_*"))
        if (name := _NAME.fullmatch(path.name))
    ]
    if not recordings:
        raise InputError(f"{root}: no recordings called {{digit}}_{{speaker}}_{{index}}.flac or .wav there")
    return recordings


@dataclass(frozen=True)
class Query:
    """A query for one digit in one scene.

    Args:
        scene: the scene.
        digit: 0 to 9, which the scene may lack.
        phrase: the written query, "the sevens" for example.
        recording: the spoken query.
        boxes: the answer, the scene's boxes of this digit, perhaps none.
    """

    scene: Scene
    digit: int
    phrase: str
    recording: Recording
    boxes: Boxes

    @property
    def clip(self) -> tuple[np.ndarray, int]:
        """The recording as an encoder input: (samples, rate)."""
        return self.recording.samples, self.recording.rate


def make_queries(
    scenes: Sequence[Scene],
    audio_source: AudioSource | None = None,
    *,
    seed: int = 0,
    queries_per_scene: int = 1,
    absent_rate: float = 0.2,
) -> list[Query]:
    """Draw written and spoken queries for different digits of each scene.

    Args:
        scenes: scenes of `make_scenes`.
        audio_source: source of the spoken words; by default synthetic sound patterns.
        seed: the same seed gives the same queries.
        queries_per_scene: queries per scene, at most 10.
        absent_rate: probability that a query asks for a digit that the scene lacks. Where no further present
            or absent digit is left, the query is of the other sort.

    Returns:
        The queries, scene by scene.

    Raises:
        InputError: an argument out of range.

    Example:
        >>> from mmattn_datasets.scenes.draw import make_scenes
        >>> query, *_ = make_queries(make_scenes(3), absent_rate=0)
        >>> set(query.boxes.labels) == {DIGITS[query.digit]}
        True
    """
    if not 1 <= queries_per_scene <= len(DIGITS):
        raise InputError(
            f"make_queries: got queries_per_scene={queries_per_scene}, expected 1 to {len(DIGITS)}"
        )
    if not 0 <= absent_rate <= 1:
        raise InputError(f"make_queries: got absent_rate={absent_rate}, expected 0 to 1")
    audio_source = SyntheticAudio() if audio_source is None else audio_source
    generator = np.random.default_rng([seed, 1])
    queries = []
    for scene in scenes:
        for digit in _choose_digits(scene, queries_per_scene, absent_rate, generator):
            phrase = str(generator.choice(query_phrases(digit)))
            recording = audio_source.sample(digit, generator)
            queries.append(Query(scene, digit, phrase, recording, boxes_of_digit(scene, digit)))
    return queries


def query_phrases(digit: int) -> list[str]:
    """Return the phrases that ask for a digit.

    Args:
        digit: 0 to 9.

    Example:
        >>> query_phrases(6)[:2], "the sixes" in query_phrases(6)
        (['six', 'every six'], True)
    """
    singular = [words.format(DIGITS[digit]) for words in _SINGULAR]
    return singular + [words.format(_PLURALS[digit]) for words in _PLURAL]


def boxes_of_digit(scene: Scene, digit: int) -> Boxes:
    """Select a scene's boxes of one digit.

    Args:
        scene: the scene.
        digit: 0 to 9.
    """
    rows = [row for row, label in enumerate(scene.boxes.labels) if label == DIGITS[digit]]
    corners = scene.boxes.boxes[torch.tensor(rows, dtype=torch.int64)]
    return Boxes(corners, [DIGITS[digit]] * len(rows), scene.boxes.size)


def _choose_digits(
    scene: Scene, queries_per_scene: int, absent_rate: float, generator: np.random.Generator
) -> list[int]:
    scene_digits = {DIGITS.index(label) for label in scene.boxes.labels}
    present, absent = (
        generator.permutation([digit for digit in range(10) if (digit in scene_digits) is wanted]).tolist()
        for wanted in (True, False)
    )
    digits: list[int] = []
    for is_absent in generator.random(queries_per_scene) < absent_rate:
        first, second = (absent, present) if is_absent else (present, absent)
        digits.append(int((first or second).pop()))
    return digits
