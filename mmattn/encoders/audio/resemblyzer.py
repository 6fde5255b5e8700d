"""Voices through the speaker network of the package Resemblyzer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.audio.audio_io import mel_power, read_clip
from mmattn.encoders.base import Unreadable
from mmattn.encoders.pretrained import PretrainedEncoder, read_state_dict
from mmattn.errors import InputError, MissingDependency, did_you_mean
from mmattn.files import sha256_file
from mmattn.types import Tokens

__all__ = ["Resemblyzer", "SpeakerNetwork"]

# The settings of the network's training; any other value makes its vectors meaningless.
_SAMPLE_RATE, _N_MELS, _HOP, _WINDOW = 16000, 40, 0.010, 0.025
_SEGMENT_FRAMES = 160  # frames per segment
_SEGMENT_CENTER = _SEGMENT_FRAMES * _HOP / 2  # seconds
_MIN_LOUDNESS_DB = -30.0  # dBFS; quieter clips are amplified to this level


class Resemblyzer(PretrainedEncoder):
    """Speaker embeddings from the network of the package Resemblyzer, 256 wide; no download.

    Its weights were trained on segments of 1.6 s without long silences; here silences are kept, so that times
    are those of the clip.

    Paper: Wan et al. 2018, "Generalized End-to-End Loss for Speaker Verification", arXiv:1710.10467.

    Args:
        pool: "parts": one token per segment of 1.6 s, with its middle as `time`; "all": one token, the mean
            direction of the segments.
        step_seconds: seconds from one segment to the next.
        batch_size: segments per batch of the network.
        max_seconds: the rest of a longer clip is ignored.
        frozen: False to fine-tune the network as `encoder.trained`.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
        MissingDependency: the package is not installed.

    Example:
        >>> import numpy as np
        >>> from mmattn.registry import encoders
        >>> noise = np.random.default_rng(0).normal(size=3 * 16000) * 0.1
        >>> tokens = encoders.create("resemblyzer")([(noise, 16000), None])
        >>> tokens.lengths.tolist(), [round(time, 1) for time in tokens.time.tolist()]
        ([3, 0], [0.8, 1.6, 2.4])
    """

    name = "resemblyzer"
    dim = 256
    pools = ("parts", "all")

    def __init__(
        self,
        *,
        pool: str = "parts",
        step_seconds: float = 0.8,
        batch_size: int = 64,
        max_seconds: float = 30.0,
        frozen: bool = True,
        modality: str = "audio",
    ):
        if pool not in self.pools:
            raise InputError(f"resemblyzer: got pool={pool!r}.{did_you_mean(pool, self.pools)}")
        if not _HOP <= step_seconds <= _SEGMENT_FRAMES * _HOP:
            raise InputError(
                f"resemblyzer: got step_seconds={step_seconds}, "
                f"expected {_HOP} to {_SEGMENT_FRAMES * _HOP} seconds"
            )
        self._file = _weights_file()
        super().__init__(
            partial(_load_network, self._file), modality=modality, frozen=frozen, batch_size=batch_size
        )
        self.pool = pool
        self.step_seconds = step_seconds
        self.max_seconds = max_seconds

    @cached_property
    def weights_hash(self) -> str:
        return sha256_file(self._file)

    @property
    def revision_name(self) -> str:
        return f"Resemblyzer {metadata.version('Resemblyzer')}"

    def preprocessing(self) -> Mapping[str, Any]:
        return {
            "sample_rate": _SAMPLE_RATE,
            "n_mels": _N_MELS,
            "loudness": f"raised to {_MIN_LOUDNESS_DB} dBFS",
            "pool": self.pool,
            "step_seconds": self.step_seconds,
            "max_seconds": self.max_seconds,
        }

    def options(self) -> dict[str, Any]:
        return {
            "pool": self.pool,
            "step_seconds": self.step_seconds,
            "batch_size": self.batch_size,
            "max_seconds": self.max_seconds,
            "frozen": self.frozen,
            "modality": self.modality,
        }

    def read(self, content: Any) -> Tensor:
        """Read a clip as mel frames.

        Args:
            content: as in `mmattn.encoders.audio.audio_io.read_clip`, or frames [T, 40], which pass through.

        Returns:
            [T, 40] on the CPU.

        Raises:
            Unreadable: the clip cannot be read or is silent, or the tensor has another shape.
        """
        if isinstance(content, Tensor):
            if content.dim() != 2 or content.shape[1] != _N_MELS:
                raise Unreadable(f"got a tensor {tuple(content.shape)}, expected [T, {_N_MELS}]")
            return content
        samples = read_clip(content, _SAMPLE_RATE, max_seconds=self.max_seconds)
        loudness = 20 * math.log10(float(samples.square().mean().sqrt()))
        samples = samples * 10 ** (max(0.0, _MIN_LOUDNESS_DB - loudness) / 20)
        # One more frame still covers the end of the clip; any further ones would be zero.
        samples = nn.functional.pad(samples, (0, round(_HOP * _SAMPLE_RATE)))
        return mel_power(samples, _SAMPLE_RATE, n_mels=_N_MELS, hop=_HOP, window=_WINDOW)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        frames = [None if content is None else self.read(content).to(self.device) for content in contents]
        segments = [[] if clip is None else self._segments(clip) for clip in frames]
        flat = [segment for clip_segments in segments for segment in clip_segments]
        with self.grad_context():
            vectors = [
                vector
                for start in range(0, len(flat), self.batch_size)
                for vector in self.network(torch.stack(flat[start : start + self.batch_size]))
            ]
        sequences: list[Tensor | None] = []
        for clip_segments in segments:
            count = len(clip_segments)
            sequences.append(torch.stack(vectors[:count]) if count else None)
            vectors = vectors[count:]
        if self.pool == "all":
            return self.pack([None if row is None else _mean_direction(row) for row in sequences])
        times = [
            None
            if row is None
            else (torch.arange(len(row), device=self.device) * self.step_seconds + _SEGMENT_CENTER)
            for row in sequences
        ]
        return self.pack(sequences, times=times)

    def _segments(self, frames_TF: Tensor) -> list[Tensor]:
        """Cut segments [160, 40], the last padded with zeros; a segment of mostly padding is dropped."""
        step, count = round(self.step_seconds / _HOP), len(frames_TF) - 1
        starts = list(range(0, max(1, count - _SEGMENT_FRAMES + step + 1), step))
        if len(starts) > 1 and count - starts[-1] < 0.75 * _SEGMENT_FRAMES:
            starts.pop()
        padded_TF = nn.functional.pad(
            frames_TF, (0, 0, 0, max(0, starts[-1] + _SEGMENT_FRAMES - len(frames_TF)))
        )
        return [padded_TF[start : start + _SEGMENT_FRAMES] for start in starts]


class SpeakerNetwork(nn.Module):
    """Three LSTM layers and a projection, as in the paper."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_N_MELS, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        """Embed segments.

        Args:
            mels: [B, T, 40] mel frames.

        Returns:
            [B, 256] of length 1.
        """
        _, (state, _) = self.lstm(mels)
        return nn.functional.normalize(self.linear(state[-1]).relu(), dim=1)


def _mean_direction(row_TD: Tensor) -> Tensor:
    return nn.functional.normalize(row_TD.mean(0, keepdim=True), dim=1)


def _weights_file() -> Path:
    # The package itself is not imported: it needs a compiled voice detector and librosa.
    spec = util.find_spec("resemblyzer")
    if spec is None or spec.origin is None:
        raise MissingDependency("Resemblyzer is not installed: pip install 'mmattn[offline]'")
    return Path(spec.origin).parent / "pretrained.pt"


def _load_network(file: Path) -> nn.Module:
    network = SpeakerNetwork()
    state = read_state_dict(file)
    network.load_state_dict({name: state[name] for name in network.state_dict()})
    return network
