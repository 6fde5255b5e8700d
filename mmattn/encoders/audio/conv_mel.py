"""Log-mel frames through small convolutions over time and frequency, trained with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.audio.mel_encoder import ClipMelEncoder
from mmattn.encoders.audio.mel_options import ClipMelOptions
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["ConvMel", "PackedConvolution", "PackedStage"]

_TIME_HALVINGS = 2  # the first stages halve the time axis
_HOPS_PER_TOKEN = 2**_TIME_HALVINGS


class ConvMel(ClipMelEncoder):
    """Encode log-mel frames as an image, with small convolutions over time and frequency.

    Weights are shared over frequencies, so a formant a little higher or lower meets the same weights: with
    few speakers it generalises better than "log-mel", whose maps span all bands. Every stage halves the
    frequency axis, the first two halve time: there is a token every 4 hops (40 ms), whose `time` is the
    centre of its frames in seconds. The clips of a batch are packed into one long image with gaps between
    them, which saves the padding and keeps clips independent.

    Paper: Sainath and Parada 2015, "Convolutional neural networks for small-footprint keyword spotting".

    Args:
        dim: width D of the tokens.
        channels: channels of each stage, at least two stages.
        depth: convolutions per stage; those after the first are residual.
        dropout: probability of dropping a whole channel, after each stage.
        modality: name of the modality in the tokens.
        **mel: options of the frames, see `mmattn.encoders.audio.mel_options.ClipMelOptions`; `sample_rate` is
            8000 by default.

    Raises:
        InputError: an option is unknown or out of range.

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
        modality: str = "audio",
        **mel: Any,
    ):
        super().__init__(dim, ClipMelOptions.from_keywords(self.name, mel, sample_rate=8000), modality)
        if len(channels) < _TIME_HALVINGS or min(channels) < 1 or depth < 1:
            raise InputError(
                f"conv-mel: got channels={tuple(channels)} and depth={depth}, expected two stages or more, "
                "and one convolution or more in each"
            )
        self.channels = tuple(channels)
        self.depth = depth
        self.dropout = dropout
        stages, height = [], self.mel.n_mels
        for index, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
            stages.append(PackedStage(before, after, 2 if index < _TIME_HALVINGS else 1, depth, dropout))
            height = (height + 1) // 2
        self.stages = nn.ModuleList(stages)
        self.projection = nn.Linear(channels[-1] * height, dim)
        self.norm = nn.LayerNorm(dim)

    def options(self) -> dict[str, Any]:
        network = {"channels": list(self.channels), "depth": self.depth, "dropout": self.dropout}
        return {**super().options(), **network}

    def encode(self, contents: Sequence[Any]) -> Tokens:
        clips = self.batch_frames([content for content in contents if content is not None])
        if not clips:
            return self.pack_rows(contents, [], _HOPS_PER_TOKEN)
        x_NFC, clip_N = _concatenate_clips(clips)
        for stage in self.stages:
            x_NFC, clip_N = stage(x_NFC, clip_N)
        x_ND = self.norm(self.projection(x_NFC[clip_N >= 0].flatten(1)))
        lengths = clip_N[clip_N >= 0].bincount(minlength=len(clips)).tolist()
        return self.pack_rows(contents, x_ND.split(lengths), _HOPS_PER_TOKEN)


class PackedStage(nn.Module):
    """Convolutions over packed clips; the first halves frequency, and time with `stride` 2.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        stride: stride over time.
        depth: number of convolutions.
        dropout: probability of dropping a channel of a clip.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, depth: int, dropout: float):
        super().__init__()
        self.downsample = PackedConvolution(in_channels, out_channels, (stride, 2))
        self.residual_convolutions = nn.ModuleList(
            PackedConvolution(out_channels, out_channels) for _ in range(depth - 1)
        )
        self.stride = stride
        self.dropout = dropout

    def forward(self, x: Tensor, clip_index: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the stage to packed clips.

        Args:
            x: [N, F, C], zero in the gaps between clips.
            clip_index: [N] clip of each frame, -1 in gaps.

        Returns:
            The same two for the output.
        """
        clip_index = clip_index[:: self.stride]
        x_NFC = self.downsample(x, clip_index)
        for convolution in self.residual_convolutions:
            x_NFC = x_NFC + convolution(x_NFC, clip_index)
        if self.training and self.dropout:
            x_NFC = x_NFC * self._channel_dropout_mask(clip_index, x_NFC.shape[2])
        return x_NFC, clip_index

    def _channel_dropout_mask(self, clip_N: Tensor, channels: int) -> Tensor:
        """Draw the channels of each clip that are kept, scaled: [N, 1, C]."""
        draws_BC = torch.rand(int(clip_N.max()) + 1, channels, device=clip_N.device)
        mask_BC = (draws_BC >= self.dropout) / (1 - self.dropout)
        return mask_BC[clip_N.clamp_min(0), None]


class PackedConvolution(nn.Module):
    """A convolution over time and frequency, batch norm without the gaps, ReLU; gaps stay zero.

    Paper: Ioffe and Szegedy, "Batch Normalization", 2015.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        stride: strides over time and frequency.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int] = (1, 1)):
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, x: Tensor, clip_index: Tensor) -> Tensor:
        """Apply the convolution to packed clips.

        Args:
            x: [N, F, C].
            clip_index: [N'] clip of each output frame, -1 in gaps.

        Returns:
            [N', F', C'], zero in gaps.
        """
        valid = (clip_index >= 0).nonzero()[:, 0]
        # The channels-last layout selects the fast kernels.
        y_NFC = self.convolution(x.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        y_MFC = y_NFC[valid]
        normed_MFC = self.norm(y_MFC.flatten(0, 1)).relu().view_as(y_MFC)
        return torch.zeros_like(y_NFC).index_copy(0, valid, normed_MFC)


def _concatenate_clips(clips: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pack clips [T, F] into [N, F, 1], with the clip [N] of each frame, -1 in the gaps.

    Every clip begins at a multiple of the total stride over time, with a gap of at least that length after
    it: one frame of gap is then left at the lowest rate, which is as far as a convolution reaches.
    """
    step = 2**_TIME_HALVINGS
    starts, total = [], step
    for clip in clips:
        starts.append(total)
        total += step * (-(-len(clip) // step) + 1)
    x_NF = clips[0].new_zeros(total, clips[0].shape[1])
    clip_N = torch.full((total,), -1, device=x_NF.device)
    for index, (start, clip) in enumerate(zip(starts, clips, strict=True)):
        x_NF[start : start + len(clip)] = clip
        clip_N[start : start + len(clip)] = index
    return x_NF[:, :, None], clip_N
