"""Bootstrap intervals of average precision over images.

Average precision is not a mean over images, so each resample computes it anew. The matching of predictions
and targets does not depend on the resample: it is computed once, and a resample only reweights the images.
The values agree with COCO's to the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mmattn.array_types import Bools, Floats, Ints
from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import Interval, percentile_interval
from mmattn.evaluation.tasks.detection import IOU_THRESHOLDS, check_predictions, unique_labels

__all__ = ["Matches", "bootstrap_detection", "match_predictions", "paired_bootstrap_detection"]


_RECALL_POINTS: Floats = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = 100  # predictions per class and image that count
_MAX_VALUES = 4_000_000  # in memory at once: 32 MB


@dataclass(frozen=True, eq=False)
class Matches:
    """Matched predictions of one class, by decreasing score.

    Args:
        correct: [D, T] whether each prediction matches a target at each IoU threshold.
        image_index: [D] image of each prediction.
        num_targets: [I] number of targets on each image.
    """

    correct: Bools
    image_index: Ints
    num_targets: Floats

    def average_precision(self, weights: Floats) -> Floats:
        """Compute average precision of reweighted images.

        Args:
            weights: [R, I] multiplicity of each image in each resample.

        Returns:
            [R, T] average precision at each IoU threshold; NaN for resamples without a target.
        """
        weight_RD = weights[:, self.image_index]
        predicted_RD = np.maximum(weight_RD.cumsum(1), 1e-12)
        targets_R1 = (weights @ self.num_targets)[:, None]
        result_RT = np.full((len(weights), self.correct.shape[1]), np.nan)
        for threshold, correct_D in enumerate(self.correct.T):
            true_positives_RD = (weight_RD * correct_D).cumsum(1)
            precision_RD = true_positives_RD / predicted_RD
            interpolated_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
            recall_RD = np.divide(
                true_positives_RD, targets_R1, out=np.zeros_like(true_positives_RD), where=targets_R1 > 0
            )
            # Number of the 101 recall points that each prediction is the first to reach.
            reached_RD = np.searchsorted(_RECALL_POINTS, recall_RD, side="right")
            first_RD = np.diff(reached_RD, axis=1, prepend=0)
            result_RT[:, threshold] = (interpolated_RD * first_RD).sum(1) / len(_RECALL_POINTS)
        result_RT[targets_R1[:, 0] <= 0] = np.nan
        return result_RT


def match_predictions(
    predictions: Sequence[Boxes], targets: Sequence[Boxes], thresholds: Floats = IOU_THRESHOLDS
) -> dict[str, Matches]:
    """Match predictions and targets of every label in the targets.

    On each image, predictions are matched by decreasing score to the free target with the highest IoU.

    Args:
        predictions: boxes of each image, with scores.
        targets: ground-truth boxes of the same images.
        thresholds: [T] IoU thresholds.

    Returns:
        Label -> matches.

    Raises:
        InputError: different numbers of images, different image sizes, or predictions without finite scores.
    """
    check_predictions(predictions, targets)
    matches = {}
    for label in unique_labels([], targets):
        parts = [
            _match_image(predicted, actual, label, thresholds)
            for predicted, actual in zip(predictions, targets, strict=True)
        ]
        scores_D = np.concatenate([scores for scores, _, _ in parts])
        correct_DT = np.concatenate([correct for _, correct, _ in parts])
        image_D = np.repeat(np.arange(len(parts)), [len(scores) for scores, _, _ in parts])
        order_D = np.argsort(-scores_D, kind="stable")
        num_targets_I = np.array([count for _, _, count in parts], np.float64)
        matches[label] = Matches(correct_DT[order_D], image_D[order_D], num_targets_I)
    return matches


def bootstrap_detection(
    predictions: Sequence[Sequence[Boxes]],
    targets: Sequence[Boxes],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute average precision with percentile intervals over images; all seeds share the resamples.

    Args:
        predictions: boxes of each image, for each seed.
        targets: ground-truth boxes of each image.
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        "map", "ap50", "ap75" and "ap50 LABEL" of each label -> interval.

    Raises:
        InputError: no seed, no image, or predictions that do not fit the targets.

    Example:
        >>> import torch
        >>> targets = [Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["a"], (24, 32))] * 2
        >>> correct = Boxes(targets[0].boxes, ["a"], (24, 32), torch.tensor([0.9]))
        >>> wrong = Boxes(targets[0].boxes + 9, ["a"], (24, 32), torch.tensor([0.8]))
        >>> result = bootstrap_detection([[correct, wrong]], targets)["ap50"]
        >>> round(result.mean, 3), result.low, result.high
        (0.505, 0.0, 1.0)
    """
    _check_confidence_level(confidence_level)
    matches = _match_seeds(predictions, targets)
    resampled = _resampled_metrics(matches, len(targets), n_resamples, seed)
    return {
        name: percentile_interval(
            values_S1[:, 0], resampled[name].mean(0), confidence_level, n_samples=len(targets)
        )
        for name, values_S1 in _metrics_by_seed(matches, np.ones((1, len(targets)))).items()
    }


