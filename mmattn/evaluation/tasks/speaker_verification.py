"""Speaker verification metrics as counts per recording, for bootstrap intervals."""

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
    """Equal error rate and minimum detection cost of recordings against speakers.

    Each recording is compared with the mean vector of every speaker, excluding the recording itself. Every
    trial thus belongs to one recording, so a bootstrap over recordings is valid; pairs of recordings
    (`mmattn.evaluation.tasks.verification`) would not be independent. Cosines are binned with width .005.
    Speakers need not occur in training. Without both kinds of trials the equal error rate is 0.5.

    Example:
        >>> vectors, speakers = [[1, 0], [1, 0], [0, 1], [0, 1]], ["ann", "ann", "bob", "bob"]
        >>> metrics = SpeakerVerificationMetrics().evaluate(vectors, speakers)
        >>> round(metrics["eer"], 4), round(metrics["min_dcf"], 4)
        (0.0, 0.0)
    """

    primary_metric = "eer"
    lower_is_better = frozenset({"eer", "min_dcf"})

    def counts(self, predictions: Sequence[Any], targets: Sequence[Hashable]) -> Floats:
        """Count the binned cosines of each recording with its own and with other speakers.

        Args:
            predictions: N vectors of shape [K]; None for a recording without one.
            targets: N speakers.

        Returns:
            [N, 2 * bins] counts: own speaker first, then the others.
        """
        counts_N2B = np.zeros((len(targets), 2, _NUM_BINS))
        present_V = np.array([row for row, vector in enumerate(predictions) if vector is not None], np.int64)
        if not len(present_V):
            return counts_N2B.reshape(len(targets), -1)
        vectors_VK = _normalize(np.stack([np.asarray(predictions[row], np.float64) for row in present_V]))
        speaker_ids = {
            speaker: i for i, speaker in enumerate(dict.fromkeys(targets[row] for row in present_V))
        }
        own_V = np.array([speaker_ids[targets[row]] for row in present_V])
        sums_SK = np.zeros((len(speaker_ids), vectors_VK.shape[1]))
        np.add.at(sums_SK, own_V, vectors_VK)
        cosine_VS = vectors_VK @ _normalize(sums_SK).T
        cosine_VS[np.arange(len(present_V)), own_V] = (
            vectors_VK * _normalize(sums_SK[own_V] - vectors_VK)
        ).sum(1)
        same_VS = own_V[:, None] == np.arange(len(speaker_ids))
        is_only_V = np.bincount(own_V)[own_V] == 1  # no other recording of the speaker to compare with
        vector_T, speaker_T = np.nonzero(~(same_VS & is_only_V[:, None]))
        bin_T = ((cosine_VS[vector_T, speaker_T] + 1) / 2 * _NUM_BINS).astype(np.int64).clip(0, _NUM_BINS - 1)
        side_T = np.where(same_VS[vector_T, speaker_T], 0, 1)
        np.add.at(counts_N2B, (present_V[vector_T], side_T, bin_T), 1)
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
    """Return the fraction of trials below each bin edge, [..., bins + 1]; uniform without trials."""
    total = counts.sum(-1, keepdims=True)
    uniform = np.broadcast_to(np.arange(1, counts.shape[-1] + 1) / counts.shape[-1], counts.shape)
    fractions = np.divide(counts.cumsum(-1), total, out=uniform.copy(), where=total > 0)
    return np.concatenate([np.zeros_like(total), fractions], axis=-1)


def _normalize(vectors_NK: Floats) -> Floats:
    """Scale rows to unit length; zero rows stay zero."""
    unit_NK: Floats = vectors_NK / np.maximum(np.linalg.norm(vectors_NK, axis=1, keepdims=True), 1e-12)
    return unit_NK
