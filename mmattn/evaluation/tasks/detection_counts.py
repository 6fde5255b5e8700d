"""Detection metrics as counts per image, for reports and model selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattn.array_types import Floats
from mmattn.boxes import Boxes
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.detection import detection_metrics
from mmattn.evaluation.tasks.detection_intervals import bootstrap_detection
from mmattn.evaluation.tasks.task_metrics import PerClassMetrics

__all__ = ["DetectionMetrics"]


@dataclass(frozen=True)
class DetectionMetrics(PerClassMetrics):
    """Precision, recall and F1 of matched boxes, plus average precision over all samples.

    Average precision is not a function of summed counts: `evaluate` adds it, epochs are selected by `ap50`,
    and its intervals have a bootstrap of their own (`mmattn.evaluation.tasks.detection_intervals`).

    Args:
        class_names: names of the labels.
        iou_threshold: minimum IoU of a match.
        score_threshold: minimum score of a predicted box that counts.
    """

    iou_threshold: float = 0.5
    score_threshold: float = 0.5

    primary_metric = "f1"

    @classmethod
    def from_targets(cls, targets: Sequence[Boxes | None]) -> DetectionMetrics:
        """Create the metrics for the labels that occur.

        Args:
            targets: boxes of each sample; None where unknown.
        """
        return cls(tuple(sorted({name for boxes in targets if boxes is not None for name in boxes.labels})))

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        counts_N3C = np.zeros((len(targets), 3, len(self.class_names)))
        for row, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
            confident = _above_threshold(prediction, self.score_threshold)
            matched = _matched_labels(confident, target, self.iou_threshold)
            self.add_counts(counts_N3C[row], matched, confident.labels, target.labels)
        return counts_N3C.reshape(len(targets), -1)

    def compute(self, sums: Floats) -> dict[str, Floats]:
        scores = self.micro_average(sums)
        return {"f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"]}

    def evaluate(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        coco = detection_metrics(predictions, targets)
        return {**super().evaluate(predictions, targets), "ap50": coco["ap50"], "map": coco["map"]}

    def extra_intervals(
        self, predictions: Sequence[Sequence[Any]], targets: Sequence[Any]
    ) -> dict[str, Interval]:
        intervals = bootstrap_detection(predictions, targets)
        return {name: intervals[name] for name in ("ap50", "map")}

    def selection_score(self, metrics: Mapping[str, float]) -> float:
        return metrics["ap50"]


def _above_threshold(boxes: Boxes, threshold: float) -> Boxes:
    """Keep confident boxes, by decreasing score."""
    if boxes.scores is None:
        return boxes
    order = [int(i) for i in boxes.scores.argsort(descending=True) if boxes.scores[i] >= threshold]
    return Boxes(boxes.boxes[order], [boxes.labels[i] for i in order], boxes.size)


def _matched_labels(predicted: Boxes, actual: Boxes, iou_threshold: float) -> list[str]:
    """Match each predicted box to the free target of its label with the highest IoU; return their labels."""
    from torchvision.ops import box_iou

    if not len(predicted) or not len(actual):
        return []
    free, matched = set(range(len(actual))), []
    iou_KT = box_iou(predicted.boxes.float(), actual.boxes.float()).tolist()
    for label, iou_T in zip(predicted.labels, iou_KT, strict=True):
        candidates = [i for i in free if actual.labels[i] == label and iou_T[i] >= iou_threshold]
        if candidates:
            free.remove(max(candidates, key=iou_T.__getitem__))
            matched.append(label)
    return matched
