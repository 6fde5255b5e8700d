"""Where to begin to look: each patch of the picture says what may be there, and the surest are asked."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.boxes import xyxy_to_cxcywh
from mmattn.heads.detection.decoder import build_box_regressor
from mmattn.heads.detection.loss import BoxPredictions
from mmattn.types import Tokens

__all__ = ["INITIAL_SIDE", "PRIOR_LOGIT", "Proposals", "top_proposals"]

# Sides of the box that a patch begins with, relative to the picture.
INITIAL_SIDE = 0.25
# Bias of a label's logit at the start, a score of .01: nearly all patches and queries answer for nothing.
PRIOR_LOGIT = -4.6


class Proposals(nn.Module):
    """A prediction for each patch, from its fused token: what lies around it, and how its box is.

    Paper: Zhu et al., "Deformable DETR", 2021 (section 4.2, two stages).

    Args:
        dim: width D.
        num_labels: how many labels L.

    Example:
        >>> from mmattn.heads.detection.decoder import patch_boxes
        >>> picture = Tokens.from_sequences([torch.randn(4, 8)], "image")
        >>> found = Proposals(dim=8, num_labels=3)(picture, patch_boxes(picture, "image"))
        >>> found.logits.shape, found.counts
        (torch.Size([4, 3]), (4,))
    """

    def __init__(self, dim: int, num_labels: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_labels)
        self.box_regressor = build_box_regressor(dim)
        nn.init.constant_(self.classifier.bias, PRIOR_LOGIT)

    def forward(self, tokens: Tokens, patches: Tensor) -> BoxPredictions:
        """A prediction a patch.

        Args:
            tokens: fused tokens.
            patches: [N, 4] corners of the part of the picture that each token shows, NaN for other tokens.
        """
        shown_N = ~patches.isnan().any(1)
        shown = tokens.filter(shown_N)
        x_PD = self.norm(shown.values)
        start_P4 = xyxy_to_cxcywh(patches[shown_N])
        start_P4[:, 2:] = INITIAL_SIDE
        boxes_P4 = (self.box_regressor(x_PD).float() + start_P4.logit()).sigmoid()
        return BoxPredictions(self.classifier(x_PD).float(), boxes_P4, tuple(shown.length_list))


def top_proposals(predictions: BoxPredictions, fallback_boxes: Tensor) -> Tensor:
    """The boxes of the surest predictions of each sample, the surest first.

    Args:
        predictions: predictions of B samples.
        fallback_boxes: [Q, 4] boxes for places that are left where a sample has fewer than Q predictions.

    Returns:
        [B, Q, 4], without a gradient of the predictions.

    Example:
        >>> two = BoxPredictions(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1] * 4, [0.2] * 4]), (2,))
        >>> top_proposals(two, torch.full((3, 4), 0.5))[0, :, 0].tolist()
        [0.20000000298023224, 0.10000000149011612, 0.5]
    """
    score_P1 = predictions.logits.detach().amax(1, keepdim=True)
    lengths_B = torch.tensor(predictions.counts, device=score_P1.device)
    rows = Tokens.from_lengths(
        torch.cat([score_P1, predictions.boxes.detach()], dim=1), lengths_B, "proposal"
    )
    queries = len(fallback_boxes)
    padded_BT5, _ = rows.to_padded(max(queries, *predictions.counts), padding_value=float("-inf"))
    best = padded_BT5[:, :, 0].topk(queries, dim=1)
    boxes_BQ4 = padded_BT5[:, :, 1:].gather(1, best.indices[:, :, None].expand(-1, -1, 4))
    return torch.where(best.values.isneginf()[:, :, None], fallback_boxes, boxes_BQ4)
