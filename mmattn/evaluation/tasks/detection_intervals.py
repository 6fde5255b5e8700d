"""Intervals of average precision over pictures.

Average precision is no mean over pictures, so a bootstrap must compute it anew for every draw. That is
affordable here because which prediction found which box does not depend on the draw: it is settled once, and
a draw then only says how often each picture counts. The figures are COCO's, to the last digits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmattn.array_types import Floats
from mmattn.boxes import Boxes
from mmattn.errors import InputError
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.detection import IOU_THRESHOLDS, check_predictions, unique_labels

__all__ = ["Matches", "bootstrap_detection", "match_predictions", "paired_bootstrap_detection"]


_RECALL_POINTS: Floats = np.linspace(0.0, 1.0, 101)
_MAX_DETECTIONS = 100  # predictions of a class in a picture that count
_NUMBERS_AT_ONCE = 4_000_000  # 32 MB


@dataclass(frozen=True, eq=False)
class Matches:
    """Which predictions of a class are right, the most confident first.

    Args:
        correct: [D, T] for each prediction and IoU threshold.
        image_index: [D] the picture that each prediction is on.
        num_targets: [P] boxes that each picture truly has.
    """

    correct: NDArray[np.bool_]
    image_index: NDArray[np.int64]
    num_targets: Floats

    def average_precision(self, weights: Floats) -> Floats:
        """[R, T], NaN where the pictures that count have no such box.

        Args:
            weights: [R, P] how often each picture counts.
        """
        weight_RD = weights[:, self.image_index]
        said_RD = np.maximum(weight_RD.cumsum(1), 1e-12)
        true_R1 = (weights @ self.num_targets)[:, None]
        there_R = true_R1[:, 0] > 0
        result_RT = np.full((len(weights), self.correct.shape[1]), np.nan)
        for threshold, right_D in enumerate(self.correct.T):
            found_RD = (weight_RD * right_D).cumsum(1)
            precision_RD = found_RD / said_RD
            best_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
            recall_RD = np.divide(found_RD, true_R1, out=np.zeros_like(found_RD), where=true_R1 > 0)
            # How many of the 101 recalls each prediction is the first to reach.
            reached_RD = np.searchsorted(_RECALL_POINTS, recall_RD, side="right")
            first_RD = np.diff(reached_RD, axis=1, prepend=0)
            result_RT[:, threshold] = (best_RD * first_RD).sum(1) / len(_RECALL_POINTS)
        result_RT[~there_R] = np.nan
        return result_RT


def match_predictions(
    predictions: Sequence[Boxes], targets: Sequence[Boxes], thresholds: Floats = IOU_THRESHOLDS
) -> dict[str, Matches]:
    """Label -> its matches, for every label that truly occurs.

    In each picture the most confident prediction chooses first, and takes the box that it covers best.

    Raises:
        InputError: predictions that do not answer the targets.
    """
    check_predictions(predictions, targets)
    found = {}
    for label in unique_labels([], targets):
        parts = [
            _match_image(one, truth, label, thresholds)
            for one, truth in zip(predictions, targets, strict=True)
        ]
        scores_D = np.concatenate([scores for scores, _, _ in parts])
        right_DT = np.concatenate([right for _, right, _ in parts])
        picture_D = np.repeat(np.arange(len(parts)), [len(scores) for scores, _, _ in parts])
        order_D = np.argsort(-scores_D, kind="stable")
        true_P = np.array([true for _, _, true in parts], np.float64)
        found[label] = Matches(right_DT[order_D], picture_D[order_D], true_P)
    return found


def bootstrap_detection(
    predictions: Sequence[Sequence[Boxes]],
    targets: Sequence[Boxes],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """map, ap50 and ap75, and ap50 of each class, with percentile intervals over pictures.

    The same pictures are drawn in every seed.

    Args:
        predictions: of each seed, one a picture.
        targets: one a picture.
        confidence_level: coverage, between 0 and 1.
        n_resamples: how many times the pictures are drawn anew.
        seed: of the resampling.

    Raises:
        InputError: no seed, no picture, or predictions that do not answer the targets.

    Example:
        >>> import torch
        >>> truth = [Boxes(torch.tensor([[2.0, 3.0, 10.0, 12.0]]), ["a"], (24, 32))] * 2
        >>> right = Boxes(truth[0].boxes, ["a"], (24, 32), torch.tensor([0.9]))
        >>> wrong = Boxes(truth[0].boxes + 9, ["a"], (24, 32), torch.tensor([0.8]))
        >>> result = bootstrap_detection([[right, wrong]], truth)["ap50"]
        >>> round(result.mean, 3), result.low, result.high
        (0.505, 0.0, 1.0)
    """
    runs = _match_seeds(predictions, targets)
    values = _resampled_metrics(runs, len(targets), n_resamples, seed)
    whole = _metrics_by_seed(runs, np.ones((1, len(targets))))
    return {name: _interval(whole[name], values[name], confidence_level, len(targets)) for name in whole}


def paired_bootstrap_detection(
    ours: Sequence[Sequence[Boxes]],
    theirs: Sequence[Sequence[Boxes]],
    targets: Sequence[Boxes],
    *,
    confidence_level: float = 0.95,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every figure of ours minus that of theirs, seed by seed, on the same draws of pictures.

    Args:
        ours, theirs: of each seed, one a picture; the same seeds.
        targets, confidence_level, n_resamples, seed: as `bootstrap_detection`.

    Raises:
        InputError: other seeds, or predictions that do not answer the targets.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired detection: got {len(ours)} and {len(theirs)} seeds, expected the same")
    runs, others = _match_seeds(ours, targets), _match_seeds(theirs, targets)
    values, against = (_resampled_metrics(each, len(targets), n_resamples, seed) for each in (runs, others))
    once = np.ones((1, len(targets)))
    whole, other = _metrics_by_seed(runs, once), _metrics_by_seed(others, once)
    return {
        name: _interval(
            whole[name] - other[name], values[name] - against[name], confidence_level, len(targets)
        )
        for name in whole
    }


def _match_seeds(
    predictions: Sequence[Sequence[Boxes]], targets: Sequence[Boxes]
) -> list[dict[str, Matches]]:
    """The matches of each seed."""
    if not len(predictions) or not len(targets):
        raise InputError(
            f"detection: got {len(predictions)} seeds and {len(targets)} pictures, expected at least one each"
        )
    return [match_predictions(one, targets) for one in predictions]


def _match_image(
    predictions: Boxes, targets: Boxes, label: str, thresholds: Floats
) -> tuple[Floats, NDArray[np.bool_], int]:
    """Scores [D] and rightness [D, T] of one picture's predictions of a label, and its boxes."""
    assert predictions.scores is not None  # `check_predictions` has seen to that
    rows = [row for row, name in enumerate(predictions.labels) if name == label]
    columns = [column for column, name in enumerate(targets.labels) if name == label]
    scores_D = predictions.scores[rows].double().cpu().numpy()
    order = np.argsort(-scores_D, kind="stable")[:_MAX_DETECTIONS]
    said_D4, true_K4 = predictions.boxes.double().cpu().numpy(), targets.boxes.double().cpu().numpy()
    iou_DK = _pairwise_iou(said_D4[rows][order], true_K4[columns])
    right_DT = np.zeros((len(order), len(thresholds)), bool)
    for place, threshold in enumerate(thresholds):
        free_K = np.ones(len(columns), bool)
        for row, iou_K in enumerate(iou_DK):
            open_K = np.where(free_K, iou_K, -1.0)
            if len(open_K) and open_K.max() >= threshold - 1e-10:
                # Of several that it covers as well, COCO takes the last.
                free_K[np.flatnonzero(open_K == open_K.max())[-1]] = False
                right_DT[row, place] = True
    return scores_D[order], right_DT, len(columns)


