"""The loss of a set of predictions against a set of objects, after the two were matched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmattn.boxes import corners
from mmattn.heads.detection.matching import Costs, Match, match
from mmattn.heads.detection.targets import BoxTargets

__all__ = ["Predictions", "matched", "set_loss"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What is said of a batch, one sample behind the other.

    Args:
        logits: [N, L], one of each label.
        boxes: [N, 4] centre x, centre y, width, height, relative to the picture.
        counts: predictions of each sample.
    """

    logits: Tensor
    boxes: Tensor
    counts: tuple[int, ...]


def matched(costs: Costs, found: Predictions, targets: BoxTargets) -> Match:
    """The predictions that answer for the objects of a batch.

    Args:
        costs: of a pair.
        found: of B samples.
        targets: of the same samples.

    Raises:
        InputError: a prediction is not finite.
    """
    of_samples = zip(
        found.logits.detach().split(found.counts),
        found.boxes.detach().split(found.counts),
        targets.labels.split(targets.counts),
        targets.boxes.split(targets.counts),
        strict=True,
    )
    return match([costs.between(*sample) for sample in of_samples])


def set_loss(costs: Costs, found: Predictions, targets: BoxTargets, pairs: Match) -> Tensor:
    """Focal loss of all labels of all predictions, and L1 and GIoU of the matched boxes; per object.

    A prediction that answers for nothing has no label: it learns to be sure of none.

    Papers: Lin et al., "Focal Loss for Dense Object Detection", 2017; Rezatofighi et al., "Generalized
    Intersection over Union", 2019.

    Args:
        costs: the weights.
        found: the predictions.
        targets: the objects of the same samples.
        pairs: who answers for what.

    Returns:
        A scalar; divided by the number of pairs, or by 1 where there are none.

    Example:
        >>> nothing = BoxTargets(torch.zeros(0).long(), torch.zeros(0, 4), counts=(0,))
        >>> sure = Predictions(torch.full((3, 2), -9.0), torch.rand(3, 4), counts=(3,))
        >>> bool(set_loss(Costs(), sure, nothing, matched(Costs(), sure, nothing)) < 1e-6)
        True
    """
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

    truth_NL = torch.zeros_like(found.logits)
    truth_NL[pairs.prediction, targets.labels[pairs.object]] = 1.0
    found_K4, truth_K4 = found.boxes[pairs.prediction], targets.boxes[pairs.object]
    overlap = generalized_box_iou_loss(corners(found_K4), corners(truth_K4), reduction="sum")
    total = (
        costs.label * sigmoid_focal_loss(found.logits, truth_NL, reduction="sum")
        + costs.distance * (found_K4 - truth_K4).abs().sum()
        + costs.overlap * overlap
    )
    return total / max(len(pairs.object), 1)
