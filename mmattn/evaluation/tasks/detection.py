"""COCO average precision and recall of object detection, through faster-coco-eval.

Each prediction is greedily matched to the unmatched ground-truth box of its label with the highest IoU, in
order of decreasing score. Average precision is the mean over 101 recall levels of the interpolated precision.
`map` averages it over the IoU thresholds .50, .55, ..., .95 and over classes; `ap50` and `ap75` use one
threshold. `recall` is the maximum recall with 100 predictions per image and class, averaged likewise.

Predictions on images without targets are false positives. Classes without a target have no average precision
and are excluded from the means, as in COCO; without any target all metrics are NaN.

Paper: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattn.array_types import Floats
from mmattn.boxes import Boxes
from mmattn.errors import InputError, MissingDependency

__all__ = [
    "IOU_THRESHOLDS",
    "check_predictions",
    "detection_metrics",
    "per_class_detection_metrics",
    "unique_labels",
]


# IoU thresholds of a match.
IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
_AP50, _AP75 = 0, 5  # indices of .50 and .75 in IOU_THRESHOLDS


def detection_metrics(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> dict[str, float]:
    """Compute COCO average precision and recall over all images.

    Args:
        predictions: boxes of each image, with scores.
        targets: ground-truth boxes of the same images.

    Returns:
        "map", "ap50", "ap75" and "recall".

    Raises:
        InputError: different numbers of images, different image sizes, or predictions without finite scores.
        MissingDependency: faster-coco-eval is not installed.

    Example:
        >>> import torch
        >>> target = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["seven"], size=(24, 32))
        >>> box = Boxes(torch.tensor([[2.0, 3.0, 10.0, 11.0]]), ["seven"], (24, 32), torch.tensor([0.9]))
        >>> metrics = detection_metrics([box], [target])  # IoU 8 / 9: a match up to the threshold .85
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'map': 0.8, 'ap50': 1.0, 'ap75': 1.0, 'recall': 0.8}
    """
    results = _evaluate_coco(predictions, targets)
    return {
        "map": _nanmean(results.precision_TC),
        "ap50": _nanmean(results.precision_TC[_AP50]),
        "ap75": _nanmean(results.precision_TC[_AP75]),
        "recall": _nanmean(results.recall_TC),
    }


def per_class_detection_metrics(
    predictions: Sequence[Boxes], targets: Sequence[Boxes]
) -> dict[str, dict[str, float]]:
    """Compute COCO average precision and recall of each class.

    Args:
        predictions: boxes of each image, with scores.
        targets: ground-truth boxes of the same images.

    Returns:
        Label -> "map", "ap50", "ap75", "recall" (NaN without targets) and "support", the number of targets.

    Raises:
        InputError: different numbers of images, different image sizes, or predictions without finite scores.
        MissingDependency: faster-coco-eval is not installed.

    Example:
        >>> import torch
        >>> target = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["seven"], size=(24, 32))
        >>> box = Boxes(target.boxes, ["six"], (24, 32), torch.tensor([0.9]))
        >>> per_class_detection_metrics([box], [target])["seven"]
        {'map': 0.0, 'ap50': 0.0, 'ap75': 0.0, 'recall': 0.0, 'support': 1.0}
    """
    results = _evaluate_coco(predictions, targets)
    support = Counter(label for target in targets for label in target.labels)
    return {
        label: {
            "map": _nanmean(results.precision_TC[:, column]),
            "ap50": _nanmean(results.precision_TC[_AP50, column]),
            "ap75": _nanmean(results.precision_TC[_AP75, column]),
            "recall": _nanmean(results.recall_TC[:, column]),
            "support": float(support[label]),
        }
        for column, label in enumerate(results.labels)
    }


def check_predictions(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> None:
    """Check that predictions fit the targets.

    Args:
        predictions: boxes of each image, with scores.
        targets: ground-truth boxes of the same images.

    Raises:
        InputError: different numbers of images, different image sizes, or predictions without finite scores.
    """
    if len(predictions) != len(targets):
        raise InputError(
            f"detection: got {len(predictions)} predictions and {len(targets)} targets, expected as many"
        )
    for row, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if tuple(prediction.size) != tuple(target.size):
            raise InputError(
                f"detection: image {row} is {target.size} in the targets and {prediction.size} in the "
                "predictions, expected the same (height, width); see Boxes.scaled"
            )
        if prediction.scores is None or not bool(prediction.scores.isfinite().all()):
            raise InputError(f"detection: image {row} has predictions without finite scores")


def unique_labels(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> list[str]:
    """Return all labels of predictions and targets, sorted.

    Args:
        predictions: predicted boxes of each image.
        targets: ground-truth boxes of each image.
    """
    return sorted({label for boxes in (*predictions, *targets) for label in boxes.labels})


@dataclass(frozen=True, eq=False)
class _CocoResults:
    """Average precision and recall, [T, C] by IoU threshold and class; NaN for classes without targets."""

    labels: list[str]
    precision_TC: Floats
    recall_TC: Floats


def _evaluate_coco(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> _CocoResults:
    check_predictions(predictions, targets)
    labels = unique_labels(predictions, targets)
    nan_TC = np.full((len(IOU_THRESHOLDS), len(labels)), np.nan)
    if not any(len(target) for target in targets):
        return _CocoResults(labels, nan_TC, nan_TC)
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingDependency(
            "detection metrics need faster-coco-eval: pip install 'mmattn[detection]'"
        ) from error
    category_ids = {label: index for index, label in enumerate(labels, start=1)}
    coco = COCO(
        {
            "images": [{"id": row, "height": b.size[0], "width": b.size[1]} for row, b in enumerate(targets)],
            "categories": [{"id": index, "name": label} for label, index in category_ids.items()],
            "annotations": _coco_annotations(targets, category_ids),
        }
    )
    evaluator = COCOeval_faster(
        coco, coco.loadRes(_coco_annotations(predictions, category_ids)), iouType="bbox"
    )
    evaluator.evaluate()
    evaluator.accumulate()
    # [T, 101 recalls, C, areas, max detections]: area 0 is "all", the last maximum is 100.
    precision_TRC = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]
    recall_TC = np.asarray(evaluator.eval["recall"])[:, :, 0, -1]
    precision_TC = np.where(precision_TRC < 0, np.nan, precision_TRC).mean(1)
    return _CocoResults(labels, precision_TC, np.where(recall_TC < 0, np.nan, recall_TC))


def _coco_annotations(boxes: Sequence[Boxes], category_ids: dict[str, int]) -> list[dict[str, Any]]:
    """Convert boxes to COCO annotations: left, top, width, height."""
    rows: list[dict[str, Any]] = []
    for image, image_boxes in enumerate(boxes):
        corners_K4 = image_boxes.boxes.double().cpu()
        sides_K4 = corners_K4.clone()
        sides_K4[:, 2:] -= corners_K4[:, :2]
        for index, (box, label) in enumerate(zip(sides_K4.tolist(), image_boxes.labels, strict=True)):
            row = {
                "id": len(rows) + 1,
                "image_id": image,
                "category_id": category_ids[label],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            if image_boxes.scores is not None:
                row["score"] = float(image_boxes.scores[index])
            rows.append(row)
    return rows


def _nanmean(values: Floats) -> float:
    """Average the values that are not NaN, without numpy's warning where all are."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
