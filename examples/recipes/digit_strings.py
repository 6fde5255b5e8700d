"""Strings of spoken digits, joined from single recordings: one speaker each, short pauses and overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmattn.encoders.audio.audio_io import read_clip

__all__ = ["RATE", "WORDS", "Clip", "String", "by_speaker", "draw", "join", "recordings"]

RATE = 8000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROUND = 400  # samples that a string's length is a multiple of: Fourier transforms of such are fast
_FADE = 40  # samples: a recording that starts or stops at once would click


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording: float32 samples [n], what is said and by whom, and its number among the speaker's."""

    sound: Tensor
    digit: int
    speaker: str
    index: int


@dataclass(frozen=True, eq=False)
class String:
    """Several digits in one sound.

    Args:
        sound: float32 [n].
        digits: which.
        spans: (first, last) sample of each recording.
    """

    sound: Tensor
    digits: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        return " ".join(WORDS[digit] for digit in self.digits)


def recordings(root: Path) -> list[Clip]:
    """All recordings of the free spoken digit dataset, `{digit}_{speaker}_{index}.flac`, by name."""
    results = []
    for path in sorted((root / "recordings").glob("*.flac")):
        digit, speaker, index = path.stem.split("_")
        results.append(Clip(read_clip(path, RATE), int(digit), speaker, int(index)))
    return results


def by_speaker(clips: Sequence[Clip]) -> list[list[Clip]]:
    """The recordings of each speaker."""
    group: dict[str, list[Clip]] = {}
    for clip in clips:
        group.setdefault(clip.speaker, []).append(clip)
    return [group[speaker] for speaker in sorted(group)]


def draw(speakers: Sequence[Sequence[Clip]], generator: torch.Generator | None = None) -> String:
    """A random string of 3 to 7 digits of one speaker; generator None draws from torch's global one."""
    group = speakers[_integer(0, len(speakers) - 1, generator)]
    indices = torch.randint(len(group), (_integer(3, 7, generator),), generator=generator).tolist()
    return join([group[index] for index in indices], generator)


def join(clips: Sequence[Clip], generator: torch.Generator | None = None) -> String:
    """Recordings after each other: from 30 ms over each other to a pause of 200 ms, and as much around."""
    sounds = [_faded(clip.sound) for clip in clips]
    index, spans = _integer(0, RATE // 5, generator), []
    for sound in sounds:
        spans.append((index, index + len(sound)))
        index = max(index + 1, index + len(sound) + _integer(-RATE * 3 // 100, RATE // 5, generator))
    length = spans[-1][1] + _integer(0, RATE // 5, generator)
    total = torch.zeros(-(-length // _ROUND) * _ROUND)
    for sound, (first, last) in zip(sounds, spans, strict=True):
        total[first:last] += sound
    return String(total, tuple(clip.digit for clip in clips), tuple(spans))


def _faded(sound: Tensor) -> Tensor:
    ramp = torch.linspace(0, 1, _FADE)
    faded = sound.clone()
    faded[:_FADE] *= ramp
    faded[-_FADE:] *= ramp.flip(0)
    return faded


def _integer(low: int, high: int, generator: torch.Generator | None) -> int:
    """From low to high, both possible."""
    return int(torch.randint(low, high + 1, (), generator=generator))