def _pairwise_iou(predicted_D4: Floats, target_K4: Floats) -> Floats:
    """[D, K] intersections over unions."""
    first_DK2 = np.maximum(predicted_D4[:, None, :2], target_K4[None, :, :2])
    last_DK2 = np.minimum(predicted_D4[:, None, 2:], target_K4[None, :, 2:])
    common_DK = (last_DK2 - first_DK2).clip(min=0).prod(2)
    area_D, area_K = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (predicted_D4, target_K4))
    return common_DK / np.maximum(area_D[:, None] + area_K - common_DK, 1e-12)


def _resampled_metrics(
    matches_by_seed: Sequence[dict[str, Matches]], n_images: int, n_resamples: int, seed: int
) -> dict[str, Floats]:
    """Figure -> [S, R], some draws at a time."""
    rng = np.random.default_rng(seed)
    longest = max((len(each.image_index) for run in matches_by_seed for each in run.values()), default=1)
    blocks = []
    for rows in _block_sizes(n_resamples, max(1, _NUMBERS_AT_ONCE // max(longest, 1))):
        weights_RP = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=rows)
        blocks.append(_metrics_by_seed(matches_by_seed, weights_RP.astype(np.float64)))
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def _block_sizes(total: int, max_size: int) -> Iterator[int]:
    for start in range(0, total, max_size):
        yield min(max_size, total - start)


def _metrics_by_seed(matches_by_seed: Sequence[dict[str, Matches]], weights_RI: Floats) -> dict[str, Floats]:
    """Figure -> [S, R]."""
    each = [_metrics_of_draws(run, weights_RI) for run in matches_by_seed]
    return {name: np.stack([figures[name] for figures in each]) for name in each[0]}


def _metrics_of_draws(matches_by_label: dict[str, Matches], weights_RI: Floats) -> dict[str, Floats]:
    """Figure -> [R]; a class that a draw lacks is left out of that draw's means."""
    if not matches_by_label:
        nothing = np.full(len(weights_RI), np.nan)
        return {"map": nothing, "ap50": nothing, "ap75": nothing}
    values_CRT = np.stack([matches.average_precision(weights_RI) for matches in matches_by_label.values()])
    there_CR1 = ~np.isnan(values_CRT[:, :, :1])
    sums_RT = np.where(there_CR1, values_CRT, 0.0).sum(0)
    counts_R1 = there_CR1.sum(0)
    means_RT = np.divide(sums_RT, counts_R1, out=np.full_like(sums_RT, np.nan), where=counts_R1 > 0)
    by_class = {f"ap50 {label}": values_CRT[place, :, 0] for place, label in enumerate(matches_by_label)}
    return {"map": means_RT.mean(1), "ap50": means_RT[:, 0], "ap75": means_RT[:, 5], **by_class}


def _interval(whole_S1: Floats, values_SR: Floats, confidence_level: float, n_images: int) -> Interval:
    if not 0 < confidence_level < 1:
        raise InputError(f"detection: got level {confidence_level}, expected 0 < level < 1")
    means_R = values_SR.mean(0)
    known_R = means_R[~np.isnan(means_R)]
    low, high = (
        np.quantile(known_R, [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
        if len(known_R)
        else (np.nan,) * 2
    )
    seeds = tuple(float(value) for value in whole_S1[:, 0])
    return Interval(float(np.mean(seeds)), float(low), float(high), seeds, confidence_level, n_images)
