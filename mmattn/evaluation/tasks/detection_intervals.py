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
from mmattn.evaluation.tasks.detection import THRESHOLDS, check_pairs, labels_of

__all__ = ["Matches", "bootstrap_detection", "match", "paired_detection"]


_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_MOST = 100  # predictions of a class in a picture that count
_NUMBERS_AT_ONCE = 4_000_000  # 32 MB


@dataclass(frozen=True, eq=False)
class Matches:
    """Which predictions of a class are right, the most confident first.

    Args:
        right: [D, T] for each prediction and IoU threshold.
        picture: [D] the picture that each prediction is on.
        true: [P] boxes that each picture truly has.
    """

    right: NDArray[np.bool_]
    picture: NDArray[np.int64]
    true: Floats

    def average_precision(self, weights: Floats) -> Floats:
        """[R, T], NaN where the pictures that count have no such box.

        Args:
            weights: [R, P] how often each picture counts.
        """
        weight_RD = weights[:, self.picture]
        said_RD = np.maximum(weight_RD.cumsum(1), 1e-12)
        true_R1 = (weights @ self.true)[:, None]
        there_R = true_R1[:, 0] > 0
        result_RT = np.full((len(weights), self.right.shape[1]), np.nan)
        for threshold, right_D in enumerate(self.right.T):
            found_RD = (weight_RD * right_D).cumsum(1)
            precision_RD = found_RD / said_RD
            best_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
            recall_RD = np.divide(found_RD, true_R1, out=np.zeros_like(found_RD), where=true_R1 > 0)
            # How many of the 101 recalls each prediction is the first to reach.
            reached_RD = np.searchsorted(_RECALLS, recall_RD, side="right")
            first_RD = np.diff(reached_RD, axis=1, prepend=0)
            result_RT[:, threshold] = (best_RD * first_RD).sum(1) / len(_RECALLS)
        result_RT[~there_R] = np.nan
        return result_RT


def match(
    predictions: Sequence[Boxes], targets: Sequence[Boxes], thresholds: Floats = THRESHOLDS
) -> dict[str, Matches]:
    """Label -> its matches, for every label that truly occurs.

    In each picture the most confident prediction chooses first, and takes the box that it covers best.

    Raises:
        InputError: predictions that do not answer the targets.
    """
    check_pairs(predictions, targets)
    found = {}
    for label in labels_of([], targets):
        parts = [
            _matched(one, truth, label, thresholds) for one, truth in zip(predictions, targets, strict=True)
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
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """map, ap50 and ap75, and ap50 of each class, with percentile intervals over pictures.

    The same pictures are drawn in every seed.

    Args:
        predictions: of each seed, one a picture.
        targets: one a picture.
        level: coverage, between 0 and 1.
        resamples: how many times the pictures are drawn anew.
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
    runs = _runs(predictions, targets)
    values = _drawn(runs, len(targets), resamples, seed)
    whole = _figures_of(runs, np.ones((1, len(targets))))
    return {name: _interval(whole[name], values[name], level, len(targets)) for name in whole}


def paired_detection(
    ours: Sequence[Sequence[Boxes]],
    theirs: Sequence[Sequence[Boxes]],
    targets: Sequence[Boxes],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every figure of ours minus that of theirs, seed by seed, on the same draws of pictures.

    Args:
        ours, theirs: of each seed, one a picture; the same seeds.
        targets, level, resamples, seed: as `bootstrap_detection`.

    Raises:
        InputError: other seeds, or predictions that do not answer the targets.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired detection: got {len(ours)} and {len(theirs)} seeds, expected the same")
    runs, others = _runs(ours, targets), _runs(theirs, targets)
    values, against = (_drawn(each, len(targets), resamples, seed) for each in (runs, others))
    once = np.ones((1, len(targets)))
    whole, other = _figures_of(runs, once), _figures_of(others, once)
    return {
        name: _interval(whole[name] - other[name], values[name] - against[name], level, len(targets))
        for name in whole
    }


def _runs(predictions: Sequence[Sequence[Boxes]], targets: Sequence[Boxes]) -> list[dict[str, Matches]]:
    """The matches of each seed."""
    if not len(predictions) or not len(targets):
        raise InputError(
            f"detection: got {len(predictions)} seeds and {len(targets)} pictures, expected at least one each"
        )
    return [match(one, targets) for one in predictions]


def _matched(
    found: Boxes, truth: Boxes, label: str, thresholds: Floats
) -> tuple[Floats, NDArray[np.bool_], int]:
    """Scores [D] and rightness [D, T] of one picture's predictions of a label, and its boxes."""
    assert found.scores is not None  # `check_pairs` has seen to that
    rows = [row for row, name in enumerate(found.labels) if name == label]
    columns = [column for column, name in enumerate(truth.labels) if name == label]
    scores_D = found.scores[rows].double().cpu().numpy()
    order = np.argsort(-scores_D, kind="stable")[:_MOST]
    said_D4, true_K4 = found.boxes.double().cpu().numpy(), truth.boxes.double().cpu().numpy()
    iou_DK = _overlaps(said_D4[rows][order], true_K4[columns])
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


def _overlaps(said_D4: Floats, true_K4: Floats) -> Floats:
    """[D, K] intersections over unions."""
    first_DK2 = np.maximum(said_D4[:, None, :2], true_K4[None, :, :2])
    last_DK2 = np.minimum(said_D4[:, None, 2:], true_K4[None, :, 2:])
    common_DK = (last_DK2 - first_DK2).clip(min=0).prod(2)
    area_D, area_K = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (said_D4, true_K4))
    return common_DK / np.maximum(area_D[:, None] + area_K - common_DK, 1e-12)


