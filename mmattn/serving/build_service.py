"""Build the recommender bundle of a finished `mmattn fit` run: first seed's model, all interactions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy import sparse

from mmattn.data.tables import column_types
from mmattn.heads.recommendation.history_completion import cooccurrence_counts
from mmattn.heads.recommendation.recommendation import RecommendationHead
from mmattn.retrieval.index import Index
from mmattn.serving.add_items import new_item_weights
from mmattn.serving.factors import WIDTHS, Factors, factorise, topk_agreement
from mmattn.serving.item_metadata import item_columns
from mmattn.serving.service import INDEX_FOLDER, RecommenderService
from mmattn.serving.unseen_search import tune_for_users
from mmattn.training.tasks.recommendation import Recommender, item_vectors

if TYPE_CHECKING:
    from mmattn.data.dataset import Dataset
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.serving.run_encoder import RunEncoder

__all__ = ["build_service"]

logger = logging.getLogger(__name__)

MAX_KNOWN_ITEMS = 20_000  # items whose weights are solved for jointly, in time cubic in their number
MIN_AGREEMENT = 0.95  # fraction of the model's top 20 that must be in the top 20 of the vectors
MAX_VECTOR_BYTES = 2**30  # size limit of the vectors of all items


def build_service(
    run: Path, dataset: Dataset, encoder: RunEncoder, inputs: ModelInputs, *, seed: int = 0
) -> RecommenderService | None:
    """Build the recommender bundle of a finished run; nothing is trained.

    It uses the first seed's model as evaluated; of a hybrid only the trained head, because the other parts
    need all users at query time. All interactions of the data are known here, those of the validation and
    test parts included: the known items are those with an interaction, at most the 20,000 most popular. All
    others get their vectors as new items do.

    The width of the vectors is the smallest of 64, 128, 256 and 512 at which 95% of the model's top 20 items
    (for users of the data, without their own items) are in the top 20 of the vectors; if none reaches this,
    the largest. Widths whose vectors would need more than 1 GiB are not considered.

    Args:
        run: folder of a finished run.
        dataset: data set that it was trained and evaluated on.
        encoder: the trained model, in memory, and the folder below `run` that it was saved in.
        inputs: encoder outputs of the items of `dataset`.
        seed: training seed, recorded in the manifest.

    Returns:
        The service, saved in the run's folder (an earlier bundle is replaced); None if the head is not linear
        in the history.
    """
    head = encoder.model.head(encoder.head)
    if not isinstance(head, RecommendationHead):
        logger.info("no index to recommend from: head %r is not linear in the history", encoder.head)
        return None
    everything = np.arange(len(dataset.items))
    learned = None if head.id_embedding is None else everything
    vectors = item_vectors(encoder.model, inputs, encoder.head, learned)

    histories, known = _known_histories(dataset)
    together = cooccurrence_counts(histories) if head.completion_dropout is not None else torch.zeros(0, 0)
    recommender = Recommender(head, vectors, known, together if len(together) else None)
    own_column = np.arange(len(known))
    weights_KK = recommender.weights(known).float().cpu()
    factors, agreed = _select_width(weights_KK, histories, own_column, len(everything))

    vectors_ID = vectors.float().cpu().numpy()
    others = np.setdiff1d(everything, known)
    maps = np.empty((len(everything), factors.width), np.float32)
    served = np.empty_like(maps)
    maps[known], served[known] = factors.item_to_user, factors.vectors
    if len(others):
        weights_KN = new_item_weights(head, vectors_ID[known], vectors_ID[others], together.numpy())
        maps[others], served[others] = (
            weights_KN.T @ factors.item_to_user,
            (factors.weights_to_vector @ weights_KN).T,
        )
    index = Index.build(
        served, _item_ids(dataset),
        metadata=item_columns(dataset.items, dataset.card.items, dataset.labels),
        provenance=encoder.provenance,
    )  # fmt: skip
    index = tune_for_users(
        index, np.ascontiguousarray(histories[_sample_users(histories)] @ factors.item_to_user)
    )
    facts = {
        "kind": "recommender", "catalogue": dataset.card.name, "columns": dataset.card.to_dict()["items"],
        "model": str(encoder.folder.relative_to(run)), "head": encoder.head, "seed": seed,
        "known": len(known), "dim": vectors_ID.shape[1], "completes": head.completion_dropout is not None,
        "agreement": round(agreed, 4),
    }  # fmt: skip
    service = RecommenderService(
        run / INDEX_FOLDER,
        index,
        maps,
        factors.weights_to_vector,
        known,
        vectors_ID[known],
        together.numpy(),
        facts,
    )
    service.save(replace=True)
    logger.info("index of %s items, width %d, that agrees with the model on %.1f%% of the first 20",
             f"{len(index):,}", factors.width, 100 * agreed)  # fmt: skip
    return service


def _known_histories(dataset: Dataset) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """[U, K] ones, and the known items [K], ascending."""
    pairs = dataset.interactions
    met = sparse.csr_array(
        (np.ones(len(pairs), np.float32), (pairs.users, pairs.items)),
        shape=(len(dataset.users), len(dataset.items)),
    )
    met.sum_duplicates()
    met.data[:] = 1
    counts_I = np.bincount(met.indices, minlength=len(dataset.items))
    order = np.argsort(-counts_I, kind="stable")[:MAX_KNOWN_ITEMS]
    known = np.sort(order[counts_I[order] > 0])
    return sparse.csr_array(met[:, known]), known


def _select_width(
    weights: torch.Tensor, histories: sparse.csr_array, known_positions: NDArray[np.int64], items: int
) -> tuple[Factors, float]:
    """The narrowest vectors that agree with the weights, and their agreement."""
    affordable = [width for width in WIDTHS if width * items * 4 <= MAX_VECTOR_BYTES] or [WIDTHS[0]]
    widest = factorise(weights, histories, affordable[-1], known_positions)
    for width in affordable:
        factors = widest.truncate(width)
        agreed = topk_agreement(factors, weights, histories, known_positions)
        if agreed >= MIN_AGREEMENT:
            break
    return factors, agreed


def _sample_users(histories: sparse.csr_array, max_users: int = 400) -> NDArray[np.int64]:
    """Random users with a history."""
    with_history = np.flatnonzero(np.diff(histories.indptr))
    return np.sort(
        np.random.default_rng(0).choice(with_history, min(max_users, len(with_history)), replace=False)
    )


def _item_ids(dataset: Dataset) -> list[str] | list[int]:
    """Whole numbers if the catalogue's id column holds whole numbers, otherwise text."""
    card = dataset.card
    kind = column_types(card.resolve_path(card.items.file))[card.items.id]
    names = list(dataset.item_ids)
    return [int(name) for name in names] if pa.types.is_integer(kind) else names
