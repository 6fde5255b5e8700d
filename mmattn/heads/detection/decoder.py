"""Queries that look for objects among fused tokens, and move their boxes after each look."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmattn import attention
from mmattn.attention.layer.linear import Linear
from mmattn.boxes import centred, corners
from mmattn.errors import InputError, nearest
from mmattn.types import Tokens

__all__ = [
    "AMONG",
    "GROUP",
    "LEAST",
    "TOWARDS",
    "BoxDecoder",
    "DecoderLayer",
    "box_network",
    "patch_boxes",
    "waves",
]

# Queries see each other within a group of so many positions; noised copies of the truth are groups apart.
GROUP = 1024
AMONG = f'Program(score=dot() >> box_bias("boxes"), mask=blocks({GROUP}), norm=softmax())'
TOWARDS = 'Program(score=dot() >> box_bias("boxes"), mask=full, norm=softmax())'

# A number from 0 to 1 is written as sines and cosines of half a turn, one, two, four, ...
_WAVES = 7
# The smallest side of a reference box, relative to the picture: one without area has no geometry.
LEAST = 1e-3


class BoxDecoder(nn.Module):
    """Layers of attention among queries and from them to the fused tokens, each of which moves the boxes.

    Each query has a reference box. How two boxes lie to each other biases attention among the queries, and
    how the patches of the picture lie to the box biases where the query looks.

    Papers: Zhu et al., "Deformable DETR", 2021 (boxes that are refined layer by layer); Liu et al.,
    "DAB-DETR", 2022 (the box as the query's place); Hu et al., "Relation Networks for Object Detection",
    2018 (the bias).

    Args:
        dim: width D.
        layers: how many.
        heads: of both attentions.
        among: program of the attention among queries; "boxes" is in its context.
        towards: program of the attention from queries to tokens; "boxes" is in its context.
        expansion: width of the hidden layer of the token-wise networks, as a multiple of D.
        dropout: on the residual branches.

    Example:
        >>> decoder = BoxDecoder(dim=8, layers=2, heads=2)
        >>> queries = Tokens.from_sequences([torch.randn(3, 8)], "query")
        >>> picture = Tokens.from_sequences([torch.randn(4, 8)], "image")
        >>> boxes = torch.full((3, 4), 0.5)
        >>> len(decoder(queries, boxes, picture, patch_boxes(picture, "image")))
        2
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        among: str = AMONG,
        towards: str = TOWARDS,
        expansion: float = 2.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.token_norm = nn.LayerNorm(dim)
        self.token_place = nn.Linear(8 * _WAVES, dim)
        self.query_place = nn.Sequential(nn.Linear(8 * _WAVES, dim), nn.GELU(), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(
            DecoderLayer(
                attention.Attention(attention.parse(among), dim, heads),
                attention.Attention(attention.parse(towards), dim, heads),
                int(dim * expansion),
                dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.move = box_network(dim)

    def forward(
        self, queries: Tokens, boxes: Tensor, tokens: Tokens, patches: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """What the queries have become and where their boxes are, after each layer.

        Args:
            queries: of width D, as many samples as the tokens.
            boxes: [N, 4] centre x, centre y, width, height of each query's reference box, from 0 to 1.
            tokens: fused tokens.
            patches: [M, 4] corners of the part of the picture that each token shows, NaN for other tokens.

        Returns:
            For each layer [N, D] and [N, 4]; a layer's boxes are the next one's references.
        """
        place_MD = self.token_place(waves(centred(patches.nan_to_num()))).to(tokens.dtype)
        shown_M1 = (~patches.isnan().any(1))[:, None]
        memory = tokens.with_values(self.token_norm(tokens.values) + place_MD * shown_M1)
        found = []
        for layer in self.layers:
            reference_N4 = boxes.clamp(LEAST, 1 - LEAST)
            place_ND = self.query_place(waves(reference_N4)).to(tokens.dtype)
            queries = layer(queries, place_ND, corners(reference_N4.detach()), memory, patches)
            x_ND = self.norm(queries.values)
            moved_N4 = (self.move(x_ND).float() + reference_N4.logit()).sigmoid()
            found.append((x_ND, moved_N4))
            boxes = moved_N4.detach()  # each layer answers for its own step
        return found


class DecoderLayer(nn.Module):
    """Attention among queries, from queries to tokens, a token-wise network; each on a residual."""

    def __init__(self, among: attention.Attention, towards: attention.Attention, hidden: int, dropout: float):
        super().__init__()
        dim = among.dim
        self.among, self.towards = among, towards
        self.network = nn.Sequential(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tokens, place: Tensor, boxes: Tensor, tokens: Tokens, patches: Tensor
    ) -> Tokens:
        x_ND = queries.values
        asked = queries.with_values(self.norms[0](x_ND) + place)
        x_ND = x_ND + self.dropout(self.among(asked, context={"boxes": boxes}).values)
        asked = queries.with_values(self.norms[1](x_ND) + place)
        x_ND = x_ND + self.dropout(self.towards(asked, tokens, {"boxes": (boxes, patches)}).values)
        return queries.with_values(x_ND + self.dropout(self.network(self.norms[2](x_ND))))


def box_network(dim: int) -> nn.Sequential:
    """[N, D] -> [N, 4], by which a box moves on the scale of logits; nothing moves at first."""
    network = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last := nn.Linear(dim, 4))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def patch_boxes(tokens: Tokens, picture: str) -> Tensor:
    """[N, 4] corners of the part of the picture, 0 to 1, that each token shows; NaN for all other tokens.

    A picture's tokens are a square of patches, row by row, as the image encoders make them.

    Args:
        tokens: of any modalities.
        picture: the modality of the pictures; "" where there is none.

    Raises:
        InputError: no such modality, or tokens of it that are no square.

    Example:
        >>> four = Tokens.from_sequences([torch.zeros(4, 2)], "image")
        >>> patch_boxes(four, "image")[1].tolist()
        [0.5, 0.0, 1.0, 0.5]
    """
    boxes_N4 = torch.full((len(tokens.values), 4), torch.nan, device=tokens.device)
    if not picture:
        return boxes_N4
    if picture not in tokens.modalities:
        raise InputError(
            f"detection head: got no tokens of {picture!r}, expected the modality of the pictures."
            f"{nearest(picture, tokens.modalities)}"
        )
    rows = (tokens.modality == tokens.modalities.index(picture)).nonzero()[:, 0]
    sample_R, position_R = tokens.sample[rows], tokens.position[rows]
    side_R = sample_R.bincount(minlength=len(tokens)).sqrt().round().long()[sample_R]
    if bool((side_R.square() != sample_R.bincount(minlength=len(tokens))[sample_R]).any()):
        raise InputError(
            f"detection head: got {sorted(set(sample_R.bincount().tolist()))} tokens of {picture!r}, "
            "expected a square of patches in each sample"
        )
    corner_R2 = torch.stack([position_R % side_R, position_R // side_R], dim=1) / side_R[:, None]
    boxes_N4[rows] = torch.cat([corner_R2, corner_R2 + 1 / side_R[:, None]], dim=1)
    return boxes_N4


def waves(boxes: Tensor) -> Tensor:
    """[..., 4] numbers from 0 to 1 -> [..., 8 * _WAVES] sines and cosines of more and more turns."""
    turns = math.pi * 2.0 ** torch.arange(_WAVES, device=boxes.device)
    angles = (boxes[..., None] * turns).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
