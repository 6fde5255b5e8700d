"""How well boxes are found: COCO's average precision and recall, through faster-coco-eval.

A prediction is right where its IoU with a box of the same label that no better prediction took is at least
the threshold. Average precision is the mean over 101 recalls of the best precision at that recall or above;
`map` is its mean over IoU thresholds .50, .55, ..., .95 and over classes, `ap50` and `ap75` are those at one
threshold. `recall` is the mean over thresholds and classes of what share of the truth was found by at most
100 predictions a picture and class.

What is predicted where there is nothing counts as wrong. A class that never truly occurs has no average
precision and is left out of the means, as COCO does it; without any truth at all the figures are NaN.
"""

from __future__ import annotations

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


# The IoU from which a box counts as found.
IOU_THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
_AP50, _AP75 = 0, 5  # places of .50 and .75 among the thresholds


def detection_metrics(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> dict[str, float]:
    """map, ap50, ap75 and recall over all pictures.

    Args:
        predictions: one a picture, with scores.
        targets: the truth, in the same order, on pictures of the same sizes.

    Raises:
        InputError: lists of different lengths, sizes that differ, or predictions without finite scores.
        MissingDependency: faster-coco-eval is not installed.

    Example:
        >>> import torch
        >>> truth = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["seven"], size=(24, 32))
        >>> found = Boxes(torch.tensor([[2.0, 3.0, 10.0, 11.0]]), ["seven"], (24, 32), torch.tensor([0.9]))
        >>> figures = detection_metrics([found], [truth])  # IoU 8 / 9: found up to the threshold .85
        >>> {name: round(value, 3) for name, value in figures.items()}
        {'map': 0.8, 'ap50': 1.0, 'ap75': 1.0, 'recall': 0.8}
    """
    curves = _evaluate_coco(predictions, targets)
    return {
        "map": _nanmean(curves.precision_TC),
        "ap50": _nanmean(curves.precision_TC[_AP50]),
        "ap75": _nanmean(curves.precision_TC[_AP75]),
        "recall": _nanmean(curves.recall_TC),
    }


def per_class_detection_metrics(
    predictions: Sequence[Boxes], targets: Sequence[Boxes]
) -> dict[str, dict[str, float]]:
    """Each class's map, ap50, ap75 and recall, and how many boxes it truly has (`true`).

    Args:
        predictions, targets: as `detection_metrics`. A class that never truly occurs has NaN figures.

    Raises:
        InputError, MissingDependency: as `detection_metrics`.

    Example:
        >>> import torch
        >>> truth = Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["seven"], size=(24, 32))
        >>> per_class_detection_metrics([Boxes(truth.boxes, ["six"], (24, 32), torch.tensor([0.9]))], [truth])["seven"]
        {'map': 0.0, 'ap50': 0.0, 'ap75': 0.0, 'recall': 0.0, 'true': 1.0}
    """
    curves = _evaluate_coco(predictions, targets)
    true = dict.fromkeys(curves.labels, 0)
    for target in targets:
        for label in target.labels:
            true[label] += 1
    return {
        label: {
            "map": _nanmean(curves.precision_TC[:, column]),
            "ap50": _nanmean(curves.precision_TC[_AP50, column]),
            "ap75": _nanmean(curves.precision_TC[_AP75, column]),
            "recall": _nanmean(curves.recall_TC[:, column]),
            "true": float(true[label]),
        }
        for column, label in enumerate(curves.labels)
    }


def check_predictions(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> None:
    """Refuse predictions that do not answer the targets.

    Raises:
        InputError: as `detection_metrics`.
    """
    if len(predictions) != len(targets):
        raise InputError(
            f"detection: got {len(predictions)} predictions and {len(targets)} targets, expected as many"
        )
    for row, (found, truth) in enumerate(zip(predictions, targets, strict=True)):
        if tuple(found.size) != tuple(truth.size):
            raise InputError(
                f"detection: picture {row} is {truth.size} in the targets and {found.size} in the "
                "predictions, expected the same (height, width); see Boxes.scaled"
            )
        if found.scores is None or not bool(found.scores.isfinite().all()):
            raise InputError(f"detection: picture {row} has predictions without finite scores")


def unique_labels(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> list[str]:
    """Every label, in order."""
    return sorted({label for boxes in (*predictions, *targets) for label in boxes.labels})


@dataclass(frozen=True, eq=False)
class _CocoResults:
    """By IoU threshold and class: average precision and recall, NaN where a class never truly occurs."""

    labels: list[str]
    precision_TC: Floats
    recall_TC: Floats


def _evaluate_coco(predictions: Sequence[Boxes], targets: Sequence[Boxes]) -> _CocoResults:
    check_predictions(predictions, targets)
    labels = unique_labels(predictions, targets)
    nothing = np.full((len(IOU_THRESHOLDS), len(labels)), np.nan)
    if not any(len(target) for target in targets):
        return _CocoResults(labels, nothing, nothing)
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingDependency(
            "detection measures need faster-coco-eval: pip install 'mmattn[detection]'"
        ) from error
    number = {label: place for place, label in enumerate(labels, start=1)}
    truth = COCO(
        {
            "images": [{"id": row, "height": b.size[0], "width": b.size[1]} for row, b in enumerate(targets)],
            "categories": [{"id": place, "name": label} for label, place in number.items()],
            "annotations": _coco_annotations(targets, number),
        }
    )
    judge = COCOeval_faster(truth, truth.loadRes(_coco_annotations(predictions, number)), iouType="bbox")
    judge.evaluate()
    judge.accumulate()
    # [T, 101 recalls, C, areas, most predictions], of which the first area is all and the last most is 100.
    precision_TRC = np.asarray(judge.eval["precision"])[:, :, :, 0, -1]
    recall_TC = np.asarray(judge.eval["recall"])[:, :, 0, -1]
    precision_TC = np.where(precision_TRC < 0, np.nan, precision_TRC).mean(1)
    return _CocoResults(labels, precision_TC, np.where(recall_TC < 0, np.nan, recall_TC))


def _coco_annotations(boxes: Sequence[Boxes], category_ids: dict[str, int]) -> list[dict[str, Any]]:
    """COCO's rows: left, top, width, height."""
    rows: list[dict[str, Any]] = []
    for picture, one in enumerate(boxes):
        corners_K4 = one.boxes.double().cpu()
        sides_K4 = corners_K4.clone()
        sides_K4[:, 2:] -= corners_K4[:, :2]
        for place, (box, label) in enumerate(zip(sides_K4.tolist(), one.labels, strict=True)):
            row = {
                "id": len(rows) + 1,
                "image_id": picture,
                "category_id": category_ids[label],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            if one.scores is not None:
                row["score"] = float(one.scores[place])
            rows.append(row)
    return rows


def _nanmean(values: Floats) -> float:
    """Over what there is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")
