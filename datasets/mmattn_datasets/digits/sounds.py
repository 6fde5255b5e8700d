"""Ten synthetic sound patterns, one per digit, in voices that differ in pitch, tempo and timbre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["DIGIT_PATTERNS", "SAMPLE_RATE", "Note", "Voice", "synthesize", "voices"]

SAMPLE_RATE = 8000  # samples per second

Source = Literal["tone", "buzz", "noise", "rest"]


@dataclass(frozen=True)
class Note:
    """A part of a pattern.

    Args:
        beats: duration relative to the other notes.
        start: initial pitch in semitones above the voice's pitch.
        end: final pitch; the note glides from `start` to `end`.
        source: "tone" (the voice's harmonics), "buzz" (a square wave), "noise" or "rest".
    """

    beats: float
    start: float = 0
    end: float = 0
    source: Source = "tone"


def _notes(*semitones: float) -> tuple[Note, ...]:
    return tuple(Note(1, pitch, pitch) for pitch in semitones)


_REST = Note(0.6, source="rest")
_KNOCK = Note(0.5, source="noise")
_BEEP = Note(1, 14, 14)

# Digit -> pattern. They differ in contour, rhythm and source, not in pitch, which varies with the voice.
DIGIT_PATTERNS: tuple[tuple[Note, ...], ...] = (
    _notes(0),  # a steady tone
    (Note(1, 0, 14),),  # a glide up
    (Note(1, 14, 0),),  # a glide down
    (_KNOCK, _REST, _KNOCK, _REST, _KNOCK),  # three knocks
    (_BEEP, _REST, _BEEP),  # two beeps
    _notes(0, 7, 0, 7, 0, 7, 0, 7),  # a trill
    (Note(1, 0, 14), Note(1, 14, 0)),  # a siren
    (Note(2, source="noise"), *_notes(12, 12)),  # a hiss, then a tone
    _notes(0, 4, 7, 12),  # a chord, note by note
    (Note(3, -12, -12, source="buzz"),),  # a low buzz
)


@dataclass(frozen=True)
class Voice:
    """A synthetic voice.

    Args:
        name: name of the voice.
        pitch: fundamental frequency in hertz.
        seconds: mean duration of a pattern.
        brightness: amplitude of each harmonic relative to the one below.
        vibrato: depth of the vibrato in semitones.
    """

    name: str
    pitch: float
    seconds: float
    brightness: float
    vibrato: float


def voices() -> tuple[Voice, ...]:
    """Return the eight voices, which combine registers, tempos and timbres."""
    names = ("Ada", "Ben", "Cleo", "Dov", "Eve", "Finn", "Gul", "Hal")
    pitches = (220, 233, 262, 277, 311, 330, 349, 370)
    seconds = (0.50, 0.62, 0.70, 0.54, 0.66, 0.48, 0.58, 0.72)
    brightness = (0.2, 0.5, 0.35, 0.65, 0.25, 0.55, 0.4, 0.3)
    vibrato = (0.0, 0.2, 0.4, 0.1, 0.3, 0.0, 0.35, 0.15)
    return tuple(map(Voice, names, pitches, seconds, brightness, vibrato))


def synthesize(digit: int, voice: Voice, generator: np.random.Generator) -> np.ndarray:
    """Synthesise a pattern; tempo, pitch, loudness, start and background noise vary randomly.

    Args:
        digit: 0 to 9.
        voice: the voice.
        generator: the random generator.

    Returns:
        [T] float32 at 8 kHz, 0.4 to 0.8 seconds, within -1 to 1.

    Example:
        >>> clip = synthesize(3, voices()[0], np.random.default_rng(0))
        >>> clip.dtype, bool(0.4 * SAMPLE_RATE <= len(clip) <= 0.8 * SAMPLE_RATE)
        (dtype('float32'), True)
    """
    seconds = np.clip(voice.seconds * generator.uniform(0.9, 1.1), 0.45, 0.72)
    pitch = voice.pitch * 2 ** (generator.uniform(-1, 1) / 12)
    notes = DIGIT_PATTERNS[digit]
    length = int(seconds * SAMPLE_RATE)
    ends = np.cumsum([note.beats for note in notes])
    borders = np.round(np.concatenate([[0.0], ends / ends[-1]]) * length).astype(int)
    parts = [
        _synthesize_note(note, stop - start, pitch, voice, generator)
        for note, start, stop in zip(notes, borders[:-1], borders[1:], strict=True)
    ]
    before = np.zeros(int(generator.uniform(0, 0.06) * SAMPLE_RATE))
    clip = np.concatenate([before, *parts])
    clip *= generator.uniform(0.3, 0.9) / np.abs(clip).max()
    clip += generator.normal(0, generator.uniform(0.002, 0.02), len(clip))
    return np.clip(clip, -1, 1).astype(np.float32)


def _synthesize_note(
    note: Note, length: int, pitch: float, voice: Voice, generator: np.random.Generator
) -> np.ndarray:
    """Synthesise [length] float64, faded in and out to avoid clicks."""
    if note.source == "rest":
        return np.zeros(length)
    if note.source == "noise":
        wave = generator.normal(0, 0.6, length)
    else:
        time = np.arange(length) / SAMPLE_RATE
        vibrato = voice.vibrato * np.sin(2 * np.pi * 6 * time)
        semitones = np.linspace(note.start, note.end, length) + vibrato
        phase = 2 * np.pi * np.cumsum(pitch * 2 ** (semitones / 12)) / SAMPLE_RATE
        wave = np.sign(np.sin(phase)) if note.source == "buzz" else _harmonics(phase, voice.brightness)
    fade = min(80, length // 2)
    wave[:fade] *= np.linspace(0, 1, fade)
    wave[length - fade :] *= np.linspace(1, 0, fade)
    return wave


def _harmonics(phase: np.ndarray, brightness: float) -> np.ndarray:
    """Four harmonics, all below 4 kHz (half the sample rate) for every pattern and voice."""
    return sum((brightness**k * np.sin((k + 1) * phase) for k in range(4)), np.zeros_like(phase))
