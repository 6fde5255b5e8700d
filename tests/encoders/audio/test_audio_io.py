from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from mmattn.encoders.audio.audio_io import Resampler, iter_clip, mel_center_frequencies, mel_power, read_clip
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError

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
        (b"no sound at all", "not an audio file in a known format"),
        (encoded(TONE, "FLAC")[:30], "not an audio file|damaged|no samples"),
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
    actual = mel_power(torch.from_numpy(noise).float(), RATE, n_mels=bands, hop=0.010, window=0.025)
    assert actual.shape == (1 + 797 // 80, bands)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_the_centres_are_where_the_bands_are_highest() -> None:
    weights = slaney_bands(RATE, 8000, 23)
    np.testing.assert_allclose(mel_center_frequencies(RATE, 23).numpy(), weights.argmax(1), atol=1.0)


class TestPieces:
    @pytest.mark.parametrize("wanted", [8000, 16000, 11025, 5003])
    @pytest.mark.parametrize("seconds", [0.013, 0.1, 7.0])
    def test_put_together_they_are_the_whole(self, wanted: int, seconds: float) -> None:
        noise = np.random.default_rng(1).normal(size=7919).astype(np.float32) * 0.1
        pieces = list(iter_clip((noise, RATE), wanted, chunk_seconds=seconds))
        assert all(len(piece) for piece in pieces)
        together = torch.cat(pieces)
        torch.testing.assert_close(together, read_clip((noise, RATE), wanted), atol=1e-6, rtol=0)
        expected = resample_poly(noise.astype(np.float64), wanted, RATE)
        np.testing.assert_allclose(together.numpy(), expected, atol=1e-6)

    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
    def test_files_come_in_pieces_of_the_length_asked_for(self, kind: str) -> None:
        stereo = np.stack([TONE, -TONE / 2], axis=1)
        pieces = list(iter_clip(encoded(stereo, kind), RATE, chunk_seconds=0.2))
        assert [len(piece) for piece in pieces] == [1600, 1600, 801]
        np.testing.assert_allclose(torch.cat(pieces).numpy(), TONE / 4, atol=0.02)

    @settings(max_examples=25, deadline=None)
    @given(
        st.sampled_from([(8000, 16000), (48000, 8000), (44100, 16000), (7, 3)]),
        st.lists(st.integers(0, 700), min_size=1, max_size=6),
    )
    def test_a_stream_s_cuts_do_not_show(self, rates: tuple[int, int], sizes: list[int]) -> None:
        samples = np.random.default_rng(sum(sizes)).normal(size=sum(sizes))
        resampler = Resampler(*rates)
        out = [resampler.push(part) for part in np.split(samples, np.cumsum(sizes)[:-1])]
        together = np.concatenate([*out, resampler.finish()])
        expected = resample_poly(samples, rates[1], rates[0]) if len(samples) else samples
        np.testing.assert_allclose(together, expected, atol=1e-9)

    def test_the_good_part_of_a_file_comes_before_its_fault(self) -> None:
        noise = np.random.default_rng(0).normal(size=8 * RATE).astype(np.float32) * 0.1
        damaged, pieces = encoded(noise, "FLAC"), list[torch.Tensor]()
        stream = iter_clip(damaged[: len(damaged) // 2], RATE, chunk_seconds=1.0)
        with pytest.raises(Unreadable, match=r"cut off after 3 s"):
            pieces.extend(iter(lambda: next(stream), None))
        assert [len(piece) for piece in pieces] == [RATE] * 3

    def test_silence_is_for_the_caller_to_judge(self) -> None:
        assert [len(piece) for piece in iter_clip((np.zeros(100), RATE), RATE)] == [100]

    def test_refused(self) -> None:
        with pytest.raises(InputError, match="got chunk_seconds=0"):
            next(iter_clip((TONE, RATE), RATE, chunk_seconds=0))
        with pytest.raises(Unreadable, match="no samples"):
            next(iter_clip((np.zeros((0, 2)), RATE), RATE))


class TestBadFiles:
    """What other people's recordings are like."""

    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
    def test_stereo(self, kind: str) -> None:
        clip = read_clip(encoded(np.stack([TONE, np.zeros_like(TONE)], axis=1), kind), RATE)
        np.testing.assert_allclose(clip.numpy(), TONE / 2, atol=0.03)

    @pytest.mark.parametrize("rate", [8000, 48000])
    def test_telephone_and_studio_rates(self, rate: int) -> None:
        seconds = np.arange(rate) / rate
        clip = read_clip(encoded(np.sin(2 * np.pi * 440 * seconds) * 0.5, "FLAC", rate), 16000)
        expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000) * 0.5
        np.testing.assert_allclose(clip.numpy()[300:-300], expected[300:-300], atol=5e-3)

    def test_silent(self) -> None:
        with pytest.raises(Unreadable, match="the clip is silent"):
            read_clip(encoded(np.zeros(800, np.float32), "FLAC"), RATE)

    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
    def test_no_samples(self, kind: str) -> None:
        with pytest.raises(Unreadable, match="the clip has no samples|the file is empty"):
            read_clip(encoded(np.zeros(0, np.float32), kind), RATE)

    @pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "AIFF", "AU"])
    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_cut_off(self, kind: str, share: float) -> None:
        noise = np.random.default_rng(0).normal(size=5 * RATE).astype(np.float32) * 0.1
        whole = encoded(noise, kind)
        assert len(read_clip(whole, RATE)) == 5 * RATE
        with pytest.raises(Unreadable, match=r"cut off"):
            read_clip(whole[: int(share * len(whole))], RATE)

    def test_a_part_before_the_cut_can_be_read(self) -> None:
        noise = np.random.default_rng(0).normal(size=5 * RATE).astype(np.float32) * 0.1
        whole = encoded(noise, "WAV")
        clip = read_clip(whole[: len(whole) // 2], RATE, max_seconds=2.0)
        np.testing.assert_allclose(clip.numpy(), noise[: 2 * RATE], atol=1e-4)

    @pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_a_wav_written_into_a_pipe_is_whole(self, size: int) -> None:
        data = bytearray(encoded(TONE, "WAV"))
        index = data.index(b"data")
        data[4:8] = struct.pack("<I", 0xFFFFFFFF)
        data[index + 4 : index + 8] = struct.pack("<I", size)
        if size:
            assert len(read_clip(bytes(data), RATE)) == len(TONE)
        else:
            with pytest.raises(Unreadable, match="no samples"):
                read_clip(bytes(data), RATE)

    def test_an_hour_in_little_memory(self, tmp_path: Path) -> None:
        """An hour at 8 kHz is 115 MB as floats, more while it is resampled; here it comes in pieces."""
        path = tmp_path / "hour.wav"
        soundfile.write(path, np.random.default_rng(0).normal(size=RATE) * 0.1, RATE, subtype="PCM_16")
        header = path.read_bytes()[:44]
        with path.open("r+b") as file:  # a file with a hole takes no space
            size = 3600 * RATE * 2
            file.write(header[:4] + struct.pack("<I", size + 36) + header[8:40] + struct.pack("<I", size))
            file.truncate(44 + size)
        actual = subprocess.run(
            [sys.executable, "-c", _HOUR, str(path)], capture_output=True, text=True, check=True
        )
        samples, pieces, head, grown = map(int, actual.stdout.split())
        assert samples == 3600 * 4000
        assert pieces >= 360
        assert head == 30 * 4000
        assert grown < 40, f"{grown} MB more at the peak than before"


_HOUR = """
import resource, sys
from pathlib import Path
from mmattn.encoders.audio.audio_io import iter_clip, read_clip
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
path = Path(sys.argv[1])
next(iter_clip(path, 4000))  # libraries are loaded
before = peak()
sizes = [len(piece) for piece in iter_clip(path, 4000)]
print(sum(sizes), len(sizes), len(read_clip(path, 4000)), peak() - before)
"""
