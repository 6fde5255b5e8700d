"""Log-mel frames through a small convolutional transformer that is trained with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmattn.encoders.audio.mel_encoder import ClipMelEncoder
from mmattn.encoders.audio.mel_options import ClipMelOptions
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["HalvingConvolution", "LogMel"]

_HOPS_PER_TOKEN = 4  # two convolutions, each of which halves the frame rate


class LogMel(ClipMelEncoder):
    """Encode log-mel frames with a small convolutional transformer; trained with the model.

    Two convolutions over time, each halving the frame rate, then transformer layers whose order of frames
    comes from a depthwise convolution. There is a token every 4 hops (40 ms); its `time` is the centre of its
    frames in seconds.

    Paper: Mohamed et al. 2019, "Transformers with convolutional context for ASR", arXiv:1904.11660.

    Args:
        dim: width D of the tokens, a multiple of `heads`.
        layers: transformer layers.
        heads: attention heads.
        dropout: dropout probability in the transformer layers.
        modality: name of the modality in the tokens.
        **mel: options of the frames, see `mmattn.encoders.audio.mel_options.ClipMelOptions`; `n_mels` is 64
            by default.

    Raises:
        InputError: an option is unknown or out of range.

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
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.1,
        modality: str = "audio",
        **mel: Any,
    ):
        super().__init__(dim, ClipMelOptions.from_keywords(self.name, mel, n_mels=64), modality)
        if dim % heads:
            raise InputError(f"log-mel: got dim={dim} and heads={heads}, expected a multiple")
        self.heads = heads
        self.dropout = dropout
        self.stem = nn.ModuleList([HalvingConvolution(self.mel.n_mels, dim), HalvingConvolution(dim, dim)])
        self.position_convolution = nn.Conv1d(dim, dim, 9, padding=4, groups=dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dim, heads, 4 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def options(self) -> dict[str, Any]:
        network = {"layers": len(self.layers), "heads": self.heads, "dropout": self.dropout}
        return {**super().options(), **network}

    def encode(self, contents: Sequence[Any]) -> Tokens:
        clips = self.batch_frames([content for content in contents if content is not None])
        if not clips:
            return self.pack_rows(contents, [], _HOPS_PER_TOKEN)
        x_BTD = pad_sequence(clips, batch_first=True)
        length_B = torch.tensor([len(frames) for frames in clips], device=self.device)
        for halving in self.stem:
            x_BTD, length_B = halving(x_BTD, length_B)
        padding_BT = torch.arange(x_BTD.shape[1], device=self.device) >= length_B[:, None]
        x_BTD = x_BTD + self.position_convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
        for layer in self.layers:
            x_BTD = layer(x_BTD, src_key_padding_mask=padding_BT)
        rows = [row[:length] for row, length in zip(self.norm(x_BTD), length_B.tolist(), strict=True)]
        return self.pack_rows(contents, rows, _HOPS_PER_TOKEN)


class HalvingConvolution(nn.Module):
    """A convolution over time that halves the frame rate and keeps padding at zero.

    A clip's tokens therefore do not depend on the other clips of the batch.

    Args:
        channels: input channels.
        dim: output channels.

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
        """Apply the convolution to padded clips.

        Args:
            x: [B, T, channels], zero in the padding.
            lengths: [B] frames of each clip.

        Returns:
            [B, ceil(T / 2), dim], zero in the padding, and the halved lengths [B].
        """
        x_BTD = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        halved_B = (lengths + 1) // 2
        valid_BT = torch.arange(x_BTD.shape[1], device=x.device) < halved_B[:, None]
        return nn.functional.gelu(self.norm(x_BTD)) * valid_BT[:, :, None], halved_B
