"""What an index costs: the task metric with exact scores, in short vectors, and through an index.

A recommender that is linear in the history scores by histories @ weights. Vectors of users and items whose
inner products are the scores, as nearly as their width allows, are what an index can search (see
`mmattn.serving.factors`: they are made to be right about the histories that people have). So the loss falls
into three: the model's (what exact scores lack of a perfect 1), the vectors', and the index's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mmattn.array_types import Floats32
from mmattn.evaluation.index_loss import IndexCost, OperatingPoint, index_loss
from mmattn.evaluation.ranking.metrics import Ranking, rank
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.recommendation.protocol import TIE_POLICY, rank_part
from mmattn.retrieval.search.ann import AnnSearch
from mmattn.retrieval.search.exact import ExactSearch
from mmattn.retrieval.search.plan import AnnSettings
from mmattn.serving.factors import factorise
from mmattn.training.tasks.recommender import TrainedRecommender

__all__ = ["measure_index_cost"]

_NUM_TIMED_RUNS = 3  # searches; the quickest counts


def measure_index_cost(
    recommender: TrainedRecommender, split: Split, metric: str, dim: int = 128
) -> IndexCost | None:
    """Measure the test part with exact scores, in vectors, and through an inverted file at rising effort.

    Args:
        recommender: the finished one, with the histories that it may know at the test.
        split: its test part is predicted.
        metric: name with a cut-off.
        dim: of the vectors, at most the number of candidates.

    Returns:
        The costs; None for a recommender whose scores are no inner products.
    """
    k = int(metric.partition("@")[2])
    right, known, candidates = split.matrix("test"), split.histories("test"), split.candidates("test")
    users = np.flatnonzero(np.diff(right.indptr))
    positives, seen = right[users], sparse.csr_array(known[users][:, candidates])
    exact_metrics = rank_part(recommender.score, split, "test", k)
    scores = Ranking(exact_metrics.items[users], exact_metrics.scores[users], TIE_POLICY)
    both = _search_vectors(recommender, users, candidates, dim)
    if both is None:
        return None
    queries, vectors = both
    # What a user knows already is found too and thrown away: the search must go deeper by that many.
    depth = min(len(candidates), k + int(np.diff(seen.indptr).max(initial=0)))

    def search(find: Callable[[int], tuple[Floats32, NDArray[np.int64]]]) -> tuple[Ranking, float]:
        seconds = []
        for _ in range(_NUM_TIMED_RUNS):
            start = time.perf_counter()
            found_scores, indices = find(depth)
            seconds.append(time.perf_counter() - start)
        return _drop_seen(found_scores, indices, seen, candidates, k), len(users) / min(seconds)

    exact_search = ExactSearch(vectors, "ip")
    exact, speed = search(lambda depth: exact_search(queries, depth))
    by_vectors = index_loss(scores, exact, positives, metric)
    nothing = index_loss(exact, exact, positives, metric)
    lists = max(1, round(len(candidates) ** 0.5))
    index = AnnSearch.build(vectors, "ip", AnnSettings(f"IVF{lists},Flat", 1, 1))
    points = []
    for effort in [2**power for power in range(lists.bit_length()) if 2**power < lists]:
        index.settings = AnnSettings(index.settings.factory, effort, 1)
        hits, quick = search(lambda depth: index.search(vectors, queries, depth))
        loss = index_loss(exact, hits, positives, metric)
        points.append(OperatingPoint(effort, loss.recall, loss.approximate, loss.loss, quick))
    return IndexCost(
        metric=metric,
        n_items=len(candidates),
        n_queries=len(users),
        dim=vectors.shape[1],
        index_type=index.settings.factory,
        model_metric=by_vectors.exact,
        vector_loss=by_vectors.loss,
        exact_search=OperatingPoint(0, 1.0, nothing.exact, nothing.loss, speed),
        operating_points=tuple(points),
    )


def _search_vectors(
    recommender: TrainedRecommender, users: NDArray[np.int64], items: NDArray[np.int64], dim: int
) -> tuple[Floats32, Floats32] | None:
    """[U, D] and [I, D] with scores as inner products, up to a factor a user; None if there are none."""
    linear = recommender.history_weights(items)
    if linear is None:
        return recommender.inner_product_vectors(users, items)
    position = np.full(max(int(items.max()), int(linear.known_items.max())) + 1, -1)
    position[linear.known_items] = np.arange(len(linear.known_items))
    factors = factorise(linear.weights, linear.histories, dim, position[items])
    queries_UD = linear.histories[users].astype(np.float32) @ factors.item_to_user
    return np.ascontiguousarray(queries_UD), factors.vectors


def _drop_seen(
    scores_UP: Floats32,
    positions_UP: NDArray[np.int64],
    seen: sparse.csr_array,
    candidates: NDArray[np.int64],
    k: int,
) -> Ranking:
    """The first k that are found and not known already."""
    rows_U1 = np.arange(len(positions_UP))[:, None]
    scores = np.where(positions_UP < 0, -np.inf, scores_UP).astype(np.float32)
    known_UI = seen.toarray() > 0
    scores[known_UI[rows_U1, positions_UP.clip(0)]] = -np.inf
    best = rank(scores, k)
    items = np.where(best.items < 0, -1, candidates[positions_UP[rows_U1, best.items.clip(0)]])
    return Ranking(items, best.scores, "stable")
