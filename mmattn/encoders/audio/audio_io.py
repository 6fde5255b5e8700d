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

from mmattn.encoders.audio.audio_files import SoundReader
from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError

__all__ = ["Resampler", "iter_clip", "mel_centres", "mel_power", "read_clip"]

_SILENCE = 1e-4  # of full scale: 80 dB below it
_BLOCK = 30.0  # seconds of a file that are read at a time


def read_clip(content: Any, rate: int, *, max_seconds: float = 30.0) -> Tensor:
    """A clip as float32 samples [T] at `rate`, its channels averaged.

    Args:
        content: a path or the bytes of a WAV, FLAC, OGG or MP3 file; or (samples, rate) with an array
            [T] or [T, channels], floating point from -1 to 1 or integers of full scale.
        rate: samples a second of the result.
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
    samples = torch.cat(list(iter_clip(content, rate, seconds=_BLOCK, max_seconds=max_seconds)))
    if samples.abs().max() < _SILENCE:
        raise Unreadable("the clip is silent")
    return samples


def iter_clip(
    content: Any, rate: int, *, seconds: float = 10.0, max_seconds: float = math.inf
) -> Iterator[Tensor]:
    """A clip of any length, a piece at a time, in memory that does not grow with its length.

    Put together the pieces are what `read_clip` gives; whether they are silent is for the caller to say.

    Args:
        content, rate, max_seconds: as in `read_clip`.
        seconds: of sound that is read at a time.

    Yields:
        Float32 samples [T] at `rate`, never none, about `seconds` of them.

    Raises:
        Unreadable: as `read_clip`, but not for silence; a fault late in a file comes after its good part.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(20000) * 0.3).astype(np.float32)
        >>> [len(piece) for piece in iter_clip((tone, 8000), 8000, seconds=1.0)]
        [8000, 8000, 4000]
    """
    if not seconds > 0:
        raise InputError(f"iter_clip: got pieces of {seconds} s, expected more than 0")
    if isinstance(content, (Path, bytes)):
        with SoundReader(content) as sound:
            blocks = sound.blocks(math.ceil(seconds * sound.rate), _limit(max_seconds, sound.rate))
            yield from _pieces(blocks, sound.rate, rate)
    elif isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], np.ndarray):
        samples, found = content
        _check_array(samples, found)
        step, end = math.ceil(seconds * found), min(len(samples), _limit(max_seconds, found))
        blocks = (samples[start : min(start + step, end)] for start in range(0, int(end), step))
        yield from _pieces(blocks, int(found), rate)
    else:
        raise Unreadable(f"got {type(content).__name__}, expected a Path, bytes, or (samples, rate)")


def _limit(max_seconds: float, rate: int) -> float:
    return math.inf if max_seconds == math.inf else math.ceil(max_seconds * rate)


def _check_array(samples: np.ndarray, rate: Any) -> None:
    if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)) or rate < 1:
        raise Unreadable(f"got a rate of {rate!r}, expected a whole number of samples a second")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise Unreadable(
            f"got samples {samples.shape} {samples.dtype}, expected [T] or [T, channels] of numbers"
        )


def _pieces(blocks: Iterable[np.ndarray], found: int, wanted: int) -> Iterator[Tensor]:
    """One channel at the rate wanted, block by block."""
    resampler = Resampler(found, wanted)
    count = 0
    for block in blocks:
        count += block.size
        yield from _some(resampler.push(_mono(block)))
    if not count:
        raise Unreadable("the clip has no samples")
    yield from _some(resampler.finish())


def _some(samples: np.ndarray) -> Iterator[Tensor]:
    if len(samples):
        yield torch.from_numpy(samples.astype(np.float32))


def _mono(block: np.ndarray) -> np.ndarray:
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
        rate: samples a second that come in.
        wanted: samples a second that go out.

    Example:
        >>> resampler = Resampler(8000, 16000)
        >>> len(resampler.push(np.zeros(500))), len(resampler.finish())
        (980, 20)
    """

    def __init__(self, rate: int, wanted: int):
        common = math.gcd(rate, wanted)
        self.up, self.down = wanted // common, rate // common
        reach = math.ceil(
            10 * max(self.up, self.down) / self.up
        )  # half of the filter, in samples that come in
        self._around = self.down * math.ceil(reach / self.down)
        self._held = np.zeros(0)
        self._before = 0  # samples held that have gone out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Samples that are certain, now that these have come."""
        if self.up == self.down:
            return samples
        self._held = np.concatenate([self._held, samples])
        ready = (len(self._held) - self._before - self._around) // self.down * self.down
        if ready <= 0:
            return np.zeros(0)
        done = self._before + ready
        out = self._resampled(self._held[: done + self._around], done)
        kept = min(self._around, done)
        self._held, self._before = self._held[done - kept :], kept
        return out

    def finish(self) -> np.ndarray:
        """The rest, now that nothing comes any more."""
        return self._resampled(self._held, len(self._held)) if len(self._held) > self._before else np.zeros(0)

    def _resampled(self, samples: np.ndarray, until: int) -> np.ndarray:
        from scipy.signal import resample_poly

        begin, end = (-(-place * self.up // self.down) for place in (self._before, until))
        return resample_poly(samples, self.up, self.down)[begin:end]


def mel_power(samples: Tensor, rate: int, *, bands: int, hop: float, window: float) -> Tensor:
    """Mel power spectrum [..., T, bands] of samples [..., n]; frame i is centred on i hops.

    Slaney's mel scale and area normalisation, as librosa has them.

    Args:
        samples: float32 [n] or [B, n] at `rate`.
        rate: samples a second.
        bands: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
    """
    spectrum = _spectrum(rate, bands, round(hop * rate), round(window * rate)).to(samples.device)
    return spectrum(samples).transpose(-1, -2).contiguous()


def mel_centres(rate: int, bands: int) -> Tensor:
    """The frequency in hertz, [bands], at which each band of `mel_power` is highest.

    Slaney's scale: even steps of 200/3 Hz up to 1 kHz, then 27 steps for each factor of 6.4.

    Example:
        >>> mel_centres(8000, 5).round().tolist()
        [391.0, 781.0, 1194.0, 1787.0, 2673.0]
    """
    highest = 15 + 27 * math.log(rate / 2000) / math.log(6.4) if rate > 2000 else rate / 2 * 3 / 200
    steps = torch.linspace(0, highest, bands + 2)[1:-1]
    return torch.where(steps < 15, steps * 200 / 3, 1000 * 6.4 ** ((steps - 15) / 27))


@lru_cache(maxsize=8)
def _spectrum(rate: int, bands: int, hop: int, window: int) -> Any:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        rate,
        n_fft=window,
        hop_length=hop,
        n_mels=bands,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
