"""Base of image encoders that give one token per patch of a pretrained feature map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.image.image_io import read_square_image
from mmattn.encoders.pretrained import PretrainedEncoder
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["PatchEncoder"]


class PatchEncoder(PretrainedEncoder):
    """Base of the encoders that turn an image into grid x grid tokens.

    The image is resized to a square without cropping and goes through the network; the last feature map is
    averaged over grid x grid patches, at positions 0, 1, ... row by row.

    Args:
        load: returns the network (a timm model).
        size: side of the square in pixels.
        mean: mean of each channel, for values of 0 to 1.
        std: standard deviation of each channel.
        grid: patches per side; 1 for one token per image.
        batch_size: images per batch of the network.
        frozen: False to fine-tune the network as `encoder.trained`.
        modality: name of the modality in the tokens.

    Raises:
        InputError: `grid` or `batch_size` is below 1.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        grid: int,
        batch_size: int,
        frozen: bool,
        modality: str,
    ):
        if grid < 1:
            raise InputError(f"{self.name}: got grid={grid}, expected at least 1")
        super().__init__(load, modality=modality, frozen=frozen, batch_size=batch_size)
        self.size = size
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.grid = grid

    def preprocessing(self) -> Mapping[str, Any]:
        return {
            "size": self.size,
            "resize": "squeeze, bicubic, JPEG draft",
            "mean": list(self.mean),
            "std": list(self.std),
            "grid": self.grid,
        }

    def read(self, content: Any) -> Tensor:
        return read_square_image(content, self.size)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        present = [index for index, content in enumerate(contents) if content is not None]
        sequences: list[Tensor | None] = [None] * len(contents)
        for start in range(0, len(present), self.batch_size):
            batch = present[start : start + self.batch_size]
            pixels_BCHW = torch.stack([self.read(contents[index]) for index in batch])
            for index, patches_TD in zip(batch, self.encode_pixels(pixels_BCHW), strict=True):
                sequences[index] = patches_TD
        return self.pack(sequences)

    def encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        """Run the network on images.

        Args:
            pixels_BCHW: [B, 3, size, size] uint8.

        Returns:
            [B, grid * grid, D].
        """
        mean_C11, std_C11 = (
            torch.tensor(channels, device=self.device)[:, None, None] for channels in (self.mean, self.std)
        )
        with self.grad_context():
            network = self.network
            scaled_BCHW = (pixels_BCHW.to(self.device) / 255 - mean_C11) / std_C11
            # The channels-last layout is twice as fast on CPUs, and faster on GPUs.
            scaled_BCHW = scaled_BCHW.contiguous(memory_format=torch.channels_last)
            features = network.forward_features(scaled_BCHW)  # type: ignore[operator]
            map_BDhw = _feature_map(features, network)
            patches_BDhw = nn.functional.adaptive_avg_pool2d(map_BDhw, self.grid)
        return patches_BDhw.flatten(2).transpose(1, 2)


def _feature_map(features: Tensor, network: nn.Module) -> Tensor:
    """Bring the output of `forward_features` (a map, channels last or not, or a sequence) to [B, D, h, w]."""
    if features.dim() == 4:
        channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if channels_last else features
    patches_BTD = features[:, getattr(network, "num_prefix_tokens", 0) :]
    side = round(patches_BTD.shape[1] ** 0.5)
    if side * side != patches_BTD.shape[1]:
        raise InputError(
            f"{type(network).__name__} gives {patches_BTD.shape[1]} patches, expected a square of them"
        )
    return patches_BTD.transpose(1, 2).unflatten(2, (side, side))
