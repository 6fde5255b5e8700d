"""Reading sound: one channel at one rate, or a reason why not; and its mel spectrum."""

from __future__ import annotations

import io
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmattn.encoders.base import Unreadable

__all__ = ["mel_centres", "mel_power", "read_clip"]

_SILENCE = 1e-4  # of full scale: 80 dB below it


def read_clip(content: Any, rate: int, *, max_seconds: float = 30.0) -> Tensor:
    """A clip as float32 samples [T] at `rate`, its channels averaged.

    Args:
        content: a path or the bytes of a WAV, FLAC, OGG or MP3 file; or (samples, rate) with an array
            [T] or [T, channels], floating point from -1 to 1 or integers of full scale.
        rate: samples a second of the result.
        max_seconds: what comes later is left out, and not read.

    Raises:
        Unreadable: with the reason: no sound file, no samples, silence, values that are not finite.

    Example:
        >>> import numpy as np
        >>> tone = np.sin(np.arange(800) * 0.3).astype(np.float32)
        >>> read_clip((tone, 8000), 16000).shape
        torch.Size([1600])
    """
    if isinstance(content, (Path, bytes)):
        samples, found = _from_file(content, max_seconds)
    elif isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], np.ndarray):
        samples, found = content
    else:
        raise Unreadable(f"got {type(content).__name__}, expected a Path, bytes, or (samples, rate)")
    if isinstance(found, bool) or not isinstance(found, (int, np.integer)) or found < 1:
        raise Unreadable(f"got a rate of {found!r}, expected a whole number of samples a second")
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi":
        raise Unreadable(
            f"got samples {samples.shape} {samples.dtype}, expected [T] or [T, channels] of numbers"
        )
    samples = samples[: math.ceil(max_seconds * found)]
    if samples.size == 0:
        raise Unreadable("the clip has no samples")
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    mono = samples.astype(np.float64).reshape(len(samples), -1).mean(1)
    if not np.isfinite(mono).all():
        raise Unreadable("the clip has samples that are not finite")
    if np.abs(mono).max() < _SILENCE:
        raise Unreadable("the clip is silent")
    return torch.from_numpy(_resampled(mono, int(found), rate).astype(np.float32))


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


def _from_file(content: Path | bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        data = content.read_bytes() if isinstance(content, Path) else content
    except OSError as error:
        raise Unreadable(f"cannot open {str(content)!r}: {error.strerror}") from error
    if not data:
        raise Unreadable("the file is empty")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            frames = math.ceil(max_seconds * file.samplerate)
            return file.read(frames, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise Unreadable("not a sound file in a known format, or damaged") from error


def _resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return resample_poly(samples, wanted // common, rate // common)
