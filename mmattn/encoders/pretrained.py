"""Encoders around a network that somebody else trained: loaded late, frozen unless asked otherwise."""

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
    """Base of the encoders whose weights come from elsewhere.

    Frozen, the network is loaded when something is first encoded (so that a run which finds all its
    features stored never loads it), runs without gradients, and is no submodule: it has no place in a
    checkpoint, where its card's hash names it. Not frozen, it is the submodule `trained` and is
    fine-tuned with everything else; wrap `encoder.trained` to tune only a part of it.

    Args:
        load: makes the network, weights and all.
        modality: name of the modality in the tokens.
        frozen: whether the weights stay as they are.
        batch_size: how many contents go through the network at once.
    """

    def __init__(self, load: Callable[[], nn.Module], *, modality: str, frozen: bool, batch_size: int):
        super().__init__()
        if batch_size < 1:
            raise InputError(f"{type(self).__name__}: got batch_size={batch_size}, expected at least 1")
        self.modality = modality
        self.frozen = frozen
        self.batch_size = batch_size
        self._load = load
        self._hidden_network: list[
            nn.Module
        ] = []  # a list hides the frozen network from parameters() and state_dict()
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
        """As in `Encoder`; batch norms whose weights stay (beside LoRA) keep their statistics, too."""
        super().train(mode)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm) and not _is_trainable(part):
                part.eval()
        return self

    def grad_context(self) -> AbstractContextManager[Any]:
        """The context in which the network runs: without gradients where it is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the frozen weights. Subclasses that have them in a file hash the file: no loading."""
        return hash_weights(self.network.state_dict())

    @property
    @abstractmethod
    def revision_name(self) -> str:
        """What the card says about where the weights come from."""

    @abstractmethod
    def preprocessing(self) -> Mapping[str, Any]:
        """What the card says about the steps before and after the network."""

    def describe(self) -> EncoderCard:
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision=self.revision_name,
            preprocessing=self.preprocessing(),
            weights_hash=self.weights_hash if self.frozen else "",
        )


def _is_trainable(part: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in part.parameters(recurse=False))


def import_optional(name: str, extra: str) -> Any:
    """Import an optional library.

    Raises:
        MissingDependency: it is not installed; the message holds the command that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependency(f"{error.name} is not installed: pip install 'mmattn[{extra}]'") from error


def hash_files(folder: Path, patterns: Iterable[str]) -> str:
    """One hash of the names and bytes of the files in `folder` that match a pattern."""
    names = sorted({path.name for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    lines = [f"{name}:{sha256_file(folder / name)}" for name in names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a .safetensors file or a torch file that holds tensors only (no code is run).

    Raises:
        InputError: the file is not there, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"weights: no file {path}")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file makes the unpickler say
        raise InputError(f"weights: {path} holds no plain tensors ({str(error).splitlines()[0]})") from error
    for key in ("state_dict", "model_state", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights: {path} holds no state dict")
    return state
