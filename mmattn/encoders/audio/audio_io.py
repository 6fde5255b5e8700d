"""Read audio as one channel at one sample rate, at once or in chunks, and compute mel spectra."""

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

_SILENCE_PEAK = 1e-4  # 80 dB below full scale
_BLOCK_SECONDS = 30.0  # read at a time


def read_clip(content: Any, sample_rate: int, *, max_seconds: float = 30.0) -> Tensor:
    """Read a clip, average its channels and resample it.

    Args:
        content: a path or the bytes of a WAV, FLAC, OGG or MP3 file; or (samples, rate) with an array
            [T] or [T, channels], floating point from -1 to 1 or integers of full scale.
        sample_rate: samples per second of the result.
        max_seconds: the rest of a longer clip is not read.

    Returns:
        float32 samples [T].

    Raises:
        Unreadable: no audio file, a truncated one, no samples, silence, or values that are not finite.

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
    """Read a clip of any length in chunks, with memory that does not grow with its length.

    The concatenated chunks are the result of `read_clip`, except that silence is not refused.

    Args:
        content: as in `read_clip`.
        sample_rate: samples per second of the result.
        chunk_seconds: length of a chunk.
        max_seconds: the rest of a longer clip is not read.

    Yields:
        float32 samples [T] at `sample_rate`, T > 0, about `chunk_seconds` of them.

    Raises:
        InputError: `chunk_seconds` is not positive.
        Unreadable: as in `read_clip`, but not for silence; damage late in a file shows after its good part.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(20000) * 0.3).astype(np.float32)
        >>> [len(chunk) for chunk in iter_clip((tone, 8000), 8000, chunk_seconds=1.0)]
        [8000, 8000, 4000]
    """
    if not chunk_seconds > 0:
        raise InputError(f"iter_clip: got chunk_seconds={chunk_seconds}, expected more than 0")
    if isinstance(content, (Path, bytes)):
        with AudioReader(content) as audio:
            blocks = audio.blocks(
                math.ceil(chunk_seconds * audio.sample_rate), _max_samples(max_seconds, audio.sample_rate)
            )
            yield from _resampled_blocks(blocks, audio.sample_rate, sample_rate)
    elif isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], np.ndarray):
        samples, source_rate = content
        _check_array(samples, source_rate)
        step = math.ceil(chunk_seconds * source_rate)
        end = min(len(samples), _max_samples(max_seconds, source_rate))
        blocks = (samples[start : min(start + step, end)] for start in range(0, int(end), step))
        yield from _resampled_blocks(blocks, int(source_rate), sample_rate)
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
    """Average the channels of each block and resample it."""
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
    """Resample a stream in chunks; the result does not depend on the division into chunks.

    As many samples around each chunk are buffered as the filter of `scipy.signal.resample_poly` reaches.

    Args:
        source_rate: samples per second of the input.
        target_rate: samples per second of the output.

    Example:
        >>> resampler = Resampler(8000, 16000)
        >>> len(resampler.push(np.zeros(500))), len(resampler.finish())
        (980, 20)
    """

    def __init__(self, source_rate: int, target_rate: int):
        common = math.gcd(source_rate, target_rate)
        self.up, self.down = target_rate // common, source_rate // common
        reach = math.ceil(10 * max(self.up, self.down) / self.up)  # half the filter, in input samples
        self._context = self.down * math.ceil(reach / self.down)
        self._buffer = np.zeros(0)
        self._consumed = 0  # buffered samples whose output was returned

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Add samples and return the output that no later samples can change.

        Args:
            samples: [n] at `source_rate`.

        Returns:
            [m] at `target_rate`.
        """
        if self.up == self.down:
            return samples
        self._buffer = np.concatenate([self._buffer, samples])
        ready = (len(self._buffer) - self._consumed - self._context) // self.down * self.down
        if ready <= 0:
            return np.zeros(0)
        end = self._consumed + ready
        output = self._resample(self._buffer[: end + self._context], end)
        context = min(self._context, end)
        self._buffer, self._consumed = self._buffer[end - context :], context
        return output

    def finish(self) -> np.ndarray:
        """Return the rest of the output at the end of the stream, [m] at `target_rate`."""
        if len(self._buffer) <= self._consumed:
            return np.zeros(0)
        return self._resample(self._buffer, len(self._buffer))

    def _resample(self, samples: np.ndarray, end_sample: int) -> np.ndarray:
        from scipy.signal import resample_poly

        begin, end = (-(-sample * self.up // self.down) for sample in (self._consumed, end_sample))
        return resample_poly(samples, self.up, self.down)[begin:end]


def mel_power(samples: Tensor, sample_rate: int, *, n_mels: int, hop: float, window: float) -> Tensor:
    """Compute the mel power spectrum; frame i is centred on i hops.

    Slaney's mel scale and area normalisation, as in librosa.

    Args:
        samples: float32 [n] or [B, n] at `sample_rate`.
        sample_rate: samples per second.
        n_mels: mel bands.
        hop: seconds from one frame to the next.
        window: length of a frame in seconds.

    Returns:
        [T, n_mels] or [B, T, n_mels].
    """
    spectrum = _mel_spectrogram(
        sample_rate, n_mels, round(hop * sample_rate), round(window * sample_rate)
    ).to(samples.device)
    return spectrum(samples).transpose(-1, -2).contiguous()


def mel_center_frequencies(sample_rate: int, n_mels: int) -> Tensor:
    """Return the centre frequency of each band of `mel_power`.

    Slaney's scale: even steps of 200/3 Hz up to 1 kHz, then 27 steps for each factor of 6.4.

    Args:
        sample_rate: samples per second.
        n_mels: mel bands.

    Returns:
        [n_mels] in hertz.

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
