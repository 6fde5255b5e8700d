"""Steps that change log-mel frames, [T, bands]: another throat, and parts that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mmattn.encoders.audio.audio_io import mel_center_frequencies
from mmattn.training.augmentation.waveform_transforms import random_percent

__all__ = ["FrameShift", "FrequencyMask", "TimeMask", "VocalTractPerturbation"]


@dataclass(frozen=True)
class VocalTractPerturbation:
    """A longer or shorter throat: the frequency axis of log-mel frames is stretched.

    Frequencies up to 0.6 of the highest are multiplied; above that the axis is bent so that it ends where
    it did.

    Paper: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", 2013.

    Args:
        sample_rate: samples a second that the frames were made of.
        min_factor: smallest factor on the frequencies.
        max_factor: largest.
    """

    sample_rate: int
    min_factor: float = 0.85
    max_factor: float = 1.15

    def __call__(self, frames: Tensor) -> Tensor:
        factor = random_percent(self.min_factor, self.max_factor)
        return frames @ _vtlp_matrix(self.sample_rate, frames.shape[1], factor).to(frames)


@dataclass(frozen=True)
class FrameShift:
    """Earlier or later by up to so many frames; the frame at the edge is repeated.

    Words that were stretched to one length (`stretch` of the encoders) begin and end nowhere else again.

    Example:
        >>> _ = torch.manual_seed(1)
        >>> FrameShift(2)(torch.tensor([[1.0], [2.0], [3.0]])).T.tolist()
        [[3.0, 3.0, 3.0]]
    """

    max_frames: int = 3

    def __call__(self, frames: Tensor) -> Tensor:
        by = int(torch.randint(-self.max_frames, self.max_frames + 1, ()))
        source = torch.arange(len(frames), device=frames.device) - by
        return frames[source.clamp(0, len(frames) - 1)]


@dataclass(frozen=True)
class TimeMask:
    """Stretches of time replaced by the clip's mean of each band.

    Paper: Park et al., "SpecAugment", 2019.

    Args:
        max_frames: frames of a stretch, at most; the length is drawn evenly.
        max_fraction: of the clip that a stretch may take, at most.
        num_masks: stretches.
    """

    max_frames: int = 12
    max_fraction: float = 0.2
    num_masks: int = 1

    def __call__(self, frames: Tensor) -> Tensor:
        return _mask_axis(
            frames, 0, min(self.max_frames, int(self.max_fraction * len(frames))), self.num_masks
        )


@dataclass(frozen=True)
class FrequencyMask:
    """Ranges of bands replaced by the clip's mean of each band (see `TimeMask`).

    Args:
        max_bands: bands of a range, at most.
        num_masks: ranges.
    """

    max_bands: int = 6
    num_masks: int = 2

    def __call__(self, frames: Tensor) -> Tensor:
        return _mask_axis(frames, 1, min(self.max_bands, frames.shape[1] - 1), self.num_masks)


@lru_cache(maxsize=128)
def _vtlp_matrix(sample_rate: int, n_mels: int, percent: int) -> Tensor:
    """[bands, bands]: frames times this have every frequency multiplied by `percent` hundredths."""
    hertz = mel_center_frequencies(sample_rate, n_mels)
    highest, scale = sample_rate / 2, percent / 100
    knee = 0.6 * highest * min(scale, 1) / scale
    # Where the sound that ends up at each band comes from.
    bent = highest - (highest - hertz) * (highest - knee) / (highest - knee * scale)
    source = torch.where(hertz <= knee * scale, hertz / scale, bent)
    upper = torch.bucketize(source, hertz).clamp(1, n_mels - 1)
    weight = ((source - hertz[upper - 1]) / (hertz[upper] - hertz[upper - 1])).clamp(0, 1)
    matrix = torch.zeros(n_mels, n_mels)
    column = torch.arange(n_mels)
    matrix[upper - 1, column] = 1 - weight
    matrix[upper, column] += weight
    return matrix


def _mask_axis(frames: Tensor, axis: int, max_width: int, num_masks: int) -> Tensor:
    from torchaudio.functional import mask_along_axis

    if max_width < 1:
        return frames
    mean = frames.mean(0, keepdim=True)
    rest = frames - mean
    for _ in range(num_masks):
        rest = mask_along_axis(rest[None], max_width, 0.0, axis + 1)[0]
    return rest + mean
