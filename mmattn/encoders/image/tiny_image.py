"""A small trainable image encoder that needs no pretrained weights: a convolutional network over patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.image.image_io import read_square_image
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["TinyImage"]


class TinyImage(Encoder):
    """Encode an image as grid x grid patch tokens with a small convolutional network; trained with the model.

    The image is resized to a square. Four convolutions with group normalisation (no statistics across
    samples), averaged over patches, plus a learned position embedding of each patch.

    Args:
        dim: width D of the tokens.
        size: side of the square in pixels, at least 8.
        grid: patches per side.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> import numpy as np
        >>> TinyImage(dim=8, grid=2)([np.zeros((8, 8), np.uint8), None]).lengths.tolist()
        [4, 0]
    """

    name = "tiny-image"

    def __init__(self, *, dim: int = 64, size: int = 32, grid: int = 4, modality: str = "image"):
        super().__init__()
        if size < 8 or grid < 1:
            raise InputError(f"tiny-image: got size={size} and grid={grid}, expected at least 8 and 1")
        self.dim = dim
        self.size = size
        self.grid = grid
        self.modality = modality
        self.network = nn.Sequential(
            *_convolution(3, 32, stride=1),
            *_convolution(32, 64, stride=2),
            *_convolution(64, 64, stride=1),
            *_convolution(64, 128, stride=2),
            nn.AdaptiveAvgPool2d(grid),
            nn.Conv2d(128, dim, 1),
        )
        self.position_embedding = nn.Parameter(torch.randn(grid * grid, dim) * 0.02)

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={"size": self.size, "resize": "squeeze, bicubic, JPEG draft", "grid": self.grid},
        )

    def options(self) -> dict[str, Any]:
        return {"dim": self.dim, "size": self.size, "grid": self.grid, "modality": self.modality}

    def read(self, content: Any) -> Tensor:
        return read_square_image(content, self.size)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        images = [self.read(content) for content in contents if content is not None]
        if not images:
            return Tokens.empty(len(contents), self.dim, (self.modality,), device=self.device)
        pixels_BCHW = torch.stack(images).to(self.device).float() / 127.5 - 1
        patches_BTD = self.network(pixels_BCHW).flatten(2).transpose(1, 2) + self.position_embedding
        lengths = [0 if content is None else self.grid**2 for content in contents]
        return Tokens.from_lengths(
            patches_BTD.flatten(0, 1), torch.tensor(lengths, device=self.device), self.modality
        )


def _convolution(in_channels: int, out_channels: int, *, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1)
    return [convolution, nn.GroupNorm(8, out_channels), nn.GELU()]