def _drawn(runs: Sequence[dict[str, Matches]], pictures: int, resamples: int, seed: int) -> dict[str, Floats]:
    """Figure -> [S, R], some draws at a time."""
    rng = np.random.default_rng(seed)
    longest = max((len(each.picture) for run in runs for each in run.values()), default=1)
    blocks = []
    for rows in _rows(resamples, max(1, _NUMBERS_AT_ONCE // max(longest, 1))):
        weights_RP = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=rows)
        blocks.append(_figures_of(runs, weights_RP.astype(np.float64)))
    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


def _rows(total: int, most: int) -> Iterator[int]:
    for start in range(0, total, most):
        yield min(most, total - start)


def _figures_of(runs: Sequence[dict[str, Matches]], weights_RP: Floats) -> dict[str, Floats]:
    """Figure -> [S, R]."""
    each = [_figures(run, weights_RP) for run in runs]
    return {name: np.stack([figures[name] for figures in each]) for name in each[0]}


def _figures(run: dict[str, Matches], weights_RP: Floats) -> dict[str, Floats]:
    """Figure -> [R]; a class that a draw lacks is left out of that draw's means."""
    if not run:
        nothing = np.full(len(weights_RP), np.nan)
        return {"map": nothing, "ap50": nothing, "ap75": nothing}
    values_CRT = np.stack([matches.average_precision(weights_RP) for matches in run.values()])
    there_CR1 = ~np.isnan(values_CRT[:, :, :1])
    sums_RT = np.where(there_CR1, values_CRT, 0.0).sum(0)
    counts_R1 = there_CR1.sum(0)
    means_RT = np.divide(sums_RT, counts_R1, out=np.full_like(sums_RT, np.nan), where=counts_R1 > 0)
    by_class = {f"ap50 {label}": values_CRT[place, :, 0] for place, label in enumerate(run)}
    return {"map": means_RT.mean(1), "ap50": means_RT[:, 0], "ap75": means_RT[:, 5], **by_class}


def _interval(whole_S1: Floats, values_SR: Floats, level: float, pictures: int) -> Interval:
    if not 0 < level < 1:
        raise InputError(f"detection: got level {level}, expected 0 < level < 1")
    means_R = values_SR.mean(0)
    known_R = means_R[~np.isnan(means_R)]
    low, high = np.quantile(known_R, [(1 - level) / 2, (1 + level) / 2]) if len(known_R) else (np.nan,) * 2
    seeds = tuple(float(value) for value in whole_S1[:, 0])
    return Interval(float(np.mean(seeds)), float(low), float(high), seeds, level, pictures)
