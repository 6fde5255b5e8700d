"""Cross-modal retrieval metrics: query with one modality, search another."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from mmattn.array_types import Ints
from mmattn.errors import InputError

__all__ = ["cross_modal_precision", "first_relevant_ranks"]


def cross_modal_precision(
    vectors: Mapping[str, NDArray[np.floating]],
    samples: Mapping[str, NDArray[np.integer]],
    labels: NDArray[np.generic],
    k: int = 10,
) -> dict[tuple[str, str], float]:
    """Compute precision at k for every ordered pair of modalities.

    A retrieved vector is relevant if its sample has the label of the query's sample. The query's own sample
    is excluded from the search.

    Args:
        vectors: modality -> [n, D] unit vectors.
        samples: modality -> [n] sample index of each vector.
        labels: [B] label of each sample.
        k: number of retrieved vectors.

    Returns:
        (query modality, searched modality) -> mean precision over all queries.

    Example:
        >>> import numpy as np
        >>> precision = cross_modal_precision(
        ...     {"image": np.eye(2)[[0, 0, 1]], "text": np.eye(2)[[0, 0, 1]]},
        ...     {"image": np.arange(3), "text": np.arange(3)}, np.array(["0", "0", "1"]), k=1)
        >>> round(precision["image", "text"], 3)  # the third image has no other text with its label
        0.667
    """
    precision = {}
    for query, target in permutations(vectors, 2):
        scores_QT = np.asarray(vectors[query], np.float32) @ np.asarray(vectors[target], np.float32).T
        is_own_QT = samples[query][:, None] == samples[target][None]
        scores_QT[is_own_QT] = -np.inf
        top_Qk = np.argpartition(-scores_QT, min(k, scores_QT.shape[1]) - 1, axis=1)[:, :k]
        is_relevant_Qk = labels[samples[target]][top_Qk] == labels[samples[query]][:, None]
        precision[query, target] = float(is_relevant_Qk.mean())
    return precision


def first_relevant_ranks(
    queries: NDArray[np.floating],
    targets: NDArray[np.floating],
    query_ids: NDArray[np.integer],
    target_ids: NDArray[np.integer],
) -> Ints:
    """Return the rank of the first target that has the id of the query, counted from 1.

    Among equal scores the relevant target ranks last, so a model that scores all targets alike gets the
    worst rank.

    Args:
        queries: [Q, D] query vectors.
        targets: [T, D] target vectors, compared by inner product.
        query_ids: [Q] id of each query.
        target_ids: [T] id of each target.

    Returns:
        [Q] ranks; at most 1 + the number of targets with other ids.

    Raises:
        InputError: no target has the id of some query.

    Example:
        >>> import numpy as np
        >>> targets = np.array([[1, 0], [0, 1], [0, 2]])
        >>> first_relevant_ranks(np.eye(2), targets, np.array([0, 1]), np.array([0, 1, 0]))
        array([1, 2])
    """
    is_relevant_QT = query_ids[:, None] == target_ids[None]
    if not is_relevant_QT.any(1).all():
        missing = int(query_ids[~is_relevant_QT.any(1)][0])
        raise InputError(f"ranks: query {missing} has no target, expected at least one with its id")
    scores_QT = np.asarray(queries, np.float32) @ np.asarray(targets, np.float32).T
    best_Q1 = np.where(is_relevant_QT, scores_QT, -np.inf).max(1, keepdims=True)
    ranks: Ints = 1 + ((scores_QT >= best_Q1) & ~is_relevant_QT).sum(1)
    return ranks
