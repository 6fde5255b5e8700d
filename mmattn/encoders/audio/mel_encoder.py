"""Bases of the encoders that are trained on log-mel frames: reading clips and computing frames."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.audio.audio_io import mel_power, read_clip
from mmattn.encoders.audio.mel_options import ClipMelOptions, MelOptions
from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.types import Tokens

__all__ = ["ClipMelEncoder", "MelEncoder"]

_SILENT_POWER = 1e-6  # added to the power, so that silence has a fixed level
_LOG_EPSILON = 1e-12  # keeps the logarithm finite where `floor_db` sets the level of silence


class MelEncoder(Encoder):
    """Base of the encoders that are trained on log-mel frames. Subclasses write `frames` and `encode`.

    Args:
        dim: width D of the tokens.
        mel: options of the frames.
        modality: name of the modality in the tokens.
    """

    def __init__(self, dim: int, mel: MelOptions, modality: str):
        super().__init__()
        self.dim, self.mel, self.modality = dim, mel, modality

    @property
    def sample_rate(self) -> int:
        """Samples per second that clips are resampled to."""
        return self.mel.sample_rate

    @property
    def max_seconds(self) -> float:
        """Maximum length of a clip in seconds; the rest is ignored."""
        return self.mel.max_seconds

    @property
    def min_samples(self) -> float:
        """Samples of the shortest clip that can be encoded."""
        return self.mel.window * self.mel.sample_rate

    @abstractmethod
    def frames(self, samples: Tensor) -> Tensor:
        """Compute the log-mel frames of a clip.

        Args:
            samples: [n] at `sample_rate`.

        Returns:
            [T, n_mels].
        """

    def describe(self) -> EncoderCard:
        # "cache_as" does not change the tokens.
        preprocessing = {name: value for name, value in asdict(self.mel).items() if name != "cache_as"}
        return EncoderCard(self.name, self.modality, self.dim, revision="1", preprocessing=preprocessing)

    def options(self) -> dict[str, Any]:
        return {"dim": self.dim, **asdict(self.mel), "modality": self.modality}

    def read(self, content: Any) -> Tensor:
        """Read a clip; samples and frames pass through.

        Args:
            content: as in `mmattn.encoders.audio.audio_io.read_clip`, or a tensor [n] or [T, n_mels].

        Returns:
            Samples [n] at `sample_rate` or log-mel frames [T, n_mels], by `cache_as`, on the CPU.

        Raises:
            Unreadable: the clip cannot be read, is silent or too short, or the tensor has another shape.
        """
        if isinstance(content, Tensor):
            if content.dim() != 1 and (content.dim() != 2 or content.shape[1] != self.mel.n_mels):
                raise Unreadable(
                    f"got a tensor {tuple(content.shape)}, expected [n] or [T, {self.mel.n_mels}]"
                )
            return content
        samples = read_clip(content, self.mel.sample_rate, max_seconds=self.mel.max_seconds)
        if len(samples) < self.min_samples:
            raise Unreadable(f"the clip is shorter than {self.min_samples / self.mel.sample_rate:g} s")
        return samples if self.mel.cache_as == "samples" else self.frames(samples)

    def size_hint(self, content: Any) -> int:
        return len(content) if isinstance(content, Tensor) else 0


class ClipMelEncoder(MelEncoder):
    """Base of the encoders whose frames are normalised over the whole clip. Subclasses write `encode`.

    Args:
        dim: width D of the tokens.
        mel: options of the frames.
        modality: name of the modality in the tokens.
    """

    mel: ClipMelOptions

    def __init__(self, dim: int, mel: ClipMelOptions, modality: str):
        super().__init__(dim, mel, modality)

    def frames(self, samples: Tensor) -> Tensor:
        """Compute the normalised log-mel frames of a clip.

        Args:
            samples: [n] at `sample_rate`.

        Returns:
            [1 + n // hop, n_mels], or fewer or more with `trim_db` or `fixed_length`.
        """
        return self._normalise(self._mel_power(samples))

    def batch_frames(self, contents: Sequence[Any]) -> list[Tensor]:
        """Compute the frames of several contents; the spectra of all waveforms in one batch.

        Args:
            contents: raw contents or results of `read`, none of them None.

        Returns:
            [T, n_mels] for each content, on the encoder's device.
        """
        clips = [self.read(content).to(self.device) for content in contents]
        waveforms = [index for index, clip in enumerate(clips) if clip.dim() == 1]
        if waveforms:
            padded_BN = pad_sequence([clips[index] for index in waveforms], batch_first=True)
            for index, power_TF in zip(waveforms, self._mel_power(padded_BN), strict=True):
                # The last frame of a clip alone also reaches into zeros, so padding does not change it.
                count = 1 + len(clips[index]) // round(self.mel.hop * self.mel.sample_rate)
                clips[index] = self._normalise(power_TF[:count])
        return clips

    def pack_rows(self, contents: Sequence[Any], rows: Iterable[Tensor], hops_per_token: int) -> Tokens:
        """Pack the rows of the present contents into tokens of all contents.

        Args:
            contents: B contents, None where absent.
            rows: [T, D] of each present content.
            hops_per_token: hops from one row to the next; the first is centred on the start of the clip.

        Returns:
            Tokens of B samples, with times in seconds.
        """
        present_rows = iter(rows)
        sequences = [None if content is None else next(present_rows) for content in contents]
        seconds = hops_per_token * self.mel.hop
        times = [
            None if row is None else torch.arange(len(row), device=self.device) * seconds for row in sequences
        ]
        return self.pack(sequences, times=times)

    def _mel_power(self, samples: Tensor) -> Tensor:
        mel = self.mel
        return mel_power(samples, mel.sample_rate, n_mels=mel.n_mels, hop=mel.hop, window=mel.window)

    def _normalise(self, power_TF: Tensor) -> Tensor:
        mel = self.mel
        if mel.trim_db:
            power_TF = _trim_silence(power_TF, mel.trim_db)
        floor = power_TF.max() * 10 ** (-mel.floor_db / 10) if mel.floor_db else 0.0
        power_TF = power_TF.clamp_min(floor)
        if mel.power_compression:
            frames_TF = power_TF.pow(mel.power_compression)
        else:
            frames_TF = (power_TF + (_LOG_EPSILON if mel.floor_db else _SILENT_POWER)).log()
        dims, epsilon = (0, 1e-2) if mel.normalise == "band" else (None, 1e-5)
        centred_TF = frames_TF - frames_TF.mean(dims, keepdim=True)
        frames_TF = centred_TF / (frames_TF.std(dims, keepdim=True, correction=0) + epsilon)
        return _resize_time(frames_TF, mel.fixed_length) if mel.fixed_length else frames_TF


def _trim_silence(power_TF: Tensor, decibels: float) -> Tensor:
    """Cut off the frames at both ends that are so far below the loudest one."""
    power_T = power_TF.sum(1)
    loud = (power_T >= power_T.max() * 10 ** (-decibels / 10)).nonzero()[:, 0]
    return power_TF[int(loud[0]) : int(loud[-1]) + 1]


def _resize_time(frames_TF: Tensor, length: int) -> Tensor:
    """Interpolate frames linearly over time, from the first to the last."""
    resized_1FT = F.interpolate(frames_TF.T[None], size=length, mode="linear", align_corners=True)
    return resized_1FT[0].T.contiguous()
