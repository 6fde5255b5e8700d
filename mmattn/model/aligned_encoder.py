"""A trained mmattn model as a frozen encoder of another model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmattn.encoders.base import Encoder, EncoderCard, hash_weights
from mmattn.errors import InputError, did_you_mean
from mmattn.model.model import Model
from mmattn.types import Tokens

__all__ = ["AlignedEncoder"]


class AlignedEncoder(Encoder):
    """Encode a content as one token: its vector from the alignment head of a trained model.

    Args:
        model: folder from `Model.save_pretrained`; the model has an alignment head.
        source_modality: modality of that model which encodes the contents.
        head: name of the alignment head.
        batch_size: contents per batch.
        modality: name of the modality in the tokens; left out, `source_modality`.

    Raises:
        InputError: the folder holds no such model, modality or head.

    Example:
        >>> encoder = AlignedEncoder("runs/demo/aligned", source_modality="image")  # doctest: +SKIP
        >>> encoder.encode([Path("seven.png"), None]).lengths.tolist()  # doctest: +SKIP
        [1, 0]
    """

    name = "aligned"
    frozen = True

    def __init__(
        self,
        model: str | Path,
        source_modality: str,
        *,
        head: str = "alignment",
        batch_size: int = 128,
        modality: str = "",
    ):
        super().__init__()
        self.folder = str(model)
        self.model = Model.from_pretrained(model).requires_grad_(False)
        if source_modality not in self.model.encoders:
            raise InputError(
                f"{model}: no modality {source_modality!r}."
                f"{did_you_mean(source_modality, self.model.encoders)}"
            )
        self.source_modality, self.head, self.batch_size = source_modality, head, batch_size
        self.modality = modality or source_modality
        self.dim = self.model.head(head).project.out_features

    def describe(self) -> EncoderCard:
        encoder = self.model.encoders[self.source_modality].describe()
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={"source_modality": self.source_modality, "encoder": encoder.fingerprint()},
            weights_hash=hash_weights(self.model.trained_state()),
        )

    def options(self) -> dict[str, Any]:
        return {
            "model": self.folder,
            "source_modality": self.source_modality,
            "head": self.head,
            "batch_size": self.batch_size,
            "modality": self.modality,
        }

    def read(self, content: Any) -> Any:
        return self.model.encoders[self.source_modality].read(content)

    def content_hash(self, content: Any) -> str:
        return self.model.encoders[self.source_modality].content_hash(content)

    @torch.no_grad()
    def encode(self, contents: Sequence[Any]) -> Tokens:
        self.model.eval()
        batches = [
            self._vectors(contents[start : start + self.batch_size])
            for start in range(0, len(contents), self.batch_size)
        ]
        if not batches:
            return Tokens.empty(0, self.dim, (self.modality,), device=self.model.device)
        present_B = torch.cat([present for present, _ in batches])
        vectors_ND = torch.cat([vectors for _, vectors in batches])
        return Tokens.from_lengths(vectors_ND, present_B.long(), self.modality)

    def _vectors(self, contents: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which contents have tokens [B], and the vectors of those [N, dim]."""
        tokens = self.model.encoders[self.source_modality].encode(contents)
        vectors_BD = self.model.head(self.head)(self.model.fuse({self.source_modality: tokens}))
        present_B = tokens.lengths > 0
        return present_B, vectors_BD[present_B]
