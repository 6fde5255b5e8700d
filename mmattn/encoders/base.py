"""What an encoder is: raw contents in, one token sequence a sample out, and a card that says what made them.

To add one, read README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.errors import InputError
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
    """Base of the encoders. Subclasses set `modality`, `dim`, `frozen`, and write `encode`.

    Attributes:
        modality: name of the modality in the tokens (and the key in `Sample.content`).
        dim: width D of the tokens.
        frozen: True where the weights never change, so that tokens can be stored and used again.
    """

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

        Raises:
            Unreadable: with the reason, in a few words.
        """
        return content

    def content_hash(self, content: Any) -> str:
        """A hash of the raw content: file bytes for a path, otherwise the value itself."""
        return hash_content(content)

    def forward(self, contents: Sequence[Any]) -> Tokens:
        return self.encode(contents)


def hash_content(content: Any) -> str:
    """SHA-256 of a raw content: a path's bytes, a string, or any JSON value.

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
        digest.update(f"array:{shape}:".encode() + content.tobytes())
    else:
        try:
            digest.update(b"json:" + json.dumps(content, sort_keys=True).encode())
        except TypeError as error:
            raise Unreadable(f"got {type(content).__name__}, expected a path, text, array or JSON value") from error
    return digest.hexdigest()


def hash_weights(state: Mapping[str, Tensor]) -> str:
    """A hash of a state dict: names, shapes, dtypes and every value, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}:".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
