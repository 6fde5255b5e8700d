"""Augmentation of speech: chains of steps that change waveforms and frames as other voices would have.

Every step takes one clip and gives one: waveforms are float32 [samples], frames [T, bands] as an encoder's
`frames` makes them. A step is plain values, so that it can be printed and compared, and it draws from
torch's global generator alone, which `mmattn.training.loop.train` seeds anew for every batch.

Waveforms reach `SupervisedTask.augment` where the encoder keeps them: `cache_as="samples"`. What helps words
of voices that were never heard, on spoken digits of two people after learning from four others (points of
accuracy on validation, one short run each; docs/results/speech.md):

* frames that are level over the clip (`normalise="clip"`): levelling each band lost 8 in a kernel ridge;
  powers (`power_compression=0.1`) in place of logarithms gave up to 5 in a small network, nothing in the
  kernel ridge;
* for single words, one length for all (`fixed_length=24`) and a projection for each position
  (`EncoderConfig(fields=6)`), for pooling over time forgets the order of sounds: 13, with the level;
* changed waveforms (`default_waveform_transforms`) 3 to 6, `FrameShift` 2, mixtures
  (`mmattn.training.tasks.mixup`) 2.

For voices that were heard in training, `stretch` costs what the length of a word says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmattn.errors import InputError
from mmattn.training.augmentation.spectrogram_transforms import (
    FrameShift,
    FrequencyMask,
    TimeMask,
    VocalTractPerturbation,
)
from mmattn.training.augmentation.waveform_transforms import (
    AddNoise,
    Gain,
    PitchShift,
    RoomReverb,
    SpectralTilt,
    SpeedPerturbation,
    TimeShift,
    uniform,
)
from mmattn.training.tasks.supervised import Augment

__all__ = [
    "AddNoise",
    "AudioTransform",
    "Compose",
    "FrameShift",
    "FrequencyMask",
    "Gain",
    "PitchShift",
    "RandomApply",
    "RoomReverb",
    "SpectralTilt",
    "SpeedPerturbation",
    "TimeMask",
    "TimeShift",
    "VocalTractPerturbation",
    "default_spectrogram_transforms",
    "default_waveform_transforms",
    "speech_augment",
]

AudioTransform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Compose:
    """Steps one after the other."""

    transforms: tuple[AudioTransform, ...]

    def __call__(self, audio: Tensor) -> Tensor:
        for step in self.transforms:
            audio = step(audio)
        return audio


@dataclass(frozen=True)
class RandomApply:
    """A step that is taken with a probability."""

    transform: AudioTransform
    probability: float = 0.5

    def __call__(self, audio: Tensor) -> Tensor:
        return self.transform(audio) if uniform(0, 1) < self.probability else audio


def default_waveform_transforms(sample_rate: int, strength: float = 1.0) -> Compose:
    """The default chain for waveforms [samples]: speed, pitch, room, microphone, noise, level.

    Args:
        sample_rate: samples a second.
        strength: factor on what is changed; 0 changes nothing.

    Raises:
        InputError: a negative strength.
    """
    if strength < 0:
        raise InputError(f"augmentation: got strength {strength}, expected at least 0")
    return Compose(
        (
            SpeedPerturbation(1 - 0.15 * strength, 1 + 0.15 * strength),
            RandomApply(PitchShift(sample_rate, 3 * strength)),
            RandomApply(RoomReverb(sample_rate, max_echo_ratio=0.5 * strength)),
            RandomApply(SpectralTilt(4 * strength)),
            RandomApply(AddNoise(45 - 35 * strength, 45), min(0.5, strength)),
            Gain(-10 * strength, 10 * strength),
        )
    )


def default_spectrogram_transforms(sample_rate: int, strength: float = 1.0) -> Compose:
    """The default chain for log-mel frames [T, bands]: throat, place in time, missing time and bands.

    Args:
        sample_rate: samples a second.
        strength: factor on all changes; 0 changes nothing.
    """
    return Compose(
        (
            VocalTractPerturbation(sample_rate, 1 - 0.15 * strength, 1 + 0.15 * strength),
            FrameShift(round(3 * strength)),
            TimeMask(round(12 * strength)),
            FrequencyMask(round(7 * strength), num_masks=1),
        )
    )


def speech_augment(encoder: Any, *, strength: float = 1.0, probability: float = 0.9) -> Augment:
    """The default augmentation of one modality, for `SupervisedTask(augment=...)`.

    Args:
        encoder: has `sample_rate`, `modality` and `frames`, as "log-mel" has. Waveforms, which its `read`
            leaves with `cache_as="samples"`, go through both chains, frames through theirs only.
        strength: factor on what is changed.
        probability: of the clips that are changed; the others are heard as they are.

    Example:
        >>> import torch
        >>> from mmattn.encoders.audio.log_mel import LogMel
        >>> augment = speech_augment(LogMel(dim=16, sample_rate=8000, n_mels=40, cache_as="samples"),
        ...     probability=1.0)
        >>> changed, target = augment({"audio": torch.randn(4000)}, "seven")
        >>> changed["audio"].shape[1], target
        (40, 'seven')
    """
    waves, frames = (
        default_waveform_transforms(encoder.sample_rate, strength),
        default_spectrogram_transforms(encoder.sample_rate, strength),
    )

    def augment(contents: dict[str, Any], target: Any) -> tuple[dict[str, Any], Any]:
        sound = contents.get(encoder.modality)
        if sound is None or uniform(0, 1) >= probability:
            return contents, target
        frame_tensor = encoder.frames(waves(sound)) if sound.dim() == 1 else sound
        return {**contents, encoder.modality: frames(frame_tensor)}, target

    return augment
