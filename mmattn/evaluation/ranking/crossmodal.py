"""Retrieval across modalities: say it and find the picture, show it and find the sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError
from mmattn.model.model import Model

__all__ = ["cross_modal_precision", "first_relevant_ranks", "modality_vectors", "subset_vectors"]


def cross_modal_precision(
    vectors: Mapping[str, NDArray[np.floating]],
    samples: Mapping[str, NDArray[np.integer]],
    labels: NDArray[np.generic],
    k: int = 10,
) -> dict[tuple[str, str], float]:
    """Precision at k in each direction: the share of the k nearest that show what the query shows.

    The query's own sample is not among what is searched, so that nothing is found by memory.

    Args:
        vectors: modality -> [n, D] unit vectors.
        samples: modality -> [n] the sample of each vector.
        labels: what each sample shows.
        k: how many are looked at.

    Returns:
        (query modality, searched modality) -> mean precision over all queries.

    Example:
        >>> import numpy as np
        >>> found = cross_modal_precision(
        ...     {"image": np.eye(2)[[0, 0, 1]], "text": np.eye(2)[[0, 0, 1]]},
        ...     {"image": np.arange(3), "text": np.arange(3)}, np.array(["0", "0", "1"]), k=1)
        >>> round(found["image", "text"], 3)  # the third picture has no text of its kind but its own
        0.667
    """
    found = {}
    for query, target in permutations(vectors, 2):
        scores_QT = np.asarray(vectors[query], np.float32) @ np.asarray(vectors[target], np.float32).T
        own_QT = samples[query][:, None] == samples[target][None]
        scores_QT[own_QT] = -np.inf
        top_Qk = np.argpartition(-scores_QT, min(k, scores_QT.shape[1]) - 1, axis=1)[:, :k]
        right_Qk = labels[samples[target]][top_Qk] == labels[samples[query]][:, None]
        found[query, target] = float(right_Qk.mean())
    return found


def first_relevant_ranks(
    queries: NDArray[np.floating],
    targets: NDArray[np.floating],
    query_ids: NDArray[np.integer],
    target_ids: NDArray[np.integer],
) -> NDArray[np.int64]:
    """The place, from 1, at which each query first meets a target of its own owner.

    Among equal scores the own target comes last: a model that says the same of everything finds nothing.

    Args:
        queries: [Q, D].
        targets: [T, D], compared by inner product.
        query_ids: [Q] the thing that each query is of.
        target_ids: [T] the thing that each target is of.

    Returns:
        [Q]; 1 more than there are targets of others, at worst.

    Raises:
        InputError: a query whose owner has no target.

    Example:
        >>> import numpy as np
        >>> first_relevant_ranks(np.eye(2), np.array([[1, 0], [0, 1], [0, 2]]), np.array([0, 1]), np.array([0, 1, 0]))
        array([1, 2])
    """
    own_QT = query_ids[:, None] == target_ids[None]
    if not own_QT.any(1).all():
        lost = int(query_ids[~own_QT.any(1)][0])
        raise InputError(f"ranks: {lost} has a query and no target, expected one of its own to find")
    scores_QT = np.asarray(queries, np.float32) @ np.asarray(targets, np.float32).T
    best_Q1 = np.where(own_QT, scores_QT, -np.inf).max(1, keepdims=True)
    return 1 + ((scores_QT >= best_Q1) & ~own_QT).sum(1)


@torch.no_grad()
def subset_vectors(
    model: Model,
    inputs: ModelInputs,
    samples: Tensor,
    modalities: Sequence[str],
    head: str = "alignment",
    batch_size: int = 256,
) -> NDArray[np.floating]:
    """[len(samples), D] the vectors of samples of which these modalities alone are there."""
    was_training = model.training
    model.eval()
    vectors = []
    for chosen in samples.split(batch_size):
        parts = model.tokens(inputs, chosen)
        vectors.append(model.head(head)(model.fuse({name: parts[name] for name in modalities})).cpu())
    model.train(was_training)
    return torch.cat(vectors).numpy()


@torch.no_grad()
def modality_vectors(
    model: Model, inputs: ModelInputs, samples: Tensor, head: str = "alignment", batch_size: int = 256
) -> tuple[dict[str, NDArray[np.floating]], dict[str, NDArray[np.integer]]]:
    """The aligned vector of each modality by itself, of the samples that have it.

    Returns:
        modality -> [n, D] vectors, and modality -> [n] the sample of each.
    """
    was_training = model.training
    model.eval()
    vectors: dict[str, list[Tensor]] = {name: [] for name in inputs.modalities}
    owners: dict[str, list[Tensor]] = {name: [] for name in inputs.modalities}
    for chosen in samples.split(batch_size):
        for name, tokens in model.tokens(inputs, chosen).items():
            there = (tokens.lengths > 0).cpu()
            vectors[name].append(model.head(head)(model.fuse({name: tokens})).cpu()[there])
            owners[name].append(chosen[there])
    model.train(was_training)
    return (
        {name: torch.cat(found).numpy() for name, found in vectors.items()},
        {name: torch.cat(found).numpy() for name, found in owners.items()},
    )
