"""The whole model in one readable forward: encode, fuse, heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmattn.encoders.base import Encoder
from mmattn.errors import InputError, nearest
from mmattn.fusion.core import FusionCore
from mmattn.types import Fused, Sample, Tokens

__all__ = ["Model"]


class Model(nn.Module):
    """Encoders, one shared fusion core, heads.

    Args:
        encoders: modality -> encoder; the keys are looked up in `Sample.content`.
        core: the fusion core, built for the widths of these encoders.
        heads: name -> head.

    Example:
        See `mmattn.build.build_model`, which puts one together from a configuration.
    """

    def __init__(self, encoders: Mapping[str, Encoder], core: FusionCore, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self.core = core
        self.heads = nn.ModuleDict(heads)

    def encode(self, samples: Sequence[Sample]) -> dict[str, Tokens]:
        """Tokens of each modality, [B] samples each; what a sample does not have gives no tokens."""
        return {
            name: encoder.encode([sample.content.get(name) for sample in samples])
            for name, encoder in self.encoders.items()
        }

    def fuse(self, parts: Mapping[str, Tokens], context: Any = None) -> Fused:
        """Fuse tokens that encoders (or the feature store) made."""
        return self.core(parts, context)

    def forward(self, samples: Sequence[Sample], context: Any = None) -> dict[str, Any]:
        """Samples in, what each head says out."""
        fused = self.fuse(self.encode(samples), context)
        return {name: head(fused) for name, head in self.heads.items()}

    def head(self, name: str) -> Any:
        """The head of that name.

        Raises:
            InputError: there is none; the nearest name is suggested.
        """
        if name not in self.heads:
            raise InputError(f"model: no head {name!r}.{nearest(name, self.heads)}")
        return self.heads[name]
