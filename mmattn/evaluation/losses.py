"""Where a result is lost: in the model or in the index, and between the modalities of one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.intervals import Interval, bootstrap, paired
from mmattn.evaluation.metrics import Ranking, evaluate

__all__ = ["Gap", "IndexLoss", "index_loss", "modality_gap"]


@dataclass(frozen=True)
class IndexLoss:
    """A task metric through an index, taken apart.

    Args:
        metric: its name.
        exact: with exact search; what is missing to 1 is the model's loss.
        approximate: through the index.
        loss: exact - approximate, user by user: the index's loss.
        recall: share of what exact search ranks among the first k that the index returns there.
    """

    metric: str
    exact: Interval
    approximate: Interval
    loss: Interval
    recall: float

    @property
    def model_loss(self) -> float:
        """What the model loses of a perfect 1."""
        return 1 - self.exact.mean


def index_loss(
    exact: Ranking, approximate: Ranking, positives: sparse.csr_array, metric: str = "ndcg@10"
) -> IndexLoss:
    """Measure the same queries through exact search and through an index.

    Args:
        exact: [U, k] what exact search finds.
        approximate: [U, k] what the index finds.
        positives: [U, I] what is right.
        metric: name with a cut-off, at most k.

    Raises:
        InputError: rankings of different shapes.
    """
    if exact.items.shape != approximate.items.shape:
        raise InputError(
            f"index_loss: got rankings of shapes {exact.items.shape} and {approximate.items.shape}, "
            "expected one shape"
        )
    ours, theirs = (evaluate(one, positives, [metric]).values[metric] for one in (exact, approximate))
    there_UK = exact.items >= 0
    users = np.arange(len(exact.items))[:, None]
    keys_UK, found_UK = (users * positives.shape[1] + one.items for one in (exact, approximate))
    returned_UK = np.isin(keys_UK, found_UK[approximate.items >= 0]) & there_UK
    return IndexLoss(
        metric=metric,
        exact=bootstrap(ours),
        approximate=bootstrap(theirs),
        loss=paired(ours, theirs),
        recall=float(returned_UK.sum() / there_UK.sum()) if there_UK.any() else float("nan"),
    )


@dataclass(frozen=True)
class Gap:
    """How far two modalities of one space lie apart.

    Args:
        distance: between the centroids of the unit vectors, 0 to 2 (the modality gap).
        matched: mean cosine between the two modalities of one sample.
        unmatched: the same between those of two different samples.
        samples: how many have both.
    """

    distance: float
    matched: float
    unmatched: float
    samples: int


def modality_gap(
    vectors: Mapping[str, NDArray[np.floating]], presence: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[tuple[str, str], Gap]:
    """The gap between each two modalities, over the samples that have both.

    From Liang et al., "Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
    Representation Learning", NeurIPS 2022.

    Args:
        vectors: modality -> [B, D], of any length but zero where present.
        presence: modality -> [B]; by default all are present.

    Raises:
        InputError: shapes that differ, a present vector that is zero or not finite.

    Example:
        >>> gap = modality_gap({"a": np.eye(2), "b": -np.eye(2)})[("a", "b")]
        >>> round(gap.distance, 4), gap.matched, gap.unmatched
        (1.4142, -1.0, 0.0)
    """
    shapes = {name: one.shape for name, one in vectors.items()}
    if len(set(shapes.values())) != 1 or len(next(iter(shapes.values()))) != 2:
        raise InputError(f"modality_gap: got shapes {shapes}, expected one [B, D]")
    count = next(iter(shapes.values()))[0]
    there = {name: np.ones(count, bool) if presence is None else presence[name] for name in vectors}
    units = {name: _unit(name, np.asarray(one, np.float64), there[name]) for name, one in vectors.items()}
    return {(one, other): _gap(units, there, one, other) for one, other in combinations(vectors, 2)}


def _gap(
    units: Mapping[str, NDArray[np.float64]], there: Mapping[str, NDArray[np.bool_]], one: str, other: str
) -> Gap:
    both = there[one] & there[other]
    left_BD, right_BD = units[one][both], units[other][both]
    samples = len(left_BD)
    if not samples:
        return Gap(float("nan"), float("nan"), float("nan"), 0)
    matched = float((left_BD * right_BD).sum(1).mean())
    # All ordered pairs at once: the inner product of the sums.
    every = float(left_BD.sum(0) @ right_BD.sum(0))
    unmatched = (every - matched * samples) / (samples * (samples - 1)) if samples > 1 else float("nan")
    distance = float(np.linalg.norm(left_BD.mean(0) - right_BD.mean(0)))
    return Gap(distance, matched, unmatched, samples)


def _unit(name: str, vectors_BD: NDArray[np.float64], there_B: NDArray[np.bool_]) -> NDArray[np.float64]:
    norms_B = np.linalg.norm(vectors_BD, axis=1)
    bad_B = there_B & ~((norms_B > 0) & np.isfinite(norms_B))
    if bad_B.any():
        raise InputError(
            f"modality_gap: {name!r} of sample {int(bad_B.argmax())} is zero or not finite, expected a vector"
        )
    return vectors_BD / np.where(there_B, norms_B, 1.0)[:, None]
