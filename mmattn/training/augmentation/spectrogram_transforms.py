"""Steps that change log-mel frames, [T, bands]: another throat, and parts that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mmattn.encoders.audio.audio_io import mel_centres
from mmattn.training.augmentation.waveform_transforms import hundredths

__all__ = ["BandMask", "FrameShift", "TimeMask", "VocalTract"]


@dataclass(frozen=True)
class VocalTract:
    """A longer or shorter throat: the frequency axis of log-mel frames is stretched.

    Frequencies up to 0.6 of the highest are multiplied; above that the axis is bent so that it ends where
    it did.

    Paper: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", 2013.

    Args:
        rate: samples a second that the frames were made of.
        low: smallest factor on the frequencies.
        high: largest.
    """

    rate: int
    low: float = 0.85
    high: float = 1.15

    def __call__(self, frames: Tensor) -> Tensor:
        factor = hundredths(self.low, self.high)
        return frames @ _warp(self.rate, frames.shape[1], factor).to(frames)


@dataclass(frozen=True)
class FrameShift:
    """Earlier or later by up to so many frames; the frame at the edge is repeated.

    Words that were stretched to one length (`stretch` of the encoders) begin and end nowhere else again.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> FrameShift(2)(torch.tensor([[1.0], [2.0], [3.0]])).T.tolist()
        [[3.0, 3.0, 3.0]]
    """

    most: int = 3

    def __call__(self, frames: Tensor) -> Tensor:
        by = int(torch.randint(-self.most, self.most + 1, ()))
        place = torch.arange(len(frames), device=frames.device) - by
        return frames[place.clamp(0, len(frames) - 1)]


@dataclass(frozen=True)
class TimeMask:
    """Stretches of time replaced by the clip's mean of each band.

    Paper: Park et al., "SpecAugment", 2019.

    Args:
        longest: frames of a stretch, at most; the length is drawn evenly.
        share: of the clip that a stretch may take, at most.
        count: stretches.
    """

    longest: int = 12
    share: float = 0.2
    count: int = 1

    def __call__(self, frames: Tensor) -> Tensor:
        return _masked(frames, 0, min(self.longest, int(self.share * len(frames))), self.count)


@dataclass(frozen=True)
class BandMask:
    """Ranges of bands replaced by the clip's mean of each band (see `TimeMask`).

    Args:
        widest: bands of a range, at most.
        count: ranges.
    """

    widest: int = 6
    count: int = 2

    def __call__(self, frames: Tensor) -> Tensor:
        return _masked(frames, 1, min(self.widest, frames.shape[1] - 1), self.count)


@lru_cache(maxsize=128)
def _warp(rate: int, bands: int, factor: int) -> Tensor:
    """[bands, bands]: frames times this have every frequency multiplied by `factor` hundredths."""
    hertz = mel_centres(rate, bands)
    highest, scale = rate / 2, factor / 100
    knee = 0.6 * highest * min(scale, 1) / scale
    # Where the sound that ends up at each band comes from.
    bent = highest - (highest - hertz) * (highest - knee) / (highest - knee * scale)
    source = torch.where(hertz <= knee * scale, hertz / scale, bent)
    place = torch.bucketize(source, hertz).clamp(1, bands - 1)
    weight = ((source - hertz[place - 1]) / (hertz[place] - hertz[place - 1])).clamp(0, 1)
    matrix = torch.zeros(bands, bands)
    column = torch.arange(bands)
    matrix[place - 1, column] = 1 - weight
    matrix[place, column] += weight
    return matrix


def _masked(frames: Tensor, axis: int, most: int, count: int) -> Tensor:
    from torchaudio.functional import mask_along_axis

    if most < 1:
        return frames
    mean = frames.mean(0, keepdim=True)
    rest = frames - mean
    for _ in range(count):
        rest = mask_along_axis(rest[None], most, 0.0, axis + 1)[0]
    return rest + mean
