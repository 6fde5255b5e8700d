"""Steps that change a waveform, float32 [samples], as another voice, room or microphone would have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["Gain", "Noise", "Pitch", "Room", "Shift", "Speed", "Tilt", "hundredths", "uniform"]

_PITCH_WINDOW = 0.032  # seconds that a frame of the phase vocoder looks at


@dataclass(frozen=True)
class Speed:
    """Faster or slower by resampling: pitch, formants and tempo change together.

    Paper: Ko et al., "Audio augmentation for speech recognition", 2015.

    Args:
        low: smallest factor; 0.9 makes a clip a ninth longer and its voice lower.
        high: largest factor.

    Example:
        >>> Speed(0.8, 0.8)(torch.randn(800)).shape
        torch.Size([1000])
    """

    low: float = 0.85
    high: float = 1.15

    def __call__(self, sound: Tensor) -> Tensor:
        return _faster(sound, hundredths(self.low, self.high))


@dataclass(frozen=True)
class Pitch:
    """A higher or lower voice at the same tempo: resampled, then stretched back by a phase vocoder.

    Args:
        rate: samples a second.
        semitones: largest change in either direction.
    """

    rate: int
    semitones: float = 3.0

    def __call__(self, sound: Tensor) -> Tensor:
        factor = hundredths(2 ** (-self.semitones / 12), 2 ** (self.semitones / 12))
        return sound if factor == 100 else _stretched(_faster(sound, factor), len(sound), self.rate)


@dataclass(frozen=True)
class Gain:
    """Louder or softer by up to so many decibels.

    Example:
        >>> Gain(20.0, 20.0)(torch.ones(2)).tolist()
        [10.0, 10.0]
    """

    low: float = -10.0
    high: float = 10.0

    def __call__(self, sound: Tensor) -> Tensor:
        return sound * 10 ** (uniform(self.low, self.high) / 20)


@dataclass(frozen=True)
class Shift:
    """Earlier or later by up to so many seconds; silence comes in, what falls over the edge is lost.

    Args:
        rate: samples a second.
        seconds: largest shift in either direction.
    """

    rate: int
    seconds: float = 0.05

    def __call__(self, sound: Tensor) -> Tensor:
        most = min(round(self.seconds * self.rate), len(sound) - 1)
        by = int(torch.randint(-most, most + 1, ())) if most > 0 else 0
        moved = torch.zeros_like(sound)
        moved[max(by, 0) : len(sound) + min(by, 0)] = sound[max(-by, 0) : len(sound) - max(by, 0)]
        return moved


@dataclass(frozen=True)
class Noise:
    """Hiss, from white to brown, at a ratio of signal to noise.

    Args:
        low: least ratio of the powers, in decibels.
        high: largest.
    """

    low: float = 10.0
    high: float = 40.0

    def __call__(self, sound: Tensor) -> Tensor:
        from torchaudio.functional import add_noise

        noise = _coloured(torch.randn_like(sound), -uniform(0, 2))
        ratio = sound.new_tensor([uniform(self.low, self.high)])
        # Silence has no ratio to anything.
        return add_noise(sound[None], noise[None], ratio)[0] if bool(sound.any()) else sound


@dataclass(frozen=True)
class Tilt:
    """Another microphone: the spectrum rises or falls by up to so many decibels an octave."""

    decibels: float = 4.0

    def __call__(self, sound: Tensor) -> Tensor:
        tilted = _coloured(sound, uniform(-self.decibels, self.decibels) / (20 * math.log10(2)))
        return tilted * (sound.norm() / tilted.norm().clamp_min(1e-12))


@dataclass(frozen=True)
class Room:
    """A small room: an echo of noise that decays exponentially follows the direct sound.

    Paper: Ko et al., "A study on data augmentation of reverberant speech", 2017 (simulated rooms; here
    the plainest one, after Polack's statistical model).

    Args:
        rate: samples a second.
        low: shortest time in which the echo falls by 60 dB, in seconds.
        high: longest.
        ratio: energy of the echo to that of the direct sound, at most.
    """

    rate: int
    low: float = 0.05
    high: float = 0.3
    ratio: float = 0.5

    def __call__(self, sound: Tensor) -> Tensor:
        from torchaudio.functional import fftconvolve

        response = self.response().to(sound)
        heard = fftconvolve(sound, response)[: len(sound)]
        return heard * (sound.norm() / heard.norm().clamp_min(1e-12))

    def response(self) -> Tensor:
        """An impulse response; the direct sound is its first sample, of height 1."""
        fall = uniform(self.low, self.high)
        time = torch.arange(max(2, round(fall * self.rate))) / self.rate
        echo = torch.randn(len(time)) * 10 ** (-3 * time / fall)  # -60 dB of power at `fall`
        echo[0] = 0.0
        echo *= math.sqrt(uniform(0, self.ratio)) / float(echo.norm())
        echo[0] = 1.0
        return echo


def uniform(low: float, high: float) -> float:
    """A number between the two, from torch's global generator."""
    return low + (high - low) * float(torch.rand(()))


def hundredths(low: float, high: float) -> int:
    """A factor in hundredths: few different ones, so that what is computed for each can be kept."""
    return round(100 * uniform(low, high))


def _faster(sound: Tensor, factor: int) -> Tensor:
    return sound if factor == 100 else _resampler(factor).to(sound.device)(sound)


@lru_cache(maxsize=128)
def _resampler(factor: int) -> Any:
    from torchaudio.transforms import Resample

    common = math.gcd(factor, 100)
    return Resample(factor // common, 100 // common, lowpass_filter_width=16)


def _stretched(sound: Tensor, length: int, rate: int) -> Tensor:
    """The same pitch over another number of samples."""
    from torchaudio.functional import phase_vocoder

    window = round(_PITCH_WINDOW * rate)
    hop = window // 4
    taper = torch.hann_window(window, device=sound.device)
    # Clips shorter than half a window cannot be mirrored at their ends: silence goes there.
    spectrum = torch.stft(sound, window, hop, window=taper, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, math.pi * hop, window // 2 + 1, device=sound.device)[:, None]
    stretched = phase_vocoder(spectrum, len(sound) / length, advance)
    return torch.istft(stretched, window, hop, window=taper, length=length)


def _coloured(sound: Tensor, slope: float) -> Tensor:
    """Amplitudes times frequency to the power of `slope`."""
    spectrum = torch.fft.rfft(sound)
    place = torch.arange(len(spectrum), device=sound.device).clamp_min(max(1, len(spectrum) // 64))
    return torch.fft.irfft(spectrum * (place / len(spectrum)) ** slope, n=len(sound))
