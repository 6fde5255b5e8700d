"""Queries that look for objects among fused tokens, and move their boxes after each look."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmattn.attention.language.program import parse
from mmattn.attention.layer.attention import Attention
from mmattn.attention.layer.linear import Linear
from mmattn.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Tokens

__all__ = [
    "CROSS_ATTENTION",
    "GROUP_SIZE",
    "MIN_SIDE",
    "SELF_ATTENTION",
    "BoxDecoder",
    "BoxDecoderLayer",
    "build_box_regressor",
    "patch_boxes",
    "sinusoidal_box_encoding",
]

# Queries see each other within a group of so many positions; noised copies of the truth are groups apart.
GROUP_SIZE = 1024
SELF_ATTENTION = f'Program(score=dot() >> box_bias("boxes"), mask=blocks({GROUP_SIZE}), norm=softmax())'
CROSS_ATTENTION = 'Program(score=dot() >> box_bias("boxes"), mask=full, norm=softmax())'

# A number from 0 to 1 is written as sines and cosines of half a turn, one, two, four, ...
_NUM_FREQUENCIES = 7
# The smallest side of a reference box, relative to the picture: one without area has no geometry.
MIN_SIDE = 1e-3


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
        self_attention: program of the attention among queries; "boxes" is in its context.
        cross_attention: program of the attention from queries to tokens; "boxes" is in its context.
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
        self_attention: str = SELF_ATTENTION,
        cross_attention: str = CROSS_ATTENTION,
        expansion: float = 2.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.token_norm = nn.LayerNorm(dim)
        self.token_position = nn.Linear(8 * _NUM_FREQUENCIES, dim)
        self.query_position = nn.Sequential(
            nn.Linear(8 * _NUM_FREQUENCIES, dim), nn.GELU(), nn.Linear(dim, dim)
        )
        self.layers = nn.ModuleList(
            BoxDecoderLayer(
                Attention(parse(self_attention), dim, heads),
                Attention(parse(cross_attention), dim, heads),
                int(dim * expansion),
                dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.box_regressor = build_box_regressor(dim)

    def forward(
        self, queries: Tokens, boxes: Tensor, tokens: Tokens, patch_boxes_M4: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """What the queries have become and where their boxes are, after each layer.

        Args:
            queries: of width D, as many samples as the tokens.
            boxes: [N, 4] centre x, centre y, width, height of each query's reference box, from 0 to 1.
            tokens: fused tokens.
            patch_boxes_M4: [M, 4] corners of the part of the picture that each token shows, NaN for other
            tokens.

        Returns:
            For each layer [N, D] and [N, 4]; a layer's boxes are the next one's references.
        """
        place_MD = self.token_position(
            sinusoidal_box_encoding(xyxy_to_cxcywh(patch_boxes_M4.nan_to_num()))
        ).to(tokens.dtype)
        shown_M1 = (~patch_boxes_M4.isnan().any(1))[:, None]
        memory = tokens.with_values(self.token_norm(tokens.values) + place_MD * shown_M1)
        outputs = []
        for layer in self.layers:
            reference_N4 = boxes.clamp(MIN_SIDE, 1 - MIN_SIDE)
            place_ND = self.query_position(sinusoidal_box_encoding(reference_N4)).to(tokens.dtype)
            queries = layer(queries, place_ND, cxcywh_to_xyxy(reference_N4.detach()), memory, patch_boxes_M4)
            x_ND = self.norm(queries.values)
            moved_N4 = (self.box_regressor(x_ND).float() + reference_N4.logit()).sigmoid()
            outputs.append((x_ND, moved_N4))
            boxes = moved_N4.detach()  # each layer answers for its own step
        return outputs


class BoxDecoderLayer(nn.Module):
    """Attention among queries, from queries to tokens, a token-wise network; each on a residual.

    Args:
        self_attention: among queries.
        cross_attention: from queries to tokens.
        hidden_dim: width of the hidden layer of the token-wise network.
        dropout: probability.
    """

    def __init__(
        self,
        self_attention: Attention,
        cross_attention: Attention,
        hidden_dim: int,
        dropout: float,
    ):
        super().__init__()
        dim = self_attention.dim
        self.self_attention, self.cross_attention = self_attention, cross_attention
        self.feed_forward = nn.Sequential(Linear(dim, hidden_dim), nn.GELU(), Linear(hidden_dim, dim))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tokens, query_position: Tensor, boxes: Tensor, tokens: Tokens, patches: Tensor
    ) -> Tokens:
        x_ND = queries.values
        positioned = queries.with_values(self.norms[0](x_ND) + query_position)
        x_ND = x_ND + self.dropout(self.self_attention(positioned, context={"boxes": boxes}).values)
        positioned = queries.with_values(self.norms[1](x_ND) + query_position)
        x_ND = x_ND + self.dropout(
            self.cross_attention(positioned, tokens, {"boxes": (boxes, patches)}).values
        )
        return queries.with_values(x_ND + self.dropout(self.feed_forward(self.norms[2](x_ND))))


def build_box_regressor(dim: int) -> nn.Sequential:
    """Build the network [N, D] -> [N, 4] of box offsets on the logit scale; it starts at zero.

    Args:
        dim: width D of the queries.
    """
    network = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last := nn.Linear(dim, 4))
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return network


def patch_boxes(tokens: Tokens, image_modality: str) -> Tensor:
    """[N, 4] corners of the part of the picture, 0 to 1, that each token shows; NaN for all other tokens.

    A picture's tokens are a square of patches, row by row, as the image encoders make them.

    Args:
        tokens: of any modalities.
        image_modality: the modality of the pictures; "" where there is none.

    Raises:
        InputError: no such modality, or tokens of it that are no square.

    Example:
        >>> four = Tokens.from_sequences([torch.zeros(4, 2)], "image")
        >>> patch_boxes(four, "image")[1].tolist()
        [0.5, 0.0, 1.0, 0.5]
    """
    boxes_N4 = torch.full((len(tokens.values), 4), torch.nan, device=tokens.device)
    if not image_modality:
        return boxes_N4
    if image_modality not in tokens.modalities:
        raise InputError(
            f"detection head: got no tokens of {image_modality!r}, expected the modality of the pictures."
            f"{did_you_mean(image_modality, tokens.modalities)}"
        )
    rows = (tokens.modality == tokens.modalities.index(image_modality)).nonzero()[:, 0]
    sample_R, position_R = tokens.sample[rows], tokens.position[rows]
    side_R = sample_R.bincount(minlength=len(tokens)).sqrt().round().long()[sample_R]
    if bool((side_R.square() != sample_R.bincount(minlength=len(tokens))[sample_R]).any()):
        raise InputError(
            f"detection head: got {sorted(set(sample_R.bincount().tolist()))} tokens of {image_modality!r}, "
            "expected a square of patches in each sample"
        )
    corner_R2 = torch.stack([position_R % side_R, position_R // side_R], dim=1) / side_R[:, None]
    boxes_N4[rows] = torch.cat([corner_R2, corner_R2 + 1 / side_R[:, None]], dim=1)
    return boxes_N4


def sinusoidal_box_encoding(boxes: Tensor) -> Tensor:
    """[..., 4] numbers from 0 to 1 -> [..., 8 * _WAVES] sines and cosines of more and more turns.

    Args:
        boxes: [..., 4] numbers from 0 to 1.
    """
    turns = math.pi * 2.0 ** torch.arange(_NUM_FREQUENCIES, device=boxes.device)
    angles = (boxes[..., None] * turns).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
