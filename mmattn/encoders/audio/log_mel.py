"""Log-mel frames through a small convolutional transformer, trained with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.audio.mel_encoder import MelEncoder
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["HalvingConvolution", "LogMel"]

_HOPS_PER_TOKEN = 4  # from one token to the next: each halving keeps every second frame


class LogMel(MelEncoder):
    """Log-mel frames through a small convolutional transformer; trained with the rest.

    Two convolutions over time, each halving the rate, then transformer layers that know the order of
    frames from a depthwise convolution. There is a token every 4 hops (40 ms); its `time` is the
    place in the clip that it is centred on, in seconds.

    Paper: Mohamed et al. 2019, "Transformers with convolutional context for ASR", arXiv:1904.11660.

    Args:
        dim: width D of the tokens, a multiple of `heads`.
        layers: transformer layers.
        heads: attention heads.
        dropout: in the transformer layers.
        sample_rate, n_mels, hop, window, max_seconds, normalise, power_compression, floor_db, trim_db, fixed_length, cache_as, modality: see
            `mmattn.encoders.audio.mel_encoder.MelEncoder`.

    Raises:
        InputError: an option is out of range.
        Unreadable: a clip cannot be read, is silent, or is shorter than one window.

    Example:
        >>> import numpy as np
        >>> encoder = LogMel(dim=16, sample_rate=8000, n_mels=40).eval()
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
        sample_rate: int = 16000,
        n_mels: int = 64,
        hop: float = 0.010,
        window: float = 0.025,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        max_seconds: float = 30.0,
        normalise: str = "clip",
        power_compression: float = 0.0,
        floor_db: float = 0.0,
        trim_db: float = 0.0,
        fixed_length: int = 0,
        cache_as: str = "frames",
        modality: str = "audio",
    ):
        super().__init__(
            dim=dim,
            sample_rate=sample_rate,
            n_mels=n_mels,
            hop=hop,
            window=window,
            max_seconds=max_seconds,
            normalise=normalise,
            power_compression=power_compression,
            floor_db=floor_db,
            trim_db=trim_db,
            fixed_length=fixed_length,
            cache_as=cache_as,
            modality=modality,
        )
        if dim % heads:
            raise InputError(f"log-mel: got dim={dim} and heads={heads}, expected a multiple")
        self.heads = heads
        self.dropout = dropout
        self.stem = nn.ModuleList([HalvingConvolution(n_mels, dim), HalvingConvolution(dim, dim)])
        self.position_convolution = nn.Conv1d(dim, dim, 9, padding=4, groups=dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def options(self) -> dict[str, Any]:
        own = {"layers": len(self.layers), "heads": self.heads, "dropout": self.dropout}
        return {**super().options(), **own}

    def encode(self, contents: Sequence[Any]) -> Tokens:
        there = self.batch_frames([content for content in contents if content is not None])
        if not there:
            return self.pack_rows(contents, [], _HOPS_PER_TOKEN)
        x_BTD = pad_sequence(there, batch_first=True)
        length_B = torch.tensor([len(frames) for frames in there], device=self.device)
        for halving in self.stem:
            x_BTD, length_B = halving(x_BTD, length_B)
        absent_BT = torch.arange(x_BTD.shape[1], device=self.device) >= length_B[:, None]
        x_BTD = x_BTD + self.position_convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            x_BTD = layer(x_BTD, src_key_padding_mask=absent_BT)
        rows = [row[:length] for row, length in zip(self.norm(x_BTD), length_B.tolist(), strict=True)]
        return self.pack_rows(contents, rows, _HOPS_PER_TOKEN)


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
