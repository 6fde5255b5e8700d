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
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = ["MelEncoder"]

# What decides the frames of a clip.
_FRAME_OPTIONS = (
    "sample_rate", "n_mels", "hop", "window", "max_seconds", "normalise", "power_compression", "floor_db",
    "trim_db", "fixed_length",
)  # fmt: skip
_NORMALIZE = ("clip", "band")
_CACHE_AS = ("frames", "samples")
_SILENT_POWER = 1e-6  # power that is silence
_LOG_EPSILON = 1e-12  # keeps the logarithm of silence finite where the floor is the clip's own


class MelEncoder(Encoder):
    """Base of the encoders that are trained on log-mel frames; they write `encode`.

    Args:
        dim: width D of the tokens.
        sample_rate: samples a second that clips are brought to.
        n_mels: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
        max_seconds: what comes later in a clip is left out.
        normalise: "clip" brings the frames to mean 0 and deviation 1 over the clip, "band" each band of
            them, which takes out what microphone and room do to all of a clip.
        power_compression: frames are this power of the mel power, as ears have it, and not its logarithm, which makes much
            of faint noise: 0.1, for example; 0 takes the logarithm.
        floor_db: decibels below a clip's loudest frame and band at which all is silence; 0 is a fixed floor.
        trim_db: decibels below a clip's loudest frame at which its ends are cut off; 0 keeps them.
        fixed_length: frames that every clip is brought to, however fast it was spoken; 0 leaves them. For single
            words: a token's position then says which part of the word it is, so that it may have a
            projection of its own (`EncoderConfig.fields`), and times run as if all words took as long.
        cache_as: what `read` leaves: "frames" [T, bands], made once; or "samples" [n] at `sample_rate`, of which
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
        sample_rate: int,
        n_mels: int,
        hop: float,
        window: float,
        max_seconds: float,
        normalise: str,
        power_compression: float,
        floor_db: float,
        trim_db: float,
        fixed_length: int,
        cache_as: str,
        modality: str,
    ):
        super().__init__()
        if not 0 < hop <= window or n_mels < 1 or sample_rate < 1000:
            raise InputError(
                f"{self.name}: got sample_rate={sample_rate}, n_mels={n_mels}, hop={hop}, window={window}, "
                "expected sample_rate >= 1000, n_mels >= 1, 0 < hop <= window"
            )
        for option, value, known in (("normalise", normalise, _NORMALIZE), ("cache_as", cache_as, _CACHE_AS)):
            if value not in known:
                raise InputError(f"{self.name}: got {option}={value!r}.{did_you_mean(value, known)}")
        if not 0 <= power_compression <= 1:
            raise InputError(
                f"{self.name}: got power_compression={power_compression}, expected a power up to 1, or 0 for the logarithm"
            )
        for option, least in (("floor_db", floor_db), ("trim_db", trim_db), ("fixed_length", fixed_length)):
            if least < 0:
                raise InputError(f"{self.name}: got {option}={least}, expected 0 for none, or more")
        self.dim = dim
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.hop = hop
        self.window = window
        self.max_seconds = max_seconds
        self.normalise = normalise
        self.power_compression = power_compression
        self.floor_db = floor_db
        self.trim_db = trim_db
        self.fixed_length = fixed_length
        self.cache_as = cache_as
        self.modality = modality

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={name: getattr(self, name) for name in _FRAME_OPTIONS},
        )

    def options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("dim", *_FRAME_OPTIONS, "cache_as", "modality")}

    def read(self, content: Any) -> Tensor:
        """Samples [n] at `rate` or log-mel frames [T, bands] on the CPU, as `keep` says."""
        if isinstance(content, Tensor):
            if content.dim() != 1 and (content.dim() != 2 or content.shape[1] != self.n_mels):
                raise Unreadable(f"got a tensor {tuple(content.shape)}, expected [n] or [T, {self.n_mels}]")
            return content
        samples = read_clip(content, self.sample_rate, max_seconds=self.max_seconds)
        if len(samples) < self.window * self.sample_rate:
            raise Unreadable(f"the clip is shorter than {self.window} s")
        return samples if self.cache_as == "samples" else self.frames(samples)

    def frames(self, samples: Tensor) -> Tensor:
        """Normalised log-mel frames [1 + n // hop, bands] of samples [n] at `rate`."""
        return self._normalize(self._mel_power(samples))

    def batch_frames(self, contents: Sequence[Any]) -> list[Tensor]:
        """Frames of every content, on the encoder's device; spectra of waveforms are made in one go."""
        read = [self.read(content).to(self.device) for content in contents]
        waves = [number for number, content in enumerate(read) if content.dim() == 1]
        if waves:
            padded_BN = pad_sequence([read[number] for number in waves], batch_first=True)
            for number, power_TF in zip(waves, self._mel_power(padded_BN), strict=True):
                # Silence after a clip is what its own last frame sees, too.
                count = 1 + len(read[number]) // round(self.hop * self.sample_rate)
                read[number] = self._normalize(power_TF[:count])
        return read

    def pack_rows(self, contents: Sequence[Any], rows: Iterable[Tensor], hops_per_token: int) -> Tokens:
        """Tokens of all contents, from the rows [T, D] of those that are there.

        Args:
            contents: [B], None where absent.
            rows: of each content that is there.
            hops_per_token: from one row to the next; the first is centred on the beginning of the clip.
        """
        those = iter(rows)
        sequences = [None if content is None else next(those) for content in contents]
        times = [
            None if row is None else torch.arange(len(row), device=self.device) * (hops_per_token * self.hop)
            for row in sequences
        ]
        return self.pack(sequences, times=times)

    def _mel_power(self, samples: Tensor) -> Tensor:
        return mel_power(samples, self.sample_rate, n_mels=self.n_mels, hop=self.hop, window=self.window)

    def _normalize(self, power_TF: Tensor) -> Tensor:
        if self.trim_db:
            power_TF = _trim_silence(power_TF, self.trim_db)
        floor = power_TF.max() * 10 ** (-self.floor_db / 10) if self.floor_db else 0.0
        power_TF = power_TF.clamp_min(floor)
        least = _LOG_EPSILON if self.floor_db else _SILENT_POWER
        frames_TF = (
            power_TF.pow(self.power_compression) if self.power_compression else (power_TF + least).log()
        )
        dims = 0 if self.normalise == "band" else None
        least = 1e-2 if self.normalise == "band" else 1e-5
        centred_TF = frames_TF - frames_TF.mean(dims, keepdim=True)
        frames_TF = centred_TF / (frames_TF.std(dims, keepdim=True, correction=0) + least)
        return _resize_time(frames_TF, self.fixed_length) if self.fixed_length else frames_TF

    def size_hint(self, content: Any) -> int:
        return len(content) if isinstance(content, Tensor) else 0


def _trim_silence(power_TF: Tensor, decibels: float) -> Tensor:
    """Without the frames at both ends that are so far below the loudest one."""
    power_T = power_TF.sum(1)
    loud = (power_T >= power_T.max() * 10 ** (-decibels / 10)).nonzero()[:, 0]
    return power_TF[int(loud[0]) : int(loud[-1]) + 1]


def _resize_time(frames_TF: Tensor, length: int) -> Tensor:
    """Frames on a line through the old ones, from the first to the last."""
    stretched_1FT = F.interpolate(frames_TF.T[None], size=length, mode="linear", align_corners=True)
    return stretched_1FT[0].T.contiguous()
