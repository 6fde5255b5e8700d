"""The loss of a set of predictions against a set of objects, after the two were matched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.boxes import cxcywh_to_xyxy
from mmattn.heads.detection.matching import CostWeights, Matching, hungarian_matching

if TYPE_CHECKING:
    from mmattn.heads.detection.targets import BoxTargets

__all__ = ["BoxPredictions", "match_predictions", "set_loss"]


@dataclass(frozen=True, eq=False)
class BoxPredictions:
    """What is said of a batch, one sample behind the other.

    Args:
        logits: [N, L], one of each label.
        boxes: [N, 4] centre x, centre y, width, height, relative to the picture.
        counts: predictions of each sample.
    """

    logits: Tensor
    boxes: Tensor
    counts: tuple[int, ...]


def match_predictions(
    cost_weights: CostWeights, predictions: BoxPredictions, targets: BoxTargets
) -> Matching:
    """The predictions that answer for the objects of a batch.

    Args:
        cost_weights: of a pair.
        predictions: of B samples.
        targets: of the same samples.

    Raises:
        InputError: a prediction is not finite.
    """
    of_samples = zip(
        predictions.logits.detach().split(predictions.counts),
        predictions.boxes.detach().split(predictions.counts),
        targets.labels.split(targets.counts),
        targets.boxes.split(targets.counts),
        strict=True,
    )
    return hungarian_matching([cost_weights.cost_matrix(*sample) for sample in of_samples])


def set_loss(
    cost_weights: CostWeights, predictions: BoxPredictions, targets: BoxTargets, matching: Matching
) -> Tensor:
    """Focal loss of all labels of all predictions, and L1 and GIoU of the matched boxes; per object.

    A prediction that answers for nothing has no label: it learns to be sure of none.

    Papers: Lin et al., "Focal Loss for Dense Object Detection", 2017; Rezatofighi et al., "Generalized
    Intersection over Union", 2019.

    Args:
        cost_weights: the weights.
        predictions: the predictions.
        targets: the objects of the same samples.
        matching: who answers for what.

    Returns:
        A scalar; divided by the number of pairs, or by 1 where there are none.

    Example:
        >>> from mmattn.heads.detection.targets import BoxTargets
        >>> nothing = BoxTargets(torch.zeros(0).long(), torch.zeros(0, 4), counts=(0,))
        >>> sure = BoxPredictions(torch.full((3, 2), -9.0), torch.rand(3, 4), counts=(3,))
        >>> bool(set_loss(CostWeights(), sure, nothing, match_predictions(CostWeights(), sure,
        ...     nothing)) < 1e-6)
        True
    """
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

    truth_NL = torch.zeros_like(predictions.logits)
    truth_NL[matching.prediction_index, targets.labels[matching.object_index]] = 1.0
    found_K4, truth_K4 = predictions.boxes[matching.prediction_index], targets.boxes[matching.object_index]
    overlap = generalized_box_iou_loss(cxcywh_to_xyxy(found_K4), cxcywh_to_xyxy(truth_K4), reduction="sum")
    total = (
        cost_weights.classification * sigmoid_focal_loss(predictions.logits, truth_NL, reduction="sum")
        + cost_weights.l1 * (found_K4 - truth_K4).abs().sum()
        + cost_weights.giou * overlap
    )
    return total / max(len(matching.object_index), 1)
