"""Log-mel frames through small convolutions over time and frequency, trained with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.audio.mel_encoder import MelEncoder
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["ConvMel"]

_TIME_HALVINGS = 2  # of the time axis
_HOPS_PER_TOKEN = 2**_TIME_HALVINGS  # from one token to the next


class ConvMel(MelEncoder):
    """Log-mel frames as a picture, through small convolutions over time and frequency.

    A formant a little higher or lower meets the same weights, so that few voices teach more than they do
    the maps over all bands of "log-mel". Every stage halves the frequency axis, the first two halve
    time: a token every 4 hops (40 ms), whose `time` is the place that it is centred on. The clips of a
    batch lie one after the other in one long picture with gaps between them, so that nothing is spent on
    padding and no clip sees another.

    Paper: Sainath and Parada 2015, "Convolutional neural networks for small-footprint keyword spotting".

    Args:
        dim: width D of the tokens.
        channels: of the stages, at least two.
        depth: convolutions a stage; those after the first are added to what goes into them.
        dropout: of whole channels, after each stage.
        sample_rate, n_mels, hop, window, max_seconds, normalise, power_compression, floor_db, trim_db, fixed_length, cache_as, modality: see
            `mmattn.encoders.audio.mel_encoder.MelEncoder`.

    Raises:
        InputError: an option is out of range.
        Unreadable: a clip cannot be read, is silent, or is shorter than one window.

    Example:
        >>> import numpy as np
        >>> encoder = ConvMel(dim=16, channels=(4, 8, 8)).eval()
        >>> tone = np.sin(np.arange(4000) * 0.3).astype(np.float32)
        >>> tokens = encoder([(tone, 8000), None])
        >>> tokens.lengths.tolist(), round(float(tokens.time[1]), 3)
        ([13, 0], 0.04)
    """

    name = "conv-mel"

    def __init__(
        self,
        *,
        dim: int = 64,
        channels: Sequence[int] = (24, 48, 64),
        depth: int = 2,
        dropout: float = 0.1,
        sample_rate: int = 8000,
        n_mels: int = 40,
        hop: float = 0.010,
        window: float = 0.025,
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
        if len(channels) < _TIME_HALVINGS or min(channels) < 1 or depth < 1:
            raise InputError(
                f"conv-mel: got channels={tuple(channels)} and depth={depth}, expected two stages or more, "
                "and one convolution or more in each"
            )
        self.channels = tuple(channels)
        self.depth = depth
        self.dropout = dropout
        stages, height = [], n_mels
        for stage, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
            stages.append(PackedStage(before, after, 2 if stage < _TIME_HALVINGS else 1, depth, dropout))
            height = (height + 1) // 2
        self.stages = nn.ModuleList(stages)
        self.projection = nn.Linear(channels[-1] * height, dim)
        self.norm = nn.LayerNorm(dim)

    def options(self) -> dict[str, Any]:
        own = {"channels": list(self.channels), "depth": self.depth, "dropout": self.dropout}
        return {**super().options(), **own}

    def encode(self, contents: Sequence[Any]) -> Tokens:
        there = self.batch_frames([content for content in contents if content is not None])
        if not there:
            return self.pack_rows(contents, [], _HOPS_PER_TOKEN)
        x_NFC, clip_N = _concatenate_clips(there)
        for stage in self.stages:
            x_NFC, clip_N = stage(x_NFC, clip_N)
        x_ND = self.norm(self.projection(x_NFC[clip_N >= 0].flatten(1)))
        lengths = clip_N[clip_N >= 0].bincount(minlength=len(there)).tolist()
        return self.pack_rows(contents, x_ND.split(lengths), _HOPS_PER_TOKEN)


class PackedStage(nn.Module):
    """Convolutions over clips in one long picture; the first halves frequency, and time where asked to."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, depth: int, dropout: float):
        super().__init__()
        self.downsample = PackedConvolution(in_channels, out_channels, (stride, 2))
        self.residual_convolutions = nn.ModuleList(
            PackedConvolution(out_channels, out_channels) for _ in range(depth - 1)
        )
        self.stride = stride
        self.dropout = dropout

    def forward(self, x: Tensor, clip_index: Tensor) -> tuple[Tensor, Tensor]:
        """[N, F, C] and the clip [N] of each frame, -1 in gaps; what comes out is laid out the same way."""
        clip_index = clip_index[:: self.stride]
        x_NFC = self.downsample(x, clip_index)
        for convolution in self.residual_convolutions:
            x_NFC = x_NFC + convolution(x_NFC, clip_index)
        if self.training and self.dropout:
            x_NFC = x_NFC * self._channel_dropout_mask(clip_index, x_NFC.shape[2])
        return x_NFC, clip_index

    def _channel_dropout_mask(self, clip_N: Tensor, channels: int) -> Tensor:
        """Each clip loses channels of its own: [N, 1, C]."""
        draws_BC = torch.rand(int(clip_N.max()) + 1, channels, device=clip_N.device)
        kept_BC = (draws_BC >= self.dropout) / (1 - self.dropout)
        return kept_BC[clip_N.clamp_min(0), None]


class PackedConvolution(nn.Module):
    """A convolution over time and frequency, batch norm over what is no gap, ReLU; gaps stay zero.

    Paper: Ioffe and Szegedy, "Batch Normalization", 2015.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, clip_index: Tensor) -> Tensor:
        """[N, F, C] -> [N', F', C'], zero where `clip_index` [N'] is -1."""
        there = (clip_index >= 0).nonzero()[:, 0]
        # A view of channels that come last in memory, as the fast kernels want them.
        y_NFC = self.convolution(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        y_MFC = y_NFC[there]
        normed_MFC = self.norm(y_MFC.flatten(0, 1)).relu().view_as(y_MFC)
        return torch.zeros_like(y_NFC).index_copy(0, there, normed_MFC)


def _concatenate_clips(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Clips [T, F] one after the other, [N, F, 1], and the clip [N] of each frame, -1 in the gaps.

    Each begins at a multiple of what all halvings make one, with such a gap behind it: then a gap of a
    frame is left at the end, which is as far as a convolution sees.
    """
    step = 2**_TIME_HALVINGS
    starts, total = [], step
    for clip in clips:
        starts.append(total)
        total += step * (-(-len(clip) // step) + 1)
    x_NF = clips[0].new_zeros(total, clips[0].shape[1])
    clip_N = torch.full((total,), -1, device=x_NF.device)
    for number, (start, clip) in enumerate(zip(starts, clips, strict=True)):
        x_NF[start : start + len(clip)] = clip
        clip_N[start : start + len(clip)] = number
    return x_NF[:, :, None], clip_N
