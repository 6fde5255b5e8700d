"""Images through any timm model."""

from __future__ import annotations

import difflib
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from mmattn.encoders.base import hash_weights
from mmattn.encoders.image.patch_encoder import PatchEncoder
from mmattn.encoders.pretrained import import_optional, read_state_dict
from mmattn.errors import InputError
from mmattn.files import sha256_file

__all__ = ["TimmImage"]


class TimmImage(PatchEncoder):
    """Any timm model that has `forward_features`: convolutional networks and vision transformers.

    Args:
        model_name: as in `timm.list_models()`.
        weights: a file of weights (.safetensors, or a torch file of plain tensors); "pretrained" for
            timm's, which are downloaded; None for random ones, to be trained (frozen=False).
        grid: patches per side; 1 for one token per image.
        size: side of the square in pixels; by default the size that the model was trained on.
        batch_size: images per batch of the network.
        frozen: whether the weights are frozen; by default True if there are weights.
        modality: name of the modality in the tokens.

    Raises:
        InputError: timm has no such model, the weights do not fit it, or random weights are frozen.
        MissingDependency: timm is not installed.

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
        timm = import_optional("timm", "offline")
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


def _load_timm(model_name: str, weights: str | Path | None, size: int) -> nn.Module:
    timm = import_optional("timm", "offline")
    pretrained = weights == "pretrained"
    try:  # models with position embeddings are built for one size, others take no such argument
        network = timm.create_model(model_name, pretrained=pretrained, num_classes=0, img_size=size)
    except TypeError:
        network = timm.create_model(model_name, pretrained=pretrained, num_classes=0)
    if weights is None or pretrained:
        return network
    expected = network.state_dict()
    state = {name: tensor for name, tensor in read_state_dict(Path(weights)).items() if name in expected}
    mismatches = [name for name in expected if name not in state or state[name].shape != expected[name].shape]
    if mismatches:
        raise InputError(
            f"timm model {model_name!r}: {weights} has no fitting {mismatches[0]!r} "
            f"({len(mismatches)} of {len(expected)} tensors are missing or of another shape)"
        )
    network.load_state_dict(state)
    return network
