"""Options of log-mel frames, written once for all encoders that are trained on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from mmattn.errors import InputError, did_you_mean

__all__ = ["ClipMelOptions", "MelOptions"]

_CACHE_AS = ("frames", "samples")
_NORMALISE = ("clip", "band")


@dataclass(frozen=True)
class MelOptions:
    """How clips become log-mel frames. Encoders take these options as keyword arguments of their own.

    Args:
        sample_rate: samples per second that clips are resampled to.
        n_mels: mel bands.
        hop: seconds from one frame to the next.
        window: length of a frame in seconds.
        max_seconds: the rest of a longer clip is ignored.
        cache_as: what `read` returns: "frames" [T, n_mels], computed once; or "samples" [n], of which
            `encode` computes frames every time, for augmentation of waveforms
            (`mmattn.training.augmentation.speech_augment`).
    """

    sample_rate: int = 16000
    n_mels: int = 40
    hop: float = 0.010
    window: float = 0.025
    max_seconds: float = 30.0
    cache_as: str = "frames"

    @classmethod
    def from_keywords(cls, owner: str, keywords: Mapping[str, Any], **defaults: Any) -> Self:
        """Create and check the options from the keyword arguments of an encoder.

        Args:
            owner: name of the encoder, the prefix of error messages.
            keywords: option -> value, as a user gave them.
            **defaults: the encoder's own defaults.

        Raises:
            InputError: an unknown option, or a value out of range.

        Example:
            >>> options = MelOptions.from_keywords("log-mel", {"hop": 0.02}, n_mels=64)
            >>> options.hop, options.n_mels, options.sample_rate
            (0.02, 64, 16000)
        """
        known = [field.name for field in fields(cls)]
        for name in keywords:
            if name not in known:
                raise InputError(f"{owner}: no option {name!r}.{did_you_mean(name, known)}")
        options = cls(**{**defaults, **keywords})
        options.check(owner)
        return options

    def check(self, owner: str) -> None:
        """Check that all values are in range.

        Args:
            owner: prefix of the error messages.

        Raises:
            InputError: a value is out of range.
        """
        if not 0 < self.hop <= self.window or self.n_mels < 1 or self.sample_rate < 1000:
            raise InputError(
                f"{owner}: got sample_rate={self.sample_rate}, n_mels={self.n_mels}, hop={self.hop}, "
                f"window={self.window}, expected sample_rate >= 1000, n_mels >= 1, 0 < hop <= window"
            )
        _check_choice(owner, "cache_as", self.cache_as, _CACHE_AS)


@dataclass(frozen=True)
class ClipMelOptions(MelOptions):
    """`MelOptions`, and how frames are normalised over a whole clip.

    Args:
        sample_rate: see `MelOptions`.
        n_mels: see `MelOptions`.
        hop: see `MelOptions`.
        window: see `MelOptions`.
        max_seconds: see `MelOptions`.
        cache_as: see `MelOptions`.
        normalise: "clip": mean 0 and deviation 1 over the clip; "band": over each band of the clip, which
            removes the frequency response of microphone and room.
        power_compression: exponent applied to the mel power (0.1, for example), which emphasises faint noise
            less than the logarithm; 0 for the logarithm.
        floor_db: decibels below the loudest cell of a clip at which power is clipped; 0 for a fixed floor.
        trim_db: decibels below the loudest frame of a clip at which its ends are cut off; 0 keeps them.
        fixed_length: number of frames that every clip is interpolated to; 0 keeps the length. For single
            words: a token's position is then a part of the word and may have a projection of its own
            (`EncoderConfig.fields`). Token times then assume that all words take equally long.
    """

    normalise: str = "clip"
    power_compression: float = 0.0
    floor_db: float = 0.0
    trim_db: float = 0.0
    fixed_length: int = 0

    def check(self, owner: str) -> None:
        super().check(owner)
        _check_choice(owner, "normalise", self.normalise, _NORMALISE)
        if not 0 <= self.power_compression <= 1:
            raise InputError(
                f"{owner}: got power_compression={self.power_compression}, expected a power up to 1, or 0 "
                "for the logarithm"
            )
        for name in ("floor_db", "trim_db", "fixed_length"):
            value = getattr(self, name)
            if value < 0:
                raise InputError(f"{owner}: got {name}={value}, expected 0 for none, or more")


def _check_choice(owner: str, name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{owner}: got {name}={value!r}.{did_you_mean(value, known)}")
