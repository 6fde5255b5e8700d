"""The way into the fusion core: tokens of any encoder become tokens of one width that know what they are."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mmattn.errors import InputError, did_you_mean
from mmattn.fusion.pool import segment_mean
from mmattn.types import Tokens

__all__ = ["InputProjection", "ModalityProjection", "sinusoidal_encoding"]


class ModalityProjection(nn.Module):
    """Maps the tokens of one modality to width D.

    It starts as nearly an isometry: lengths and angles of the tokens are kept, so that what a good
    encoder says of likeness holds from the first step on. A modality may have a block of the D
    coordinates to itself; then the likeness of two samples starts as the sum of the likenesses in each
    modality. Frozen encoders' tokens are mapped by their principal axes (see `calibrate`).

    A modality may have fields: positions that mean different things (title, plot). Each field has a
    map of its own; positions from the last field on share the last one.

    Args:
        input_dim: of the tokens that come in.
        dim: width D that goes out.
        fields: how many positions are fields of their own.
        coordinate_block: first coordinate and number of coordinates of the block; None spreads over all D.
        standardise: bring each component of the tokens to mean 0 and deviation 1 over the batch, for
            encoders trained from scratch, whose tokens differ little at first (Ioffe and Szegedy, 2015).
    """

    def __init__(
        self,
        input_dim: int,
        dim: int,
        fields: int = 1,
        coordinate_block: tuple[int, int] | None = None,
        standardise: bool = False,
    ):
        super().__init__()
        self.input_norm = nn.BatchNorm1d(input_dim, affine=False) if standardise else None
        self.fields = fields
        self.coordinate_block = coordinate_block
        start = torch.randn(fields, input_dim, dim) * dim**-0.5
        if coordinate_block is not None:
            start = 0.02 * start
            for field in start:
                field[:, slice(coordinate_block[0], sum(coordinate_block))] += nn.init.orthogonal_(
                    torch.empty(input_dim, coordinate_block[1])
                )
        self.weight = nn.Parameter(start)
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(fields))

    @torch.no_grad()
    def calibrate(self, tokens: Tokens) -> None:
        """Take the scale, so that tokens come in with length 1, and the principal axes from training.

        Args:
            tokens: of a frozen encoder, training samples only.
        """
        field_N = self._field_index(tokens)
        length_N = tokens.values.float().norm(dim=1, keepdim=True)
        mean_F = segment_mean(length_N, field_N, self.fields)[:, 0]
        self.scale.copy_(torch.where(mean_F > 0, 1 / mean_F.clamp_min(1e-12), 1.0))
        if self.coordinate_block is None or not len(tokens.values):
            return
        begin, size = self.coordinate_block
        # The axes of the largest second moments, from a [W, W] matrix: cheap for any number of rows.
        moments_WW = tokens.values.float().T @ tokens.values.float()
        axes_WA = torch.linalg.eigh(moments_WW).eigenvectors.flip(1)[:, :size]
        self.weight[:, :, begin : begin + size] *= 0.0
        self.weight[:, :, begin : begin + axes_WA.shape[1]] = axes_WA.to(self.weight.device)

    def forward(self, tokens: Tokens) -> Tensor:
        """Tokens of N rows -> [N, D].

        Args:
            tokens: of this modality.
        """
        field_N = self._field_index(tokens)
        x_NW = tokens.values.to(self.weight.dtype) * self.scale[field_N][:, None]
        if self.input_norm is not None and (len(x_NW) > 1 or not self.training):
            self.input_norm.train(self.training and self.weight.requires_grad)  # frozen: the scale stays too
            x_NW = self.input_norm(x_NW) * x_NW.shape[1] ** -0.5
        if self.fields == 1:
            return x_NW @ self.weight[0]
        projected_ND = x_NW.new_zeros(len(x_NW), self.weight.shape[2])
        for field, weight in enumerate(self.weight):
            rows = (field_N == field).nonzero()[:, 0]
            projected_ND = projected_ND.index_add(0, rows, x_NW[rows] @ weight)
        return projected_ND

    def _field_index(self, tokens: Tokens) -> Tensor:
        return tokens.position.clamp(0, self.fields - 1)


class InputProjection(nn.Module):
    """Projects each modality to width D, adds a learned vector a modality and a code of the position.

    Both additions start at zero: at first a token is what its encoder said.

    Args:
        input_dims: modality -> width of its tokens; fixes the order of the modalities from here on.
        dim: width D of the fusion core, an even number.
        fields: modality -> number of its fields (see `ModalityProjection`), where it has some.
        dim_fractions: modality -> share of the D coordinates that is its own block; modalities that are not
            named spread over all.
        standardise: modalities whose tokens are standardised over the batch.
        without_positions: modalities whose tokens get no code of their position: streams, which go on longer
            than anything that was trained on.

    Raises:
        InputError: no modality, an odd width, or shares that add up to more than 1.

    Example:
        >>> import torch
        >>> entry = InputProjection({"text": 3, "image": 5}, dim=8)
        >>> entry({"image": Tokens.from_sequences([torch.randn(2, 5)], "image")}).presence.tolist()
        [[False, True]]
    """

    def __init__(
        self,
        input_dims: Mapping[str, int],
        dim: int,
        fields: Mapping[str, int] | None = None,
        dim_fractions: Mapping[str, float] | None = None,
        standardise: Collection[str] = (),
        without_positions: Collection[str] = (),
    ):
        super().__init__()
        if not input_dims:
            raise InputError("fusion: got no modality, expected at least one encoder")
        if dim % 2:
            raise InputError(f"fusion: got width {dim}, expected an even number")
        blocks = _coordinate_blocks(dim_fractions or {}, dim)
        self.input_dims = dict(input_dims)
        self.dim = dim
        self.projections = nn.ModuleDict(
            {
                name: ModalityProjection(
                    width, dim, (fields or {}).get(name, 1), blocks.get(name), name in standardise
                )
                for name, width in input_dims.items()
            }
        )
        self.without_positions = frozenset(without_positions)
        self.modality_embeddings = nn.Parameter(torch.zeros(len(input_dims), dim))
        self.position_scale = nn.Parameter(torch.zeros(len(input_dims)))

    def calibrate(self, tokens_by_modality: Mapping[str, Tokens]) -> None:
        """Take each modality's scale and principal axes from training tokens of frozen encoders.

        Args:
            tokens_by_modality: modality -> training tokens.
        """
        for name, tokens in tokens_by_modality.items():
            self._check(name, tokens)
            self.projections[name].calibrate(tokens)  # type: ignore[operator]

    def forward(self, tokens_by_modality: Mapping[str, Tokens]) -> Tokens:
        """Join what is there.

        Args:
            tokens_by_modality: modality -> tokens of the encoder's width, all of the same samples. A modality
                may be left out: then it is absent from the whole batch.

        Returns:
            Tokens of width D, modalities in the order of `inputs`.

        Raises:
            InputError: a modality that the core was not built for, or a width that differs.
        """
        if not tokens_by_modality:
            raise InputError("fusion: got no tokens of any modality, expected at least one (it may be empty)")
        for name, tokens in tokens_by_modality.items():
            self._check(name, tokens)
        # An empty first part fixes the order of the modalities, whichever are there.
        samples, like = len(next(iter(tokens_by_modality.values()))), self.modality_embeddings
        order = Tokens.empty(samples, self.dim, tuple(self.input_dims), dtype=like.dtype, device=like.device)
        return Tokens.cat(
            [
                order,
                *(
                    self._project(name, tokens_by_modality[name])
                    for name in self.input_dims
                    if name in tokens_by_modality
                ),
            ]
        )

    def _project(self, name: str, tokens: Tokens) -> Tokens:
        kind = list(self.input_dims).index(name)
        x_ND = self.projections[name](tokens) + self.modality_embeddings[kind]
        if name not in self.without_positions:
            x_ND = x_ND + self.position_scale[kind] * sinusoidal_encoding(tokens.position, self.dim).to(
                x_ND.dtype
            )
        return Tokens(
            values=x_ND.to(self.modality_embeddings.dtype),
            offsets=tokens.offsets,
            modality=torch.zeros_like(tokens.modality),
            position=tokens.position,
            modalities=(name,),
            time=tokens.time,
            entity=tokens.entity,
        )

    def _check(self, name: str, tokens: Tokens) -> None:
        if name not in self.input_dims:
            raise InputError(f"fusion: got tokens of {name!r}.{did_you_mean(name, self.input_dims)}")
        if tokens.dim != self.input_dims[name]:
            raise InputError(
                f"fusion: got {name!r} tokens of width {tokens.dim}, expected {self.input_dims[name]}"
            )


def _coordinate_blocks(dim_fractions: Mapping[str, float], dim: int) -> dict[str, tuple[int, int]]:
    """modality -> first coordinate and number of coordinates of its block."""
    if any(share < 0 for share in dim_fractions.values()) or sum(dim_fractions.values()) > 1 + 1e-9:
        raise InputError(
            f"fusion: got shares {dict(dim_fractions)}, expected numbers from 0 that add up to at most 1"
        )
    blocks, start = {}, 0
    for name, share in dim_fractions.items():
        size = int(share * dim)
        if size:
            blocks[name] = (start, size)
        start += size
    return blocks


def sinusoidal_encoding(position: Tensor, dim: int) -> Tensor:
    """[N] positions -> [N, dim] sines and cosines of geometrically spaced wavelengths.

    Paper: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.

    Args:
        position: [N] positions.
        dim: width, even.
    """
    rates = torch.exp(torch.arange(0, dim, 2, device=position.device) * (-math.log(10_000.0) / dim))
    angles = position[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
