"""Log-mel frames through a small convolutional transformer, trained with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.encoders.clips import mel_power, read_clip
from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = ["HalvingConvolution", "LogMel"]

_NORMALISE = ("clip", "band")
_KEEP = ("frames", "samples")
_LEAST = 1e-12  # keeps the logarithm of silence finite


class LogMel(Encoder):
    """Log-mel frames through a small convolutional transformer; trained with the rest.

    Two convolutions over time, each halving the rate, then transformer layers that know the order of
    frames from a depthwise convolution. There is a token every 4 hops (40 ms); its `time` is the
    place in the clip that it is centred on, in seconds.

    Paper: Mohamed et al. 2019, "Transformers with convolutional context for ASR", arXiv:1904.11660.

    Args:
        dim: width D of the tokens, a multiple of `heads`.
        rate: samples a second that clips are brought to.
        bands: mel bands.
        hop: seconds from one frame to the next.
        window: seconds that a frame looks at.
        layers: transformer layers.
        heads: attention heads.
        dropout: in the transformer layers.
        max_seconds: what comes later in a clip is left out.
        normalise: "clip" brings the frames to mean 0 and deviation 1 over the clip, "band" each band of
            them, which takes out what microphone and room do to all of a clip.
        floor: decibels below a clip's loudest frame and band at which all is silence; 0 is a fixed floor.
        keep: what `read` leaves: "frames" [T, bands], made once; or "samples" [n] at `rate`, of which
            `encode` makes frames anew each time, for augmentation of waveforms
            (`mmattn.training.sound_augment`).
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
        Unreadable: a clip cannot be read, is silent, or is shorter than one window.

    Example:
        >>> import numpy as np
        >>> encoder = LogMel(dim=16, rate=8000, bands=40).eval()
        >>> tone = np.sin(np.arange(4000) * 0.3).astype(np.float32)
        >>> tokens = encoder([(tone, 8000), None])
        >>> tokens.lengths.tolist(), round(float(tokens.time[1]), 3)
        ([13, 0], 0.04)
    """

    name = "log-mel"

    def __init__(
        self,
        *,
        dim: int = 128,
        rate: int = 16000,
        bands: int = 64,
        hop: float = 0.010,
        window: float = 0.025,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        max_seconds: float = 30.0,
        normalise: str = "clip",
        floor: float = 0.0,
        keep: str = "frames",
        modality: str = "audio",
    ):
        super().__init__()
        if dim % heads:
            raise InputError(f"log-mel: got dim={dim} and heads={heads}, expected a multiple")
        if not 0 < hop <= window or bands < 1 or rate < 1000:
            raise InputError(
                f"log-mel: got rate={rate}, bands={bands}, hop={hop}, window={window}, "
                "expected rate >= 1000, bands >= 1, 0 < hop <= window"
            )
        for option, value, known in (("normalise", normalise, _NORMALISE), ("keep", keep, _KEEP)):
            if value not in known:
                raise InputError(f"log-mel: got {option}={value!r}.{nearest(value, known)}")
        if floor < 0:
            raise InputError(f"log-mel: got floor={floor}, expected decibels, or 0 for a fixed floor")
        self.dim = dim
        self.rate = rate
        self.bands = bands
        self.hop = hop
        self.window = window
        self.heads = heads
        self.dropout = dropout
        self.max_seconds = max_seconds
        self.normalise = normalise
        self.floor = floor
        self.keep = keep
        self.modality = modality
        self.stem = nn.ModuleList([HalvingConvolution(bands, dim), HalvingConvolution(dim, dim)])
        self.order = nn.Conv1d(dim, dim, 9, padding=4, groups=dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={
                "rate": self.rate,
                "bands": self.bands,
                "hop": self.hop,
                "window": self.window,
                "max_seconds": self.max_seconds,
                "normalise": self.normalise,
                "floor": self.floor,
            },
        )

    def options(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "rate": self.rate,
            "bands": self.bands,
            "hop": self.hop,
            "window": self.window,
            "layers": len(self.layers),
            "heads": self.heads,
            "dropout": self.dropout,
            "max_seconds": self.max_seconds,
            "normalise": self.normalise,
            "floor": self.floor,
            "keep": self.keep,
            "modality": self.modality,
        }

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

    def _power(self, samples: Tensor) -> Tensor:
        return mel_power(samples, self.rate, bands=self.bands, hop=self.hop, window=self.window)

    def _normalised(self, power_TF: Tensor) -> Tensor:
        floor = power_TF.max() * 10 ** (-self.floor / 10) if self.floor else 0.0
        frames_TF = (power_TF.clamp_min(floor) + (_LEAST if self.floor else 1e-6)).log()
        if self.normalise == "band":
            return (frames_TF - frames_TF.mean(0)) / (frames_TF.std(0) + 1e-2)
        return (frames_TF - frames_TF.mean()) / (frames_TF.std() + 1e-5)

    def _frames_of(self, contents: Sequence[Any]) -> list[Tensor]:
        """Frames of every content; spectra of waveforms are made in one go."""
        read = [self.read(content).to(self.device) for content in contents]
        waves = [number for number, content in enumerate(read) if content.dim() == 1]
        if waves:
            padded_BN = pad_sequence([read[number] for number in waves], batch_first=True)
            for number, power_TF in zip(waves, self._power(padded_BN), strict=True):
                # Silence after a clip is what its own last frame sees, too.
                count = 1 + len(read[number]) // round(self.hop * self.rate)
                read[number] = self._normalised(power_TF[:count])
        return read

    def cost(self, content: Any) -> int:
        return len(content) if isinstance(content, Tensor) else 0

    def encode(self, contents: Sequence[Any]) -> Tokens:
        there = self._frames_of([content for content in contents if content is not None])
        if not there:
            return self.pack([None] * len(contents), times=[None] * len(contents))
        x_BTD = pad_sequence(there, batch_first=True)
        length_B = torch.tensor([len(frames) for frames in there], device=self.device)
        for halving in self.stem:
            x_BTD, length_B = halving(x_BTD, length_B)
        absent_BT = torch.arange(x_BTD.shape[1], device=self.device) >= length_B[:, None]
        x_BTD = x_BTD + self.order(x_BTD.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            x_BTD = layer(x_BTD, src_key_padding_mask=absent_BT)
        rows = iter([row[:length] for row, length in zip(self.norm(x_BTD), length_B.tolist(), strict=True)])
        sequences = [None if content is None else next(rows) for content in contents]
        times = [None if row is None else self._times(len(row)) for row in sequences]
        return self.pack(sequences, times=times)

    def _times(self, count: int) -> Tensor:
        """Frame i is centred on i hops, and each halving keeps every second frame."""
        return torch.arange(count, device=self.device) * (4 * self.hop)


class HalvingConvolution(nn.Module):
    """A convolution over time that halves the rate and keeps padding at zero, so a clip's tokens do
    not depend on the clips beside it in the batch.

    Example:
        >>> import torch
        >>> x, length = HalvingConvolution(3, 5)(torch.zeros(2, 7, 3), torch.tensor([7, 4]))
        >>> x.shape, length.tolist()
        (torch.Size([2, 4, 5]), [4, 2])
    """

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.convolution = nn.Conv1d(channels, dim, 5, stride=2, padding=2)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """[B, ceil(T / 2), dim] and the halved lengths, from [B, T, channels] and the lengths [B]."""
        x_BTD = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        halved_B = (lengths + 1) // 2
        there_BT = torch.arange(x_BTD.shape[1], device=x.device) < halved_B[:, None]
        return nn.functional.gelu(self.norm(x_BTD)) * there_BT[:, :, None], halved_B
