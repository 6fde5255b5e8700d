"""What an encoder is: raw contents in, one token sequence a sample out, and a card that says what made them.

To add one, read README.md beside this file.
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
    """A content that cannot be read (a broken picture, an empty clip). The message is the reason."""


@dataclass(frozen=True)
class EncoderCard:
    """The provenance of a token: everything that decides its value.

    Args:
        name: registry name of the encoder.
        modality: what it encodes, for example "image".
        dim: width D of its tokens.
        revision: version of the model or of the package that carries it.
        preprocessing: the steps before the network and their settings (JSON values).
        weights_hash: hash of all weights; "" for a trainable encoder, whose weights change.
        dtype: of the tokens, for example "float32".
    """

    name: str
    modality: str
    dim: int
    revision: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    weights_hash: str = ""
    dtype: str = "float32"

    def fingerprint(self) -> str:
        """A hash of the whole card: equal fingerprints mean interchangeable tokens."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Encoder(nn.Module, ABC):
    """Base of the encoders. Subclasses set `name`, `modality`, `dim`, `frozen`, and write `encode`.

    Call an encoder like any module, `encoder(contents)`: what `encode` gives is then checked.

    Attributes:
        name: the name under which the registry finds it.
        modality: name of the modality in the tokens (and the key in `Sample.content`).
        dim: width D of the tokens.
        frozen: True where the weights never change, so that tokens can be stored and used again.
    """

    name: str
    modality: str
    dim: int
    frozen: bool = False

    @abstractmethod
    def encode(self, contents: Sequence[Any]) -> Tokens:
        """Tokens of one modality, one sequence a content.

        Args:
            contents: raw values or what `read` made of them, one a sample; None where the modality
                is absent, which gives a sequence without tokens.

        Returns:
            `Tokens` with `len(contents)` samples, width `dim`, modalities `(self.modality,)`, on the
            encoder's device.

        Raises:
            Unreadable: a content that is there cannot be read.
        """

    @abstractmethod
    def describe(self) -> EncoderCard:
        """The card of this encoder as it stands."""

    def options(self) -> dict[str, Any]:
        """Keyword arguments (JSON values) that build this encoder again through the registry."""
        return {}

    def read(self, content: Any) -> Any:
        """Decode one raw content into what `encode` works on; what is decoded already passes through.

        A training loop reads once and encodes many times.

        Raises:
            Unreadable: with the reason, in a few words.
        """
        return content

    def content_hash(self, content: Any) -> str:
        """A hash of the raw content: file bytes for a path, otherwise the value itself."""
        return hash_content(content)

    def size_hint(self, content: Any) -> int:
        """How long the content is, in any unit: the feature store encodes like lengths together."""
        return 0

    @property
    def device(self) -> torch.device:
        """Where the parameters are (the CPU for an encoder that has none)."""
        tensors = chain(self.parameters(), self.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    def train(self, mode: bool = True) -> Self:
        """As in `torch.nn.Module`, but a frozen encoder stays in evaluation: no dropout in its features."""
        return super().train(mode and not self.frozen)

    def forward(self, contents: Sequence[Any]) -> Tokens:
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
        """Tokens of this encoder's modality from one sequence a sample: what most `encode`s end with.

        Args:
            sequences: [T_b, D] each; None for a sample without tokens.
            positions: [T_b] int64 each; left out, the tokens of a sample are counted from 0.
            times: [T_b] seconds each; left out, the tokens have no time.
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
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return replace(tokens, position=_concatenated(positions, none))


def _concatenated(parts: Sequence[Tensor | None], empty: Tensor) -> Tensor:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else empty


def hash_content(content: Any) -> str:
    """SHA-256 of a raw content: a path's bytes, a string, an array, a tuple of these, or any JSON value.

    Raises:
        Unreadable: the file cannot be opened, or the value is of no kind known here.
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
    """A hash of a state dict: names, shapes, dtypes and every value, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
