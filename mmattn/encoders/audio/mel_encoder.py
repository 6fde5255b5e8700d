"""What encoders that learn from log-mel frames have in common: reading clips, and making frames of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.audio.audio_io import mel_power, read_clip
from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = ["MelEncoder"]

# What decides the frames of a clip.
_HEARD = (
    "rate", "bands", "hop", "window", "max_seconds", "normalise", "root", "floor", "trim", "stretch",
)  # fmt: skip
_NORMALISE = ("clip", "band")
_KEEP = ("frames", "samples")
_FAINT = 1e-6  # power that is silence
_LEAST = 1e-12  # keeps the logarithm of silence finite where the floor is the clip's own


class MelEncoder(Encoder):
    """Base of the encoders that are trained on log-mel frames; they write `encode`.

    Args:
        dim: width D of the tokens.
        rate: samples a second that clips are brought to.
        bands: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
        max_seconds: what comes later in a clip is left out.
        normalise: "clip" brings the frames to mean 0 and deviation 1 over the clip, "band" each band of
            them, which takes out what microphone and room do to all of a clip.
        root: frames are this power of the mel power, as ears have it, and not its logarithm, which makes much
            of faint noise: 0.1, for example; 0 takes the logarithm.
        floor: decibels below a clip's loudest frame and band at which all is silence; 0 is a fixed floor.
        trim: decibels below a clip's loudest frame at which its ends are cut off; 0 keeps them.
        stretch: frames that every clip is brought to, however fast it was spoken; 0 leaves them. For single
            words: a token's position then says which part of the word it is, so that it may have a
            projection of its own (`EncoderConfig.fields`), and times run as if all words took as long.
        keep: what `read` leaves: "frames" [T, bands], made once; or "samples" [n] at `rate`, of which
            `encode` makes frames anew each time, for augmentation of waveforms
            (`mmattn.training.augmentation.speech_augment`).
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
    """

    def __init__(
        self,
        *,
        dim: int,
        rate: int,
        bands: int,
        hop: float,
        window: float,
        max_seconds: float,
        normalise: str,
        root: float,
        floor: float,
        trim: float,
        stretch: int,
        keep: str,
        modality: str,
    ):
        super().__init__()
        if not 0 < hop <= window or bands < 1 or rate < 1000:
            raise InputError(
                f"{self.name}: got rate={rate}, bands={bands}, hop={hop}, window={window}, "
                "expected rate >= 1000, bands >= 1, 0 < hop <= window"
            )
        for option, value, known in (("normalise", normalise, _NORMALISE), ("keep", keep, _KEEP)):
            if value not in known:
                raise InputError(f"{self.name}: got {option}={value!r}.{nearest(value, known)}")
        if not 0 <= root <= 1:
            raise InputError(
                f"{self.name}: got root={root}, expected a power up to 1, or 0 for the logarithm"
            )
        for option, least in (("floor", floor), ("trim", trim), ("stretch", stretch)):
            if least < 0:
                raise InputError(f"{self.name}: got {option}={least}, expected 0 for none, or more")
        self.dim = dim
        self.rate = rate
        self.bands = bands
        self.hop = hop
        self.window = window
        self.max_seconds = max_seconds
        self.normalise = normalise
        self.root = root
        self.floor = floor
        self.trim = trim
        self.stretch = stretch
        self.keep = keep
        self.modality = modality

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={name: getattr(self, name) for name in _HEARD},
        )

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("dim", *_HEARD, "keep", "modality")}

    def read(self, content: Any) -> Tensor:
        """Samples [n] at `rate` or log-mel frames [T, bands] on the CPU, as `keep` says."""
        if isinstance(content, Tensor):
            if content.dim() != 1 and (content.dim() != 2 or content.shape[1] != self.bands):
                raise Unreadable(f"got a tensor {tuple(content.shape)}, expected [n] or [T, {self.bands}]")
            return content
        samples = read_clip(content, self.rate, max_seconds=self.max_seconds)
        if len(samples) < self.window * self.rate:
            raise Unreadable(f"the clip is shorter than {self.window} s")
        return samples if self.keep == "samples" else self.frames(samples)

    def frames(self, samples: Tensor) -> Tensor:
        """Normalised log-mel frames [1 + n // hop, bands] of samples [n] at `rate`."""
        return self._normalised(self._power(samples))

    def frames_of(self, contents: Sequence[Any]) -> list[Tensor]:
        """Frames of every content, on the encoder's device; spectra of waveforms are made in one go."""
        read = [self.read(content).to(self.device) for content in contents]
        waves = [number for number, content in enumerate(read) if content.dim() == 1]
        if waves:
            padded_BN = pad_sequence([read[number] for number in waves], batch_first=True)
            for number, power_TF in zip(waves, self._power(padded_BN), strict=True):
                # Silence after a clip is what its own last frame sees, too.
                count = 1 + len(read[number]) // round(self.hop * self.rate)
                read[number] = self._normalised(power_TF[:count])
        return read

    def packed(self, contents: Sequence[Any], rows: Iterable[Tensor], hops: int) -> Tokens:
        """Tokens of all contents, from the rows [T, D] of those that are there.

        Args:
            contents: [B], None where absent.
            rows: of each content that is there.
            hops: from one row to the next; the first is centred on the beginning of the clip.
        """
        those = iter(rows)
        sequences = [None if content is None else next(those) for content in contents]
        times = [
            None if row is None else torch.arange(len(row), device=self.device) * (hops * self.hop)
            for row in sequences
        ]
        return self.pack(sequences, times=times)

    def _power(self, samples: Tensor) -> Tensor:
        return mel_power(samples, self.rate, bands=self.bands, hop=self.hop, window=self.window)

    def _normalised(self, power_TF: Tensor) -> Tensor:
        if self.trim:
            power_TF = _trimmed(power_TF, self.trim)
        floor = power_TF.max() * 10 ** (-self.floor / 10) if self.floor else 0.0
        power_TF = power_TF.clamp_min(floor)
        least = _LEAST if self.floor else _FAINT
        frames_TF = power_TF.pow(self.root) if self.root else (power_TF + least).log()
        dims = 0 if self.normalise == "band" else None
        least = 1e-2 if self.normalise == "band" else 1e-5
        centred_TF = frames_TF - frames_TF.mean(dims, keepdim=True)
        frames_TF = centred_TF / (frames_TF.std(dims, keepdim=True, correction=0) + least)
        return _stretched(frames_TF, self.stretch) if self.stretch else frames_TF

    def cost(self, content: Any) -> int:
        return len(content) if isinstance(content, Tensor) else 0


def _trimmed(power_TF: Tensor, decibels: float) -> Tensor:
    """Without the frames at both ends that are so far below the loudest one."""
    power_T = power_TF.sum(1)
    loud = (power_T >= power_T.max() * 10 ** (-decibels / 10)).nonzero()[:, 0]
    return power_TF[int(loud[0]) : int(loud[-1]) + 1]


def _stretched(frames_TF: Tensor, length: int) -> Tensor:
    """Frames on a line through the old ones, from the first to the last."""
    stretched_1FT = F.interpolate(frames_TF.T[None], size=length, mode="linear", align_corners=True)
    return stretched_1FT[0].T.contiguous()
