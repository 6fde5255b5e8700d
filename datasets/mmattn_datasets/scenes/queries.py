"""What is asked of a scene: a phrase and a spoken word for one digit, and the boxes that answer it."""

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
        rate: samples a second.
        speaker: who says it.
        path: where it lies, where it is a file.
    """

    samples: np.ndarray
    rate: int
    speaker: str
    path: Path | None = None


class AudioSource(Protocol):
    """Where spoken queries come from."""

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        """A take of the digit, 0 to 9."""


class SyntheticAudio:
    """Synthetic sound patterns, one a digit, in eight voices; no two takes are the same.

    Example:
        >>> SyntheticAudio().sample(7, np.random.default_rng(0)).rate
        8000
    """

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        voice = voices()[generator.integers(len(voices()))]
        return Recording(synthesize(digit, voice, generator), SAMPLE_RATE, voice.name)


class FsddAudio:
    """Recordings of the Free Spoken Digit Dataset, each part its own.

    In its official split, indices 0 to 4 of each digit and speaker are the test part; we take 5 to 9 for
    validation. Speakers who are held out say nothing in training and validation, and all of the test.

    Args:
        root: the folder with `{digit}_{speaker}_{index}.flac` or .wav, or with `recordings/` in it.
        part: "train", "validation" or "test".
        heldout_speakers: speakers who are never heard in training.

    Raises:
        InputError: no recordings there, or no such speaker.
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
        own = "test" if index < 5 else "validation" if index < 10 else "train"
        return speaker not in self.heldout_speakers and own == self.part

    @property
    def files(self) -> list[Path]:
        """Every recording of this part."""
        return [path for files in self._files for path in files]

    @cached_property
    def _recording_cache(self) -> dict[Path, Recording]:
        return {}

    def sample(self, digit: int, generator: np.random.Generator) -> Recording:
        files = self._files[digit]
        path = files[generator.integers(len(files))]
        if (
            path not in self._recording_cache
        ):  # a part has at most 3,000 of half a second: they stay in memory
            import soundfile

            samples, rate = soundfile.read(path, dtype="float32")
            self._recording_cache[path] = Recording(samples, rate, path.stem.split("_")[1], path)
        return self._recording_cache[path]


def _recordings(root: Path) -> list[tuple[Path, int, str, int]]:
    """Each file with its digit, speaker and index."""
    folder = root / "recordings" if (root / "recordings").is_dir() else root
    found = [
        (path, int(name[1]), name[2], int(name[3]))
        for path in sorted(folder.glob("[0-9]_*_*"))
        if (name := _NAME.fullmatch(path.name))
    ]
    if not found:
        raise InputError(f"{root}: no recordings called {{digit}}_{{speaker}}_{{index}}.flac or .wav there")
    return found


@dataclass(frozen=True)
class Query:
    """One digit asked for in one scene.

    Args:
        scene: the picture and all that is in it.
        digit: 0 to 9, which the scene may lack.
        phrase: how it is asked for in words: "the sevens".
        recording: how it is asked for aloud.
        boxes: the answer: the scene's boxes of this digit; none where there is none.
    """

    scene: Scene
    digit: int
    phrase: str
    recording: Recording
    boxes: Boxes

    @property
    def clip(self) -> tuple[np.ndarray, int]:
        """The take as encoders read it: (samples, rate)."""
        return self.recording.samples, self.recording.rate


def make_queries(
    scenes: Sequence[Scene],
    audio_source: AudioSource | None = None,
    *,
    seed: int = 0,
    queries_per_scene: int = 1,
    absent_rate: float = 0.2,
) -> list[Query]:
    """Ask `queries_per_scene` scene for different digits, in words and aloud.

    Args:
        scenes: from `make_scenes`.
        audio_source: where the spoken words come from; left out, synthetic sound patterns.
        seed: the same seed asks the same.
        queries_per_scene: queries a scene, at most 10.
        absent_rate: probability that a digit is asked for which the scene lacks. Where a scene has no further
            digit of the sort that was drawn, one of the other sort is asked for.

    Raises:
        InputError: an argument out of its range.

    Example:
        >>> from mmattn_datasets.scenes.draw import make_scenes
        >>> query, *_ = make_queries(make_scenes(3), absent_rate=0)
        >>> set(query.boxes.labels) == {DIGITS[query.digit]}
        True
    """
    if not 1 <= queries_per_scene <= len(DIGITS):
        raise InputError(f"make_queries: got each={queries_per_scene}, expected 1 to {len(DIGITS)}")
    if not 0 <= absent_rate <= 1:
        raise InputError(f"make_queries: got absent={absent_rate}, expected 0 to 1")
    audio_source = SyntheticAudio() if audio_source is None else audio_source
    generator = np.random.default_rng([seed, 1])
    queries = []
    for scene in scenes:
        for digit in _choose_digits(scene, queries_per_scene, absent_rate, generator):
            phrase = str(generator.choice(query_phrases(digit)))
            take = audio_source.sample(digit, generator)
            queries.append(Query(scene, digit, phrase, take, boxes_of_digit(scene, digit)))
    return queries


def query_phrases(digit: int) -> list[str]:
    """The phrases that ask for a digit.

    Example:
        >>> query_phrases(6)[:2], "the sixes" in query_phrases(6)
        (['six', 'every six'], True)
    """
    singular = [words.format(DIGITS[digit]) for words in _SINGULAR]
    return singular + [words.format(_PLURALS[digit]) for words in _PLURAL]


def boxes_of_digit(scene: Scene, digit: int) -> Boxes:
    """The scene's boxes of one digit."""
    found = [place for place, label in enumerate(scene.boxes.labels) if label == DIGITS[digit]]
    rows = torch.tensor(found, dtype=torch.int64)
    return Boxes(scene.boxes.boxes[rows], [DIGITS[digit]] * len(found), scene.boxes.size)


def _choose_digits(
    scene: Scene, queries_per_scene: int, absent_rate: float, generator: np.random.Generator
) -> list[int]:
    there = {DIGITS.index(label) for label in scene.boxes.labels}
    sorts = [
        generator.permutation([digit for digit in range(10) if (digit in there) is present]).tolist()
        for present in (True, False)
    ]
    asked: list[int] = []
    for lacking in generator.random(queries_per_scene) < absent_rate:
        first, second = (sorts[1], sorts[0]) if lacking else sorts
        asked.append(int((first or second).pop()))
    return asked