def paired_bootstrap_detection(
    ours: Sequence[Sequence[Boxes]],
    theirs: Sequence[Sequence[Boxes]],
    targets: Sequence[Boxes],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute the paired difference of two systems, ours minus theirs, in average precision.

    Args:
        ours: boxes of each image, for each seed.
        theirs: boxes of the other system, for the same seeds.
        targets: ground-truth boxes of each image.
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Returns:
        "map", "ap50", "ap75" and "ap50 LABEL" of each label -> interval of the difference.

    Raises:
        InputError: different numbers of seeds, or predictions that do not fit the targets.
    """
    _check_confidence_level(confidence_level)
    if len(ours) != len(theirs):
        raise InputError(f"paired detection: got {len(ours)} and {len(theirs)} seeds, expected the same")
    our_matches, their_matches = _match_seeds(ours, targets), _match_seeds(theirs, targets)
    our_resampled, their_resampled = (
        _resampled_metrics(matches, len(targets), n_resamples, seed)
        for matches in (our_matches, their_matches)
    )
    unweighted = np.ones((1, len(targets)))
    their_values = _metrics_by_seed(their_matches, unweighted)
    return {
        name: percentile_interval(
            (values_S1 - their_values[name])[:, 0],
            (our_resampled[name] - their_resampled[name]).mean(0),
            confidence_level,
            n_samples=len(targets),
        )
        for name, values_S1 in _metrics_by_seed(our_matches, unweighted).items()
    }


def _match_seeds(
    predictions: Sequence[Sequence[Boxes]], targets: Sequence[Boxes]
) -> list[dict[str, Matches]]:
    """Return the matches of each seed."""
    if not len(predictions) or not len(targets):
        raise InputError(
            f"detection: got {len(predictions)} seeds and {len(targets)} images, expected at least one each"
        )
    return [match_predictions(seed_predictions, targets) for seed_predictions in predictions]


def _match_image(
    predictions: Boxes, targets: Boxes, label: str, thresholds: Floats
) -> tuple[Floats, Bools, int]:
    """Return scores [D], correctness [D, T] and the number of targets of one label on one image."""
    assert predictions.scores is not None  # checked by `check_predictions`
    rows = [row for row, name in enumerate(predictions.labels) if name == label]
    columns = [column for column, name in enumerate(targets.labels) if name == label]
    scores_D = predictions.scores[rows].double().cpu().numpy()
    order = np.argsort(-scores_D, kind="stable")[:_MAX_DETECTIONS]
    predicted_D4, target_K4 = predictions.boxes.double().cpu().numpy(), targets.boxes.double().cpu().numpy()
    iou_DK = _pairwise_iou(predicted_D4[rows][order], target_K4[columns])
    correct_DT = np.zeros((len(order), len(thresholds)), bool)
    for column, threshold in enumerate(thresholds):
        free_K = np.ones(len(columns), bool)
        for row, iou_K in enumerate(iou_DK):
            available_K = np.where(free_K, iou_K, -1.0)
            if len(available_K) and available_K.max() >= threshold - 1e-10:
                # Among equal IoUs, COCO takes the last target.
                free_K[np.flatnonzero(available_K == available_K.max())[-1]] = False
                correct_DT[row, column] = True
    return scores_D[order], correct_DT, len(columns)


def _pairwise_iou(predicted_D4: Floats, target_K4: Floats) -> Floats:
    """Return the IoU of each prediction and target, [D, K]."""
    first_DK2 = np.maximum(predicted_D4[:, None, :2], target_K4[None, :, :2])
    last_DK2 = np.minimum(predicted_D4[:, None, 2:], target_K4[None, :, 2:])
    intersection_DK = (last_DK2 - first_DK2).clip(min=0).prod(2)
    area_D, area_K = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (predicted_D4, target_K4))
    iou_DK: Floats = intersection_DK / np.maximum(area_D[:, None] + area_K - intersection_DK, 1e-12)
    return iou_DK


def _resampled_metrics(
    matches_by_seed: Sequence[dict[str, Matches]], n_images: int, n_resamples: int, seed: int
) -> dict[str, Floats]:
    """Return metric name -> [S, R], computed in blocks of resamples."""
    rng = np.random.default_rng(seed)
    longest = max(
        (len(matches.image_index) for by_label in matches_by_seed for matches in by_label.values()), default=1
    )
    blocks = []
    for rows in _block_sizes(n_resamples, max(1, _MAX_VALUES // max(longest, 1))):
        weights_RI = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=rows)
        blocks.append(_metrics_by_seed(matches_by_seed, weights_RI.astype(np.float64)))
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def _block_sizes(total: int, max_size: int) -> Iterator[int]:
    for start in range(0, total, max_size):
        yield min(max_size, total - start)


def _metrics_by_seed(matches_by_seed: Sequence[dict[str, Matches]], weights_RI: Floats) -> dict[str, Floats]:
    """Return metric name -> [S, R]."""
    by_seed = [_metrics_of_draws(by_label, weights_RI) for by_label in matches_by_seed]
    return {name: np.stack([metrics[name] for metrics in by_seed]) for name in by_seed[0]}


def _metrics_of_draws(matches_by_label: dict[str, Matches], weights_RI: Floats) -> dict[str, Floats]:
    """Return metric name -> [R]; classes without targets in a resample are excluded from its means."""
    if not matches_by_label:
        nan_R = np.full(len(weights_RI), np.nan)
        return {"map": nan_R, "ap50": nan_R, "ap75": nan_R}
    values_CRT = np.stack([matches.average_precision(weights_RI) for matches in matches_by_label.values()])
    present_CR1 = ~np.isnan(values_CRT[:, :, :1])
    sums_RT = np.where(present_CR1, values_CRT, 0.0).sum(0)
    counts_R1 = present_CR1.sum(0)
    means_RT = np.divide(sums_RT, counts_R1, out=np.full_like(sums_RT, np.nan), where=counts_R1 > 0)
    by_class = {f"ap50 {label}": values_CRT[index, :, 0] for index, label in enumerate(matches_by_label)}
    return {"map": means_RT.mean(1), "ap50": means_RT[:, 0], "ap75": means_RT[:, 5], **by_class}


def _check_confidence_level(confidence_level: float) -> None:
    if not 0 < confidence_level < 1:
        raise InputError(f"detection: got confidence_level {confidence_level}, expected 0 < level < 1")
