"""Modality gap: the distance between the regions that two modalities occupy in one embedding space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError

__all__ = ["ModalityGap", "modality_gap"]


@dataclass(frozen=True)
class ModalityGap:
    """Distance and similarity of two modalities in one embedding space.

    Args:
        distance: distance between the centroids of the unit vectors, 0 to 2 (the modality gap).
        matched: mean cosine between the two modalities of one sample.
        unmatched: mean cosine between the two modalities of different samples.
        samples: number of samples with both modalities.
    """

    distance: float
    matched: float
    unmatched: float
    samples: int


def modality_gap(
    vectors: Mapping[str, NDArray[np.floating]], presence: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[tuple[str, str], ModalityGap]:
    """Compute the modality gap of every pair of modalities, over the samples with both.

    Paper: Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
    Representation Learning", NeurIPS 2022.

    Args:
        vectors: modality -> [B, D], nonzero where present.
        presence: modality -> [B] mask; by default all samples have all modalities.

    Returns:
        (first modality, second modality) -> gap.

    Raises:
        InputError: the shapes differ, or a present vector is zero or not finite.

    Example:
        >>> gap = modality_gap({"a": np.eye(2), "b": -np.eye(2)})[("a", "b")]
        >>> round(gap.distance, 4), gap.matched, gap.unmatched
        (1.4142, -1.0, 0.0)
    """
    shapes = {name: array.shape for name, array in vectors.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise InputError(f"modality_gap: got shapes {shapes}, expected one [B, D]")
    count = next(iter(shapes.values()))[0]
    present = {name: np.ones(count, bool) if presence is None else presence[name] for name in vectors}
    units = {
        name: _unit_vectors(name, np.asarray(array, np.float64), present[name])
        for name, array in vectors.items()
    }
    return {
        (first, second): _gap(units, present, first, second) for first, second in combinations(vectors, 2)
    }


def _gap(
    units: Mapping[str, NDArray[np.float64]],
    present: Mapping[str, NDArray[np.bool_]],
    first: str,
    second: str,
) -> ModalityGap:
    both = present[first] & present[second]
    left_BD, right_BD = units[first][both], units[second][both]
    samples = len(left_BD)
    if not samples:
        return ModalityGap(float("nan"), float("nan"), float("nan"), 0)
    matched = float((left_BD * right_BD).sum(1).mean())
    # The sum over all ordered pairs is the inner product of the sums.
    total = float(left_BD.sum(0) @ right_BD.sum(0))
    unmatched = (total - matched * samples) / (samples * (samples - 1)) if samples > 1 else float("nan")
    distance = float(np.linalg.norm(left_BD.mean(0) - right_BD.mean(0)))
    return ModalityGap(distance, matched, unmatched, samples)


def _unit_vectors(
    name: str, vectors_BD: NDArray[np.float64], present_B: NDArray[np.bool_]
) -> NDArray[np.float64]:
    norms_B = np.linalg.norm(vectors_BD, axis=1)
    bad_B = present_B & ~((norms_B > 0) & np.isfinite(norms_B))
    if bad_B.any():
        raise InputError(
            f"modality_gap: {name!r} of sample {int(bad_B.argmax())} is zero or not finite, expected a vector"
        )
    return vectors_BD / np.where(present_B, norms_B, 1.0)[:, None]
