from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from mmattn.encoders.base import Unreadable
from mmattn.encoders.clips import mel_power, read_clip

RATE = 8000
TONE = np.sin(2 * np.pi * 440 * np.arange(4001) / RATE).astype(np.float32) * 0.5


def encoded(samples: np.ndarray, kind: str, rate: int = RATE) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind)
    return buffer.getvalue()


class TestReading:
    @pytest.mark.parametrize(
        ("kind", "tolerance"), [("WAV", 1e-4), ("FLAC", 1e-4), ("OGG", 0.05), ("MP3", 0.05)]
    )
    def test_formats(self, kind: str, tolerance: float) -> None:
        clip = read_clip(encoded(TONE, kind), RATE)
        assert clip.dtype == torch.float32
        assert abs(len(clip) - len(TONE)) < 2000  # MP3 pads
        if kind != "MP3":
            np.testing.assert_allclose(clip.numpy(), TONE, atol=tolerance)

    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.flac"
        path.write_bytes(encoded(TONE, "FLAC"))
        np.testing.assert_allclose(read_clip(path, RATE).numpy(), TONE, atol=1e-4)

    def test_channels_are_averaged(self) -> None:
        both = np.stack([TONE, np.zeros_like(TONE)], axis=1)
        np.testing.assert_allclose(read_clip((both, RATE), RATE).numpy(), TONE / 2, atol=1e-7)

    def test_integers_are_of_full_scale(self) -> None:
        clip = read_clip((np.array([0, 16384, -32768], np.int16), RATE), RATE)
        assert clip.tolist() == [0.0, 0.5, -1.0]

    @pytest.mark.parametrize("wanted", [16000, 11025, 4000])
    def test_resampling_keeps_the_tone(self, wanted: int) -> None:
        clip = read_clip((TONE, RATE), wanted)
        assert len(clip) == -(-len(TONE) * wanted // RATE)
        expected = np.sin(2 * np.pi * 440 * np.arange(len(clip)) / wanted) * 0.5
        inner = slice(200, -200)
        np.testing.assert_allclose(clip.numpy()[inner], expected[inner], atol=5e-3)

    def test_what_comes_too_late_is_left_out(self) -> None:
        assert len(read_clip((TONE, RATE), RATE, max_seconds=0.25)) == 2000
        assert len(read_clip(encoded(TONE, "WAV"), RATE, max_seconds=0.25)) == 2000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no sound at all", "not a sound file in a known format"),
        (encoded(TONE, "FLAC")[:30], "not a sound file|damaged|no samples"),
        (encoded(np.zeros(0, np.float32), "WAV"), "the clip has no samples"),
        ((np.zeros(0, np.float32), RATE), "the clip has no samples"),
        ((np.zeros(100, np.float32), RATE), "the clip is silent"),
        ((np.full(100, np.nan), RATE), "samples that are not finite"),
        ((np.array([0.5, np.inf]), RATE), "samples that are not finite"),
        ((TONE, 0), "got a rate of 0"),
        ((TONE, 8000.5), "got a rate of 8000.5"),
        ((TONE.reshape(1, 1, -1), RATE), r"got samples \(1, 1, 4001\)"),
        ((TONE > 0, RATE), "bool, expected"),
        ("a.wav", "got str, expected a Path"),
        (TONE, "got ndarray, expected a Path, bytes, or"),
    ],
)
def test_refused_with_the_reason(content: Any, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read_clip(content, RATE)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"cannot open .*x\.wav.*: No such file"):
        read_clip(tmp_path / "x.wav", RATE)


def slaney_bands(rate: int, window: int, bands: int) -> np.ndarray:
    """Triangles on Slaney's scale (linear to 1 kHz, 27 steps an octave-and-a-bit above), of area 1."""
    highest = 15 + 27 * np.log(rate / 2 / 1000) / np.log(6.4)
    steps = np.linspace(0, highest, bands + 2)
    hertz = np.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))
    grid = np.arange(window // 2 + 1) * rate / window
    low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    triangles = np.minimum((grid - low) / (middle - low), (high - grid) / (high - middle)).clip(0)
    return triangles * 2 / (high - low)


def test_mel_power_is_what_its_definition_says() -> None:
    window, hop, bands = 200, 80, 23
    noise = np.random.default_rng(0).normal(size=797)
    padded = np.pad(noise, window // 2)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = np.stack([padded[start : start + window] * hann for start in range(0, 797 + 1, hop)])
    expected = np.abs(np.fft.rfft(frames)) ** 2 @ slaney_bands(RATE, window, bands).T
    found = mel_power(torch.from_numpy(noise).float(), RATE, bands=bands, hop=0.010, window=0.025)
    assert found.shape == (1 + 797 // 80, bands)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)
