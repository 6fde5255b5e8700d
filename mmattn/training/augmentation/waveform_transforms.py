"""Steps that change a waveform, float32 [samples], as another voice, room or microphone would have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "AddNoise",
    "Gain",
    "PitchShift",
    "RoomReverb",
    "SpectralTilt",
    "SpeedPerturbation",
    "TimeShift",
    "random_percent",
    "uniform",
]

_PITCH_WINDOW = 0.032  # seconds that a frame of the phase vocoder looks at


@dataclass(frozen=True)
class SpeedPerturbation:
    """Faster or slower by resampling: pitch, formants and tempo change together.

    Paper: Ko et al., "Audio augmentation for speech recognition", 2015.

    Args:
        min_factor: smallest factor; 0.9 makes a clip a ninth longer and its voice lower.
        max_factor: largest factor.

    Example:
        >>> SpeedPerturbation(0.8, 0.8)(torch.randn(800)).shape
        torch.Size([1000])
    """

    min_factor: float = 0.85
    max_factor: float = 1.15

    def __call__(self, waveform: Tensor) -> Tensor:
        return _resample(waveform, random_percent(self.min_factor, self.max_factor))


@dataclass(frozen=True)
class PitchShift:
    """A higher or lower voice at the same tempo: resampled, then stretched back by a phase vocoder.

    Args:
        sample_rate: samples a second.
        max_semitones: largest change in either direction.
    """

    sample_rate: int
    max_semitones: float = 3.0

    def __call__(self, waveform: Tensor) -> Tensor:
        factor = random_percent(2 ** (-self.max_semitones / 12), 2 ** (self.max_semitones / 12))
        return (
            waveform
            if factor == 100
            else _time_stretch(_resample(waveform, factor), len(waveform), self.sample_rate)
        )


@dataclass(frozen=True)
class Gain:
    """Louder or softer by up to so many decibels.

    Example:
        >>> Gain(20.0, 20.0)(torch.ones(2)).tolist()
        [10.0, 10.0]
    """

    min_db: float = -10.0
    max_db: float = 10.0

    def __call__(self, waveform: Tensor) -> Tensor:
        return waveform * 10 ** (uniform(self.min_db, self.max_db) / 20)


@dataclass(frozen=True)
class TimeShift:
    """Earlier or later by up to so many seconds; silence comes in, what falls over the edge is lost.

    Args:
        sample_rate: samples a second.
        max_seconds: largest shift in either direction.
    """

    sample_rate: int
    max_seconds: float = 0.05

    def __call__(self, waveform: Tensor) -> Tensor:
        most = min(round(self.max_seconds * self.sample_rate), len(waveform) - 1)
        by = int(torch.randint(-most, most + 1, ())) if most > 0 else 0
        moved = torch.zeros_like(waveform)
        moved[max(by, 0) : len(waveform) + min(by, 0)] = waveform[max(-by, 0) : len(waveform) - max(by, 0)]
        return moved


@dataclass(frozen=True)
class AddNoise:
    """Hiss, from white to brown, at a ratio of signal to noise.

    Args:
        min_snr_db: least ratio of the powers, in decibels.
        max_snr_db: largest.
    """

    min_snr_db: float = 10.0
    max_snr_db: float = 40.0

    def __call__(self, waveform: Tensor) -> Tensor:
        from torchaudio.functional import add_noise

        noise = _apply_spectral_slope(torch.randn_like(waveform), -uniform(0, 2))
        ratio = waveform.new_tensor([uniform(self.min_snr_db, self.max_snr_db)])
        # Silence has no ratio to anything.
        return add_noise(waveform[None], noise[None], ratio)[0] if bool(waveform.any()) else waveform


@dataclass(frozen=True)
class SpectralTilt:
    """Another microphone: the spectrum rises or falls by up to so many decibels an octave."""

    max_db_per_octave: float = 4.0

    def __call__(self, waveform: Tensor) -> Tensor:
        tilted = _apply_spectral_slope(
            waveform, uniform(-self.max_db_per_octave, self.max_db_per_octave) / (20 * math.log10(2))
        )
        return tilted * (waveform.norm() / tilted.norm().clamp_min(1e-12))


@dataclass(frozen=True)
class RoomReverb:
    """A small room: an echo of noise that decays exponentially follows the direct sound.

    Paper: Ko et al., "A study on data augmentation of reverberant speech", 2017 (simulated rooms; here
    the plainest one, after Polack's statistical model).

    Args:
        sample_rate: samples a second.
        min_rt60: shortest time in which the echo falls by 60 dB, in seconds.
        max_rt60: longest.
        max_echo_ratio: energy of the echo to that of the direct sound, at most.
    """

    sample_rate: int
    min_rt60: float = 0.05
    max_rt60: float = 0.3
    max_echo_ratio: float = 0.5

    def __call__(self, waveform: Tensor) -> Tensor:
        from torchaudio.functional import fftconvolve

        response = self.impulse_response().to(waveform)
        heard = fftconvolve(waveform, response)[: len(waveform)]
        return heard * (waveform.norm() / heard.norm().clamp_min(1e-12))

    def impulse_response(self) -> Tensor:
        """An impulse response; the direct sound is its first sample, of height 1."""
        fall = uniform(self.min_rt60, self.max_rt60)
        time = torch.arange(max(2, round(fall * self.sample_rate))) / self.sample_rate
        echo = torch.randn(len(time)) * 10 ** (-3 * time / fall)  # -60 dB of power at `fall`
        echo[0] = 0.0
        echo *= math.sqrt(uniform(0, self.max_echo_ratio)) / float(echo.norm())
        echo[0] = 1.0
        return echo


def uniform(low: float, high: float) -> float:
    """Return a number between two, from torch's global generator.

    Args:
        low: smallest.
        high: largest.
    """
    return low + (high - low) * float(torch.rand(()))


def random_percent(low: float, high: float) -> int:
    """Return a random factor in hundredths: few different ones, so that filters can be cached.

    Args:
        low: smallest factor.
        high: largest factor.
    """
    return round(100 * uniform(low, high))


def _resample(waveform: Tensor, percent: int) -> Tensor:
    return waveform if percent == 100 else _resampler(percent).to(waveform.device)(waveform)


@lru_cache(maxsize=128)
def _resampler(percent: int) -> Any:
    from torchaudio.transforms import Resample

    common = math.gcd(percent, 100)
    return Resample(percent // common, 100 // common, lowpass_filter_width=16)


def _time_stretch(waveform: Tensor, length: int, sample_rate: int) -> Tensor:
    """The same pitch over another number of samples."""
    from torchaudio.functional import phase_vocoder

    window = round(_PITCH_WINDOW * sample_rate)
    hop = window // 4
    taper = torch.hann_window(window, device=waveform.device)
    # Clips shorter than half a window cannot be mirrored at their ends: silence goes there.
    spectrum = torch.stft(waveform, window, hop, window=taper, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, math.pi * hop, window // 2 + 1, device=waveform.device)[:, None]
    stretched = phase_vocoder(spectrum, len(waveform) / length, advance)
    return torch.istft(stretched, window, hop, window=taper, length=length)


def _apply_spectral_slope(waveform: Tensor, slope: float) -> Tensor:
    """Amplitudes times frequency to the power of `slope`."""
    spectrum = torch.fft.rfft(waveform)
    bins = torch.arange(len(spectrum), device=waveform.device).clamp_min(max(1, len(spectrum) // 64))
    return torch.fft.irfft(spectrum * (bins / len(spectrum)) ** slope, n=len(waveform))
