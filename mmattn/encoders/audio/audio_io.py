"""Reading sound: one channel at one rate, at once or in pieces, or a reason why not; and its mel spectrum."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.encoders.audio.audio_files import AudioReader
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError

__all__ = ["Resampler", "iter_clip", "mel_center_frequencies", "mel_power", "read_clip"]

_SILENCE_PEAK = 1e-4  # of full scale: 80 dB below it
_BLOCK_SECONDS = 30.0  # seconds of a file that are read at a time


def read_clip(content: Any, sample_rate: int, *, max_seconds: float = 30.0) -> Tensor:
    """A clip as float32 samples [T] at `sample_rate`, its channels averaged.

    Args:
        content: a path or the bytes of a WAV, FLAC, OGG or MP3 file; or (samples, rate) with an array
            [T] or [T, channels], floating point from -1 to 1 or integers of full scale.
        sample_rate: samples a second of the result.
        max_seconds: what comes later is left out, and not read.

    Raises:
        Unreadable: with the reason: no sound file, no samples, silence, values that are not finite, a
            file that is cut off.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(800) * 0.3).astype(np.float32)
        >>> read_clip((tone, 8000), 16000).shape
        torch.Size([1600])
    """
    samples = torch.cat(
        list(iter_clip(content, sample_rate, chunk_seconds=_BLOCK_SECONDS, max_seconds=max_seconds))
    )
    if samples.abs().max() < _SILENCE_PEAK:
        raise Unreadable("the clip is silent")
    return samples


def iter_clip(
    content: Any, sample_rate: int, *, chunk_seconds: float = 10.0, max_seconds: float = math.inf
) -> Iterator[Tensor]:
    """A clip of any length, a piece at a time, in memory that does not grow with its length.

    Put together the pieces are what `read_clip` gives; whether they are silent is for the caller to say.

    Args:
        content, sample_rate, max_seconds: as in `read_clip`.
        chunk_seconds: of sound that is read at a time.

    Yields:
        Float32 samples [T] at `sample_rate`, never none, about `chunk_seconds` of them.

    Raises:
        Unreadable: as `read_clip`, but not for silence; a fault late in a file comes after its good part.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(20000) * 0.3).astype(np.float32)
        >>> [len(piece) for piece in iter_clip((tone, 8000), 8000, chunk_seconds=1.0)]
        [8000, 8000, 4000]
    """
    if not chunk_seconds > 0:
        raise InputError(f"iter_clip: got pieces of {chunk_seconds} s, expected more than 0")
    if isinstance(content, (Path, bytes)):
        with AudioReader(content) as sound:
            blocks = sound.blocks(
                math.ceil(chunk_seconds * sound.sample_rate), _max_samples(max_seconds, sound.sample_rate)
            )
            yield from _resampled_blocks(blocks, sound.sample_rate, sample_rate)
    elif isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], np.ndarray):
        samples, found = content
        _check_array(samples, found)
        step, end = math.ceil(chunk_seconds * found), min(len(samples), _max_samples(max_seconds, found))
        blocks = (samples[start : min(start + step, end)] for start in range(0, int(end), step))
        yield from _resampled_blocks(blocks, int(found), sample_rate)
    else:
        raise Unreadable(f"got {type(content).__name__}, expected a Path, bytes, or (samples, rate)")


def _max_samples(max_seconds: float, sample_rate: int) -> float:
    return math.inf if max_seconds == math.inf else math.ceil(max_seconds * sample_rate)


def _check_array(samples: np.ndarray, sample_rate: Any) -> None:
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)) or sample_rate < 1:
        raise Unreadable(f"got a rate of {sample_rate!r}, expected a whole number of samples a second")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise Unreadable(
            f"got samples {samples.shape} {samples.dtype}, expected [T] or [T, channels] of numbers"
        )


def _resampled_blocks(blocks: Iterable[np.ndarray], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """One channel at the rate wanted, block by block."""
    resampler = Resampler(source_rate, target_rate)
    count = 0
    for block in blocks:
        count += block.size
        yield from _if_any(resampler.push(_to_mono(block)))
    if not count:
        raise Unreadable("the clip has no samples")
    yield from _if_any(resampler.finish())


def _if_any(samples: np.ndarray) -> Iterator[Tensor]:
    if len(samples):
        yield torch.from_numpy(samples.astype(np.float32))


def _to_mono(block: np.ndarray) -> np.ndarray:
    if block.dtype.kind == "i":
        block = block / -float(np.iinfo(block.dtype).min)
    if not block.size:
        return np.zeros(0)
    mono = block.astype(np.float64).reshape(len(block), -1).mean(1)
    if not np.isfinite(mono).all():
        raise Unreadable("the clip has samples that are not finite")
    return mono


class Resampler:
    """Resamples a stream: what comes out does not depend on where it is cut.

    It keeps as many samples before and after each piece as the filter of `resample_poly` (SciPy) reaches.

    Args:
        source_rate: samples a second that come in.
        target_rate: samples a second that go out.

    Example:
        >>> resampler = Resampler(8000, 16000)
        >>> len(resampler.push(np.zeros(500))), len(resampler.finish())
        (980, 20)
    """

    def __init__(self, source_rate: int, target_rate: int):
        common = math.gcd(source_rate, target_rate)
        self.up, self.down = target_rate // common, source_rate // common
        reach = math.ceil(
            10 * max(self.up, self.down) / self.up
        )  # half of the filter, in samples that come in
        self._context = self.down * math.ceil(reach / self.down)
        self._buffer = np.zeros(0)
        self._consumed = 0  # samples held that have gone out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Samples that are certain, now that these have come."""
        if self.up == self.down:
            return samples
        self._buffer = np.concatenate([self._buffer, samples])
        ready = (len(self._buffer) - self._consumed - self._context) // self.down * self.down
        if ready <= 0:
            return np.zeros(0)
        done = self._consumed + ready
        out = self._resample(self._buffer[: done + self._context], done)
        kept = min(self._context, done)
        self._buffer, self._consumed = self._buffer[done - kept :], kept
        return out

    def finish(self) -> np.ndarray:
        """The rest, now that nothing comes any more."""
        return (
            self._resample(self._buffer, len(self._buffer))
            if len(self._buffer) > self._consumed
            else np.zeros(0)
        )

    def _resample(self, samples: np.ndarray, end_sample: int) -> np.ndarray:
        from scipy.signal import resample_poly

        begin, end = (-(-place * self.up // self.down) for place in (self._consumed, end_sample))
        return resample_poly(samples, self.up, self.down)[begin:end]


def mel_power(samples: Tensor, sample_rate: int, *, n_mels: int, hop: float, window: float) -> Tensor:
    """Mel power spectrum [..., T, bands] of samples [..., n]; frame i is centred on i hops.

    Slaney's mel scale and area normalisation, as librosa has them.

    Args:
        samples: float32 [n] or [B, n] at `sample_rate`.
        sample_rate: samples a second.
        n_mels: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
    """
    spectrum = _mel_spectrogram(
        sample_rate, n_mels, round(hop * sample_rate), round(window * sample_rate)
    ).to(samples.device)
    return spectrum(samples).transpose(-1, -2).contiguous()


def mel_center_frequencies(sample_rate: int, n_mels: int) -> Tensor:
    """The frequency in hertz, [bands], at which each band of `mel_power` is highest.

    Slaney's scale: even steps of 200/3 Hz up to 1 kHz, then 27 steps for each factor of 6.4.

    Example:
        >>> mel_center_frequencies(8000, 5).round().tolist()
        [391.0, 781.0, 1194.0, 1787.0, 2673.0]
    """
    highest = (
        15 + 27 * math.log(sample_rate / 2000) / math.log(6.4)
        if sample_rate > 2000
        else sample_rate / 2 * 3 / 200
    )
    steps = torch.linspace(0, highest, n_mels + 2)[1:-1]
    return torch.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))


@lru_cache(maxsize=8)
def _mel_spectrogram(sample_rate: int, n_mels: int, hop: int, window: int) -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        sample_rate,
        n_fft=window,
        hop_length=hop,
        n_mels=n_mels,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
