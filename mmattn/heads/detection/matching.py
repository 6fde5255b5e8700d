"""Which prediction answers for which object: the pairs that cost least, no prediction twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmattn.boxes import cxcywh_to_xyxy
from mmattn.errors import InputError

__all__ = ["CostWeights", "Matching", "hungarian_matching"]

# What stands in for a probability of 0 or 1 in a logarithm.
_EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class Matching:
    """Who answers for what.

    Args:
        prediction_index: [K] int64, numbers of predictions among all of the batch.
        object_index: [K] int64, the number among all objects of the batch that each answers for.
    """

    prediction_index: Tensor
    object_index: Tensor


@dataclass(frozen=True)
class CostWeights:
    """What it costs a prediction to answer for an object; also the weights of the losses.

    Papers: Carion et al., "End-to-End Object Detection with Transformers", 2020 (the sum of three);
    Zhu et al., "Deformable DETR", 2021 (the focal form of the first, and the weights).

    Args:
        classification: of the focal loss of the object's label.
        l1: of the L1 distance of (x, y, width, height), relative to the picture.
        giou: of 1 - GIoU.
    """

    classification: float = 2.0
    l1: float = 5.0
    giou: float = 2.0

    def __post_init__(self) -> None:
        if min(self.classification, self.l1, self.giou) < 0:
            raise InputError(f"costs: got {self}, expected numbers from 0")

    def cost_matrix(self, logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Tensor:
        """The cost of every prediction for every object of one sample.

        Args:
            logits: [Q, L].
            boxes: [Q, 4] centre x, centre y, width, height, relative to the picture.
            labels: [K] int64.
            target_boxes: [K, 4] in the same form.

        Returns:
            [Q, K].

        Example:
            >>> here, there = torch.tensor([[0.2, 0.2, 0.2, 0.2]]), torch.tensor([[0.8, 0.8, 0.2, 0.2]])
            >>> cost = CostWeights(classification=0.0, giou=0.0).cost_matrix(
            ...     torch.zeros(2, 1), torch.cat([here, there]), torch.tensor([0]), here
            ... )
            >>> [round(float(number), 3) for number in cost[:, 0]]
            [0.0, 6.0]
        """
        from torchvision.ops import generalized_box_iou

        p_QK = logits.sigmoid()[:, labels]
        right_QK = 0.25 * (1 - p_QK) ** 2 * -(p_QK + _EPSILON).log()
        wrong_QK = 0.75 * p_QK**2 * -(1 - p_QK + _EPSILON).log()
        overlap_QK = generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        distance_QK = torch.cdist(boxes, target_boxes, p=1)
        return (
            self.classification * (right_QK - wrong_QK) + self.l1 * distance_QK + self.giou * (1 - overlap_QK)
        )


@torch.no_grad()
def hungarian_matching(cost_matrices: Sequence[Tensor]) -> Matching:
    """The assignment of least total cost, sample by sample (the Hungarian method).

    Args:
        cost_matrices: [Q_b, K_b] of each sample. Where there are more objects than predictions, the objects
            that cost most are left out; both may be 0.

    Raises:
        InputError: a cost is not finite.

    Example:
        >>> found = hungarian_matching([torch.tensor([[1.0, 0.0], [0.0, 5.0], [9.0, 9.0]]),
        ...     torch.tensor([[7.0]])])
        >>> found.prediction_index.tolist(), found.object_index.tolist()
        ([0, 1, 3], [1, 0, 2])
    """
    prediction, seen, predictions, objects = [], [], 0, 0
    for number, cost_QK in enumerate(cost_matrices):
        if not bool(cost_QK.isfinite().all()):
            raise InputError(f"detection: sample {number} of the batch has predictions that are not finite")
        rows, columns = linear_sum_assignment(cost_QK.float().cpu().numpy())
        prediction += (rows + predictions).tolist()
        seen += (columns + objects).tolist()
        predictions, objects = predictions + cost_QK.shape[0], objects + cost_QK.shape[1]
    device = cost_matrices[0].device if cost_matrices else torch.device("cpu")
    return Matching(torch.tensor(prediction, device=device).long(), torch.tensor(seen, device=device).long())
