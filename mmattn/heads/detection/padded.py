"""The detection head over padded tokens: the same weights as one graph, for exporters.

Every sample has as many queries, so that they need no padding; patches without a token are proposed last.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.attention.execution.padded import PaddedTokens, attend_padded
from mmattn.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from mmattn.heads.detection.decoder import MIN_SIDE, BoxDecoder, BoxDecoderLayer, sinusoidal_box_encoding
from mmattn.heads.detection.proposals import INITIAL_SIDE, Proposals

__all__ = ["detect_padded"]


def detect_padded(
    tokens: PaddedTokens,
    *,
    decoder: BoxDecoder,
    classifier: nn.Module,
    proposals: Proposals | None,
    query_content: Tensor,
    reference_boxes: Tensor,
    image_modality: str,
) -> dict[str, Tensor]:
    """Return what `DetectionHead.forward` returns, under the names "logits" [B, Q, L] and "boxes" [B, Q, 4].

    Args:
        tokens: fused tokens of B samples.
        decoder: the head's decoder, in evaluation mode.
        classifier: maps a decoded query to L logits.
        proposals: the head's proposals; None where queries start from learned boxes.
        query_content: [Q, D] content of the queries.
        reference_boxes: [Q, 4] learned boxes, before the sigmoid.
        image_modality: modality whose tokens are patches of the image; "" for none.
    """
    samples, num_queries = tokens.values.shape[0], query_content.shape[0]
    patches_BT4 = _patch_boxes(tokens, image_modality)
    boxes_BQ4 = reference_boxes.sigmoid().expand(samples, -1, -1)
    if proposals is not None:
        boxes_BQ4 = _top_proposals(proposals, tokens, patches_BT4, boxes_BQ4)
    place_Q = torch.arange(num_queries, device=boxes_BQ4.device).expand(samples, -1)
    queries = PaddedTokens(
        query_content.expand(samples, -1, -1),
        torch.ones_like(place_Q, dtype=torch.bool),
        torch.zeros_like(place_Q),
        place_Q,
        ("query",),
    )
    x_BQD, boxes_BQ4 = _decode(decoder, queries, boxes_BQ4, tokens, patches_BT4)
    return {"logits": classifier(x_BQD), "boxes": cxcywh_to_xyxy(boxes_BQ4)}


def _patch_boxes(tokens: PaddedTokens, image_modality: str) -> Tensor:
    """[B, T, 4] corners of the part of the picture that each token shows, NaN elsewhere."""
    shown_BT = torch.zeros_like(tokens.mask)
    if image_modality:
        shown_BT = tokens.mask & (tokens.modality == tokens.modalities.index(image_modality))
    side_B1 = shown_BT.sum(1, keepdim=True).float().sqrt().round().long().clamp(min=1)
    corner_BT2 = torch.stack([tokens.position % side_B1, tokens.position // side_B1], dim=2)
    corner_BT2 = corner_BT2 / side_B1[:, :, None]
    boxes_BT4 = torch.cat([corner_BT2, corner_BT2 + 1 / side_B1[:, :, None]], dim=2)
    return torch.where(shown_BT[:, :, None], boxes_BT4, torch.nan)


def _top_proposals(
    proposals: Proposals, tokens: PaddedTokens, patches_BT4: Tensor, fallback_BQ4: Tensor
) -> Tensor:
    """[B, Q, 4] the boxes of the surest patches; as many others as there are queries stand behind them."""
    shown_BT = ~patches_BT4.isnan().any(2)
    x_BTD = proposals.norm(tokens.values)
    middle_BT2 = xyxy_to_cxcywh(patches_BT4.nan_to_num(0.5))[:, :, :2]
    start_BT4 = torch.cat([middle_BT2, torch.full_like(middle_BT2, INITIAL_SIDE)], dim=2)
    boxes_BT4 = (proposals.box_regressor(x_BTD) + start_BT4.clamp(MIN_SIDE, 1 - MIN_SIDE).logit()).sigmoid()
    score_BT = proposals.classifier(x_BTD).amax(2).masked_fill(~shown_BT, float("-inf"))
    queries = fallback_BQ4.shape[1]
    best = F.pad(score_BT, (0, queries), value=float("-inf")).topk(queries, dim=1)
    boxes_BT4 = torch.cat([boxes_BT4, fallback_BQ4], dim=1)
    boxes_BQ4 = boxes_BT4.gather(1, best.indices[:, :, None].expand(-1, -1, 4))
    return torch.where(best.values.isneginf()[:, :, None], fallback_BQ4, boxes_BQ4)


def _decode(
    decoder: BoxDecoder, queries: PaddedTokens, boxes_BQ4: Tensor, tokens: PaddedTokens, patches_BT4: Tensor
) -> tuple[Tensor, Tensor]:
    """[B, Q, D] and [B, Q, 4] after the last layer."""
    shown_BT1 = (~patches_BT4.isnan().any(2))[:, :, None]
    place_BTD = decoder.token_position(sinusoidal_box_encoding(xyxy_to_cxcywh(patches_BT4.nan_to_num())))
    memory = tokens.with_values(decoder.token_norm(tokens.values) + place_BTD * shown_BT1)
    for layer in decoder.layers:
        reference_BQ4 = boxes_BQ4.clamp(MIN_SIDE, 1 - MIN_SIDE)
        place_BQD = decoder.query_position(sinusoidal_box_encoding(reference_BQ4))
        queries = _apply_layer(layer, queries, place_BQD, cxcywh_to_xyxy(reference_BQ4), memory, patches_BT4)  # type: ignore[arg-type]
        boxes_BQ4 = (decoder.box_regressor(decoder.norm(queries.values)) + reference_BQ4.logit()).sigmoid()
    return decoder.norm(queries.values), boxes_BQ4


def _apply_layer(
    layer: BoxDecoderLayer,
    queries: PaddedTokens,
    query_position: Tensor,
    boxes: Tensor,
    memory: PaddedTokens,
    patches: Tensor,
) -> PaddedTokens:
    x_BQD = queries.values
    positioned = queries.with_values(layer.norms[0](x_BQD) + query_position)
    x_BQD = x_BQD + attend_padded(layer.self_attention, positioned, context={"boxes": boxes})
    positioned = queries.with_values(layer.norms[1](x_BQD) + query_position)
    x_BQD = x_BQD + attend_padded(layer.cross_attention, positioned, memory, {"boxes": (boxes, patches)})
    return queries.with_values(x_BQD + layer.feed_forward(layer.norms[2](x_BQD)))
