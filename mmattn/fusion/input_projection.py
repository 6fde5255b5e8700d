"""The way into the fusion core: tokens of any encoder become tokens of one width that know what they are."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, nearest
from mmattn.fusion.pool import segment_mean
from mmattn.types import Tokens

__all__ = ["Entry", "Projection", "sinusoids"]


class Projection(nn.Module):
    """Maps the tokens of one modality to width D.

    It starts as nearly an isometry: lengths and angles of the tokens are kept, so that what a good
    encoder says of likeness holds from the first step on. A modality may have a block of the D
    coordinates to itself; then the likeness of two samples starts as the sum of the likenesses in each
    modality. Frozen encoders' tokens are mapped by their principal axes (see `calibrate`).

    A modality may have fields: positions that mean different things (title, plot). Each field has a
    map of its own; positions from the last field on share the last one.

    Args:
        width: of the tokens that come in.
        dim: width D that goes out.
        fields: how many positions are fields of their own.
        block: first coordinate and number of coordinates of the block; None spreads over all D.
        standardise: bring each component of the tokens to mean 0 and deviation 1 over the batch, for
            encoders trained from scratch, whose tokens differ little at first (Ioffe and Szegedy, 2015).
    """

    def __init__(
        self,
        width: int,
        dim: int,
        fields: int = 1,
        block: tuple[int, int] | None = None,
        standardise: bool = False,
    ):
        super().__init__()
        self.standard = nn.BatchNorm1d(width, affine=False) if standardise else None
        self.fields = fields
        self.block = block
        start = torch.randn(fields, width, dim) * dim**-0.5
        if block is not None:
            start = 0.02 * start
            for field in start:
                field[:, slice(block[0], sum(block))] += nn.init.orthogonal_(torch.empty(width, block[1]))
        self.weight = nn.Parameter(start)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(fields))

    @torch.no_grad()
    def calibrate(self, tokens: Tokens) -> None:
        """Take the scale, so that tokens come in with length 1, and the principal axes from training.

        Args:
            tokens: of a frozen encoder, training samples only.
        """
        field_N = self._field(tokens)
        length_N = tokens.values.float().norm(dim=1, keepdim=True)
        mean_F = segment_mean(length_N, field_N, self.fields)[:, 0]
        self.scale.copy_(torch.where(mean_F > 0, 1 / mean_F.clamp_min(1e-12), 1.0))
        if self.block is None or not len(tokens.values):
            return
        begin, size = self.block
        # The axes of the largest second moments, from a [W, W] matrix: cheap for any number of rows.
        moments_WW = tokens.values.float().T @ tokens.values.float()
        axes_WA = torch.linalg.eigh(moments_WW).eigenvectors.flip(1)[:, :size]
        self.weight[:, :, begin : begin + size] *= 0.0
        self.weight[:, :, begin : begin + axes_WA.shape[1]] = axes_WA.to(self.weight.device)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of N rows -> [N, D]."""
        field_N = self._field(tokens)
        x_NW = tokens.values.to(self.weight.dtype) * self.scale[field_N][:, None]
        if self.standard is not None and (len(x_NW) > 1 or not self.training):
            self.standard.train(self.training and self.weight.requires_grad)  # frozen: the scale stays too
            x_NW = self.standard(x_NW) * x_NW.shape[1] ** -0.5
        if self.fields == 1:
            return x_NW @ self.weight[0]
        projected_ND = x_NW.new_zeros(len(x_NW), self.weight.shape[2])
        for field, weight in enumerate(self.weight):
            rows = (field_N == field).nonzero()[:, 0]
            projected_ND = projected_ND.index_add(0, rows, x_NW[rows] @ weight)
        return projected_ND

    def _field(self, tokens: Tokens) -> Tensor:
        return tokens.position.clamp(0, self.fields - 1)


