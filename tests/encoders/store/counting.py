"""A frozen encoder for the tests of the store: quick to build, and it remembers what it encoded."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mmattn.encoders.base import Encoder, EncoderCard, Unreadable
from mmattn.types import Tokens


class Counting(Encoder):
    """Tokens that follow from the text alone; texts that begin with "bad" cannot be read."""

    name = "counting"
    modality = "text"
    dim = 7
    frozen = True

    def __init__(self, *, revision: str = "1", pause: float = 0.0, late: bool = False) -> None:
        super().__init__()
        self.revision = revision
        self.pause = pause
        self.late = late
        self.encoded: list[str] = []

    def read(self, content: Any) -> str:
        if not self.late:
            self.refuse(content)
        return str(content)

    def refuse(self, content: Any) -> None:
        if str(content).startswith("bad"):
            raise Unreadable(f"{content} is no good")

    def size_hint(self, content: Any) -> int:
        return len(str(content))

    def encode(self, contents: Sequence[Any]) -> Tokens:
        time.sleep(self.pause)
        present = [content for content in contents if content is not None]
        for content in present:
            self.refuse(content)
        self.encoded += present
        rows = [None if content is None else self.row(content) for content in contents]
        return self.pack(rows, times=[None if row is None else row[:, 0].double().float() for row in rows])

    def row(self, content: str) -> torch.Tensor:
        generator = np.random.default_rng(zlib.crc32(content.encode()))
        values = torch.from_numpy(generator.normal(size=(len(content) % 5, self.dim))).float()
        return values * (torch.inf if content == "infinite" else 1)

    def describe(self) -> EncoderCard:
        return EncoderCard(self.name, self.modality, self.dim, self.revision, weights_hash="constant")
