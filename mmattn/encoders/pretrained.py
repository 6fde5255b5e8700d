"""Base of the encoders with a pretrained network: loaded on first use, frozen by default."""

from __future__ import annotations

import hashlib
import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard, hash_weights
from mmattn.errors import InputError, MissingDependency
from mmattn.files import sha256_file

__all__ = ["PretrainedEncoder", "hash_files", "import_optional", "read_state_dict"]


class PretrainedEncoder(Encoder):
    """Base of the encoders with a pretrained network.

    A frozen network is loaded on first use (a run that finds all features stored never loads it), runs
    without gradients and is no submodule: checkpoints hold the hash of its card instead of its weights. A
    network that is not frozen is the submodule `trained` and is fine-tuned with the model; wrap
    `encoder.trained` to tune only a part of it.

    Args:
        load: returns the network with its weights.
        modality: name of the modality in the tokens.
        frozen: whether the weights are frozen.
        batch_size: contents per batch of the network.

    Raises:
        InputError: `batch_size` is below 1.
    """

    def __init__(self, load: Callable[[], nn.Module], *, modality: str, frozen: bool, batch_size: int):
        super().__init__()
        if batch_size < 1:
            raise InputError(f"{type(self).__name__}: got batch_size={batch_size}, expected at least 1")
        self.modality = modality
        self.frozen = frozen
        self.batch_size = batch_size
        self._load = load
        # A list hides the frozen network from parameters() and state_dict().
        self._hidden_network: list[nn.Module] = []
        self._device_probe: Tensor
        self.register_buffer("_device_probe", torch.empty(0), persistent=False)  # follows .to(device)
        if not frozen:
            self.trained = load()
        self.train(not frozen)

    @property
    def network(self) -> nn.Module:
        """The network, on this encoder's device."""
        if not self.frozen:
            return self.trained
        if not self._hidden_network:
            self._hidden_network.append(self._load().eval().requires_grad_(False))
        return self._hidden_network[0].to(self._device_probe.device)

    def train(self, mode: bool = True) -> Self:
        """Set training mode as in `Encoder`; batch norms with frozen weights (LoRA) keep their statistics.

        Args:
            mode: True for training.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _is_trainable(module):
                module.eval()
        return self

    def grad_context(self) -> AbstractContextManager[Any]:
        """Return the context in which the network runs: without gradients where it is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the frozen weights. Subclasses with a file of weights hash the file, without loading it."""
        return hash_weights(self.network.state_dict())

    @property
    @abstractmethod
    def revision_name(self) -> str:
        """Source and version of the weights, for the card."""

    @abstractmethod
    def preprocessing(self) -> Mapping[str, Any]:
        """Return the steps before and after the network, for the card (JSON values)."""

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision=self.revision_name,
            preprocessing=self.preprocessing(),
            weights_hash=self.weights_hash if self.frozen else "",
        )


def _is_trainable(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def import_optional(name: str, extra: str) -> Any:
    """Import an optional library.

    Args:
        name: module name.
        extra: extra of mmattn that installs it.

    Returns:
        The module.

    Raises:
        MissingDependency: it is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{error.name} is not installed: pip install 'mmattn[{extra}]'") from error


def hash_files(folder: Path, patterns: Iterable[str]) -> str:
    """Hash the names and bytes of the files in a folder that match a pattern.

    Args:
        folder: the folder.
        patterns: glob patterns.

    Returns:
        The SHA-256 in hexadecimal.
    """
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    lines = [f"{name}:{sha256_file(folder / name)}" for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors file, or a torch file of plain tensors (no code is run).

    Args:
        path: the file.

    Returns:
        name -> tensor.

    Raises:
        InputError: the file does not exist, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"weights: no file {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can make the unpickler raise anything
        raise InputError(f"weights: {path} holds no plain tensors ({str(error).splitlines()[0]})") from error
    for key in ("state_dict", "model_state", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights: {path} holds no state dict")
    return state
