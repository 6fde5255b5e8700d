"""Interface of encoders: raw contents to one token sequence per sample, with a provenance card.

README.md in this folder describes how to add one.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, PluginError
from mmattn.types import Tokens

__all__ = ["Encoder", "EncoderCard", "Unreadable", "hash_content", "hash_weights"]


class Unreadable(InputError):
    """A content that cannot be read (a damaged image, an empty clip). The message is the reason."""


@dataclass(frozen=True)
class EncoderCard:
    """The provenance of tokens: everything that determines their values.

    Args:
        name: registry name of the encoder.
        modality: modality of the tokens, for example "image".
        dim: width D of the tokens.
        revision: version of the model or of the package with its weights.
        preprocessing: the steps before the network and their settings (JSON values).
        weights_hash: hash of all weights; "" for a trainable encoder, whose weights change.
        dtype: dtype of the tokens, for example "float32".
    """

    name: str
    modality: str
    dim: int
    revision: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    weights_hash: str = ""
    dtype: str = "float32"

    def fingerprint(self) -> str:
        """Return a hash of the whole card: equal fingerprints mean interchangeable tokens."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Encoder(nn.Module, ABC):
    """Base of the encoders.

    Subclasses set `name`, `modality`, `dim` and `frozen`, and write `encode` and `describe`. Call an encoder
    like any module, `encoder(contents)`: the result of `encode` is then checked.

    Attributes:
        name: name in the registry.
        modality: name of the modality in the tokens (and the key in `Sample.content`).
        dim: width D of the tokens.
        frozen: True where the weights never change, so that tokens can be stored and reused.
    """

    name: str
    modality: str
    dim: int
    frozen: bool = False

    @abstractmethod
    def encode(self, contents: Sequence[Any]) -> Tokens:
        """Encode contents as tokens of one modality, one sequence per content.

        Args:
            contents: B raw contents or results of `read`, one per sample; None where the modality is absent,
                which gives a sequence without tokens.

        Returns:
            `Tokens` with `len(contents)` samples, width `dim`, modalities `(self.modality,)`, on the
            encoder's device.

        Raises:
            Unreadable: a content cannot be read.
        """

    @abstractmethod
    def describe(self) -> EncoderCard:
        """Return the card of this encoder in its current state."""

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments (JSON values) that rebuild this encoder through the registry."""
        return {}

    def read(self, content: Any) -> Any:
        """Decode one raw content into the input of `encode`; decoded contents pass through.

        A training loop reads once and encodes many times.

        Args:
            content: a raw or decoded content.

        Returns:
            The decoded content.

        Raises:
            Unreadable: the content cannot be read; the message is the reason in a few words.
        """
        return content

    def content_hash(self, content: Any) -> str:
        """Hash a raw content: the file's bytes for a path, otherwise the value itself.

        Args:
            content: a raw content.

        Raises:
            Unreadable: the file cannot be opened, or the value has an unknown type.
        """
        return hash_content(content)

    def size_hint(self, content: Any) -> int:
        """Estimate the length of a content, by which the feature store forms batches.

        Args:
            content: a raw content.

        Returns:
            The length in any unit.
        """
        return 0

    @property
    def device(self) -> torch.device:
        """The device of the parameters (the CPU for an encoder without any)."""
        tensors = chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def train(self, mode: bool = True) -> Self:
        """Set training mode as in `torch.nn.Module`; a frozen encoder stays in evaluation mode.

        Args:
            mode: True for training.
        """
        return super().train(mode and not self.frozen)

    def forward(self, contents: Sequence[Any]) -> Tokens:
        """Encode contents and check the tokens.

        Args:
            contents: as in `encode`.

        Returns:
            As in `encode`.

        Raises:
            PluginError: `encode` returned tokens with the wrong number of samples, width, modality or device.
            Unreadable: a content cannot be read.
        """
        tokens = self.encode(contents)
        self._check(tokens, len(contents))
        return tokens

    def _check(self, tokens: Any, samples: int) -> None:
        where = f"encoder {self.name!r} ({type(self).__name__}): encode"
        if not isinstance(tokens, Tokens):
            raise PluginError(f"{where} gave {type(tokens).__name__}, expected Tokens")
        for what, got, expected in (
            ("samples", len(tokens), samples),
            ("width", tokens.dim, self.dim),
            ("modalities", tokens.modalities, (self.modality,)),
            ("device", tokens.device, self.device),
        ):
            if got != expected:
                raise PluginError(f"{where} gave tokens with {what} {got}, expected {expected}")

    def pack(
        self,
        sequences: Sequence[Tensor | None],
        positions: Sequence[Tensor | None] | None = None,
        times: Sequence[Tensor | None] | None = None,
    ) -> Tokens:
        """Pack one sequence per sample into tokens of this encoder's modality.

        Args:
            sequences: [T_b, D] for each of the B samples; None for a sample without tokens.
            positions: [T_b] int64 each; by default tokens are numbered from 0 in each sample.
            times: [T_b] seconds each; by default the tokens have no time.

        Returns:
            Tokens of B samples.
        """
        device = self.device
        lengths = [0 if sequence is None else len(sequence) for sequence in sequences]
        values_ND = _concatenated(sequences, torch.zeros(0, self.dim, device=device))
        tokens = Tokens.from_lengths(
            values_ND,
            torch.tensor(lengths, dtype=torch.int64, device=device),
            self.modality,
            time=None if times is None else _concatenated(times, torch.zeros(0, device=device)),
        )
        if positions is None:
            return tokens
        no_positions = torch.zeros(0, dtype=torch.int64, device=device)
        return replace(tokens, position=_concatenated(positions, no_positions))


def _concatenated(parts: Sequence[Tensor | None], empty: Tensor) -> Tensor:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else empty


def hash_content(content: Any) -> str:
    """Compute the SHA-256 of a raw content.

    Args:
        content: a path (its bytes are hashed), bytes, an array, a PIL image, a tuple of these, or any JSON
            value.

    Returns:
        The hash in hexadecimal.

    Raises:
        Unreadable: the file cannot be opened, or the value has an unknown type.
    """
    digest = hashlib.sha256()
    if isinstance(content, Path):
        try:
            digest.update(b"bytes:" + content.read_bytes())
        except OSError as error:
            raise Unreadable(f"cannot open {content}: {error.strerror}") from error
    elif isinstance(content, bytes):
        digest.update(b"bytes:" + content)
    elif hasattr(content, "tobytes"):  # a numpy array or a PIL image
        shape = getattr(content, "shape", getattr(content, "size", ""))
        kind = getattr(content, "dtype", getattr(content, "mode", ""))
        digest.update(f"array:{shape}:{kind}:".encode() + content.tobytes())
    elif isinstance(content, tuple):  # (samples, rate)
        digest.update(("tuple:" + ":".join(hash_content(part) for part in content)).encode())
    else:
        try:
            digest.update(b"json:" + json.dumps(content, sort_keys=True).encode())
        except TypeError as error:
            raise Unreadable(
                f"got {type(content).__name__}, expected a path, text, array or JSON value"
            ) from error
    return digest.hexdigest()


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """Hash a state dict: names, shapes, dtypes and values, in the order of the names.

    Args:
        state: name -> tensor.

    Returns:
        The SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