class Entry(nn.Module):
    """Projects each modality to width D, adds a learned vector a modality and a code of the position.

    Both additions start at zero: at first a token is what its encoder said.

    Args:
        inputs: modality -> width of its tokens; fixes the order of the modalities from here on.
        dim: width D of the fusion core, an even number.
        fields: modality -> number of its fields (see `Projection`), where it has some.
        shares: modality -> share of the D coordinates that is its own block; modalities that are not
            named spread over all.
        standardise: modalities whose tokens are standardised over the batch.
        unplaced: modalities whose tokens get no code of their position: streams, which go on longer than
            anything that was trained on.

    Raises:
        InputError: no modality, an odd width, or shares that add up to more than 1.

    Example:
        >>> import torch
        >>> entry = Entry({"text": 3, "image": 5}, dim=8)
        >>> entry({"image": Tokens.from_sequences([torch.randn(2, 5)], "image")}).presence.tolist()
        [[False, True]]
    """

    def __init__(
        self,
        inputs: Mapping[str, int],
        dim: int,
        fields: Mapping[str, int] | None = None,
        shares: Mapping[str, float] | None = None,
        standardise: Collection[str] = (),
        unplaced: Collection[str] = (),
    ):
        super().__init__()
        if not inputs:
            raise InputError("fusion: got no modality, expected at least one encoder")
        if dim % 2:
            raise InputError(f"fusion: got width {dim}, expected an even number")
        blocks = _blocks(shares or {}, dim)
        self.inputs = dict(inputs)
        self.dim = dim
        self.projections = nn.ModuleDict(
            {
                name: Projection(
                    width, dim, (fields or {}).get(name, 1), blocks.get(name), name in standardise
                )
                for name, width in inputs.items()
            }
        )
        self.unplaced = frozenset(unplaced)
        self.kinds = nn.Parameter(torch.zeros(len(inputs), dim))
        self.position_scale = nn.Parameter(torch.zeros(len(inputs)))

    def calibrate(self, parts: Mapping[str, Tokens]) -> None:
        """Take each modality's scale and principal axes from training tokens of frozen encoders."""
        for name, tokens in parts.items():
            self._check(name, tokens)
            self.projections[name].calibrate(tokens)  # type: ignore[operator]

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
            self._check(name, tokens)
        # An empty first part fixes the order of the modalities, whichever are there.
        samples, like = len(next(iter(parts.values()))), self.kinds
        order = Tokens.empty(samples, self.dim, tuple(self.inputs), dtype=like.dtype, device=like.device)
        return Tokens.cat([order, *(self._enter(name, parts[name]) for name in self.inputs if name in parts)])

    def _enter(self, name: str, tokens: Tokens) -> Tokens:
        kind = list(self.inputs).index(name)
        x_ND = self.projections[name](tokens) + self.kinds[kind]
        if name not in self.unplaced:
            x_ND = x_ND + self.position_scale[kind] * sinusoids(tokens.position, self.dim).to(x_ND.dtype)
        return Tokens(
            values=x_ND.to(self.kinds.dtype),
            offsets=tokens.offsets,
            modality=torch.zeros_like(tokens.modality),
            position=tokens.position,
            modalities=(name,),
            time=tokens.time,
            entity=tokens.entity,
        )

    def _check(self, name: str, tokens: Tokens) -> None:
        if name not in self.inputs:
            raise InputError(f"fusion: got tokens of {name!r}.{nearest(name, self.inputs)}")
        if tokens.dim != self.inputs[name]:
            raise InputError(
                f"fusion: got {name!r} tokens of width {tokens.dim}, expected {self.inputs[name]}"
            )


def _blocks(shares: Mapping[str, float], dim: int) -> dict[str, tuple[int, int]]:
    """modality -> first coordinate and number of coordinates of its block."""
    if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1 + 1e-9:
        raise InputError(
            f"fusion: got shares {dict(shares)}, expected numbers from 0 that add up to at most 1"
        )
    blocks, start = {}, 0
    for name, share in shares.items():
        size = int(share * dim)
        if size:
            blocks[name] = (start, size)
        start += size
    return blocks


def sinusoids(position: Tensor, dim: int) -> Tensor:
    """[N] positions -> [N, dim] sines and cosines of geometrically spaced wavelengths.

    Paper: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """
    rates = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10_000.0) / dim))
    angles = position[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
