"""The way into the fusion core: tokens of any encoder become tokens of one width that know what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = ["Entry", "sinusoids"]


class Entry(nn.Module):
    """Projects each modality to width D, adds a learned vector a modality and a code of the position.

    Args:
        inputs: modality -> width of its tokens; fixes the order of the modalities from here on.
        dim: width D of the fusion core.
        dropout: probability of dropping a component of the projected tokens.

    Raises:
        InputError: no modality, or an odd width.

    Example:
        >>> import torch
        >>> entry = Entry({"text": 3, "image": 5}, dim=8)
        >>> entry({"image": Tokens.from_sequences([torch.randn(2, 5)], "image")}).presence.tolist()
        [[False, True]]
    """

    def __init__(self, inputs: Mapping[str, int], dim: int, dropout: float = 0.0):
        super().__init__()
        if not inputs:
            raise InputError("fusion: got no modality, expected at least one encoder")
        if dim % 2:
            raise InputError(f"fusion: got width {dim}, expected an even number")
        self.inputs = dict(inputs)
        self.dim = dim
        self.projections = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
                for name, width in inputs.items()
            }
        )
        self.kinds = nn.Parameter(torch.randn(len(inputs), dim) * 0.02)
        self.position_scale = nn.Parameter(torch.full((len(inputs),), 0.1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, parts: Mapping[str, Tokens]) -> Tokens:
        """Join what is there.

        Args:
            parts: modality -> tokens of the encoder's width, all of the same samples. A modality
                may be left out: then it is absent from the whole batch.

        Returns:
            Tokens of width D, modalities in the order of `inputs`.

        Raises:
            InputError: a modality that the core was not built for, or a width that differs.
        """
        if not parts:
            raise InputError("fusion: got no tokens of any modality, expected at least one (it may be empty)")
        for name, tokens in parts.items():
            if name not in self.inputs:
                raise InputError(f"fusion: got tokens of {name!r}.{nearest(name, self.inputs)}")
            if tokens.dim != self.inputs[name]:
                raise InputError(
                    f"fusion: got {name!r} tokens of width {tokens.dim}, expected {self.inputs[name]}"
                )
        samples = len(next(iter(parts.values())))
        # An empty first part fixes the order of the modalities, whichever are there.
        weight = self.kinds
        order = Tokens.empty(samples, self.dim, tuple(self.inputs), dtype=weight.dtype, device=weight.device)
        return Tokens.cat([order, *(self._enter(name, parts[name]) for name in self.inputs if name in parts)])

    def _enter(self, name: str, tokens: Tokens) -> Tokens:
        kind = list(self.inputs).index(name)
        x_ND = self.projections[name](tokens.values.to(self.kinds.dtype))
        x_ND = x_ND + self.kinds[kind] + self.position_scale[kind] * sinusoids(tokens.position, self.dim)
        return Tokens(
            values=self.dropout(x_ND),
            offsets=tokens.offsets,
            modality=torch.zeros_like(tokens.modality),
            position=tokens.position,
            modalities=(name,),
            time=tokens.time,
            entity=tokens.entity,
        )


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """[N] positions -> [N, dim] sines and cosines of geometrically spaced wavelengths.

    Paper: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """
    rates = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10_000.0) / dim))
    angles = position[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
