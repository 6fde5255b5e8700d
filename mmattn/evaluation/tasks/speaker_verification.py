"""How well vectors tell speakers apart, as counts of every recording."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from mmattn.array_types import Floats
from mmattn.evaluation.tasks.task_metrics import TaskMetrics
from mmattn.evaluation.tasks.verification import equal_error_rate, min_detection_cost

__all__ = ["SpeakerVerificationMetrics"]


_NUM_BINS = 400  # of the cosines between -1 and 1


class SpeakerVerificationMetrics(TaskMetrics):
    """Verification: equal error rate and least cost, of recordings against speakers.

    Each recording is compared with every speaker: with the mean vector of the speaker's recordings, itself
    left out. So every trial belongs to one recording, and an interval may draw these anew, as it may not
    where pairs of recordings are compared (`mmattn.evaluation.tasks.verification`). Cosines are sorted into bins
    of .005. Speakers need not have been heard in training. Where nothing tells one from another, the error
    rate is a half, and so it is where there are no two speakers.

    Example:
        >>> found = SpeakerVerificationMetrics().measure([[1, 0], [1, 0], [0, 1], [0, 1]], ["ann", "ann", "bob", "bob"])
        >>> round(found["eer"], 4), round(found["min_dcf"], 4)
        (0.0, 0.0)
    """

    primary_metric = "eer"
    lower_is_better = frozenset({"eer", "min_dcf"})

    def counts(self, predictions: Sequence[Any], targets: Sequence[Hashable]) -> Floats:
        """[N, 2 * bins]: of each recording, the same speaker's cosines and the others'."""
        counts_N2B = np.zeros((len(targets), 2, _NUM_BINS))
        there = np.array([row for row, vector in enumerate(predictions) if vector is not None], np.int64)
        if not len(there):
            return counts_N2B.reshape(len(targets), -1)
        x_VK = _normalize(np.stack([np.asarray(predictions[row], np.float64) for row in there]))
        names = {name: number for number, name in enumerate(dict.fromkeys(targets[row] for row in there))}
        own_V = np.array([names[targets[row]] for row in there])
        sums_SK = np.zeros((len(names), x_VK.shape[1]))
        np.add.at(sums_SK, own_V, x_VK)
        cosine_VS = x_VK @ _normalize(sums_SK).T
        cosine_VS[np.arange(len(there)), own_V] = (x_VK * _normalize(sums_SK[own_V] - x_VK)).sum(1)
        same_VS = own_V[:, None] == np.arange(len(names))
        lone_V = np.bincount(own_V)[own_V] == 1  # nothing of the same speaker to be compared with
        vector_T, speaker_T = np.nonzero(~(same_VS & lone_V[:, None]))
        bin_T = ((cosine_VS[vector_T, speaker_T] + 1) / 2 * _NUM_BINS).astype(np.int64).clip(0, _NUM_BINS - 1)
        side_T = np.where(same_VS[vector_T, speaker_T], 0, 1)
        np.add.at(counts_N2B, (there[vector_T], side_T, bin_T), 1)
        return counts_N2B.reshape(len(targets), -1)

    def compute(self, sums: Floats) -> dict[str, Floats]:
        same, other = sums[..., :_NUM_BINS], sums[..., _NUM_BINS:]
        misses, refused = _cumulative_fractions(same), _cumulative_fractions(other)
        known = (same.sum(-1) > 0) & (other.sum(-1) > 0)
        return {
            "eer": np.where(known, equal_error_rate(1 - refused, misses), 0.5),
            "min_dcf": np.where(known, min_detection_cost(1 - refused, misses), 1.0),
        }


def _cumulative_fractions(counts: Floats) -> Floats:
    """[..., bins + 1]: the share of the trials below each edge; spread evenly where there are none."""
    total = counts.sum(-1, keepdims=True)
    even = np.broadcast_to(np.arange(1, counts.shape[-1] + 1) / counts.shape[-1], counts.shape)
    shares = np.divide(counts.cumsum(-1), total, out=even.copy(), where=total > 0)
    return np.concatenate([np.zeros_like(total), shares], axis=-1)


def _normalize(x_NK: Floats) -> Floats:
    """Rows of length 1; zeros stay."""
    return x_NK / np.maximum(np.linalg.norm(x_NK, axis=1, keepdims=True), 1e-12)
