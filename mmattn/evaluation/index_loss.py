"""Index loss: how much of a task metric an approximate index costs, apart from the loss of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.ranking.metrics import Ranking, evaluate
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired_bootstrap

__all__ = ["IndexCost", "IndexLoss", "OperatingPoint", "index_loss"]


@dataclass(frozen=True)
class IndexLoss:
    """The loss of a task metric through an approximate index.

    Args:
        metric: name of the metric, for example "ndcg@10".
        exact: metric with exact search. Model loss = 1 - `exact.mean`.
        approximate: metric through the index.
        loss: exact - approximate, paired by user: the index loss.
        recall: fraction of the top k of exact search that the index returns in its own top k, 0 to 1.
    """

    metric: str
    exact: Interval
    approximate: Interval
    loss: Interval
    recall: float

    @property
    def model_loss(self) -> float:
        """1 - the metric with exact search."""
        return 1 - self.exact.mean


@dataclass(frozen=True)
class OperatingPoint:
    """One search effort of an index, with its accuracy and speed.

    Args:
        nprobe: number of probed lists; 0 for exact search.
        recall: fraction of the top k of exact search that is found, 0 to 1.
        metric: the task metric.
        loss: exact search minus this point, paired by user.
        queries_per_second: throughput in one batch on this machine.
    """

    nprobe: int
    recall: float
    metric: Interval
    loss: Interval
    queries_per_second: float


@dataclass(frozen=True)
class IndexCost:
    """Where a task metric is lost on the way from model scores to an index.

    Args:
        metric: name of the metric, for example "ndcg@20".
        n_items: number of searched candidates.
        n_queries: number of users with at least one relevant item.
        dim: width of the vectors.
        index_type: faiss factory string of the index, for example "IVF26,Flat".
        model_metric: metric of the model's own scores. Model loss = 1 - `model_metric.mean`.
        vector_loss: model scores minus exact search over the vectors, paired by user.
        exact_search: exact search over the vectors.
        operating_points: the index at increasing `nprobe`.
    """

    metric: str
    n_items: int
    n_queries: int
    dim: int
    index_type: str
    model_metric: Interval
    vector_loss: Interval
    exact_search: OperatingPoint
    operating_points: tuple[OperatingPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as nested JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> IndexCost:
        """Restore what `to_dict` returned, also after a round trip through JSON.

        Args:
            content: the fields as nested JSON values.
        """
        return cls(
            **{
                **content,
                "model_metric": _interval_from_dict(content["model_metric"]),
                "vector_loss": _interval_from_dict(content["vector_loss"]),
                "exact_search": _operating_point_from_dict(content["exact_search"]),
                "operating_points": tuple(map(_operating_point_from_dict, content["operating_points"])),
            }
        )


def index_loss(
    exact: Ranking, approximate: Ranking, positives: sparse.csr_array, metric: str = "ndcg@10"
) -> IndexLoss:
    """Compare the rankings of exact search and of an index for the same queries.

    Args:
        exact: [U, k] ranking of exact search.
        approximate: [U, k] ranking of the index.
        positives: [U, I] relevant items.
        metric: name with a cutoff of at most k.

    Raises:
        InputError: the rankings differ in shape.

    Example:
        >>> exact = Ranking(np.array([[0, 1]]), np.array([[0.9, 0.5]], np.float32), "stable")
        >>> found = Ranking(np.array([[1, 2]]), np.array([[0.5, 0.1]], np.float32), "stable")
        >>> loss = index_loss(exact, found, sparse.csr_array(np.array([[0, 1, 0]])), "recall@1")
        >>> loss.exact.mean, loss.approximate.mean, loss.recall
        (0.0, 1.0, 0.5)
    """
    if exact.items.shape != approximate.items.shape:
        raise InputError(
            f"index_loss: got rankings of shapes {exact.items.shape} and {approximate.items.shape}, "
            "expected one shape"
        )
    exact_U, approximate_U = (
        evaluate(ranking, positives, [metric]).values[metric] for ranking in (exact, approximate)
    )
    valid_UK = exact.items >= 0
    users_U1 = np.arange(len(exact.items))[:, None]
    exact_keys_UK, found_keys_UK = (
        users_U1 * positives.shape[1] + ranking.items for ranking in (exact, approximate)
    )
    returned_UK = np.isin(exact_keys_UK, found_keys_UK[approximate.items >= 0]) & valid_UK
    return IndexLoss(
        metric=metric,
        exact=bootstrap(exact_U),
        approximate=bootstrap(approximate_U),
        loss=paired_bootstrap(exact_U, approximate_U),
        recall=float(returned_UK.sum() / valid_UK.sum()) if valid_UK.any() else float("nan"),
    )


def _interval_from_dict(content: Mapping[str, Any]) -> Interval:
    return Interval(**{**content, "seed_means": tuple(content["seed_means"])})


def _operating_point_from_dict(content: Mapping[str, Any]) -> OperatingPoint:
    return OperatingPoint(
        **{
            **content,
            "metric": _interval_from_dict(content["metric"]),
            "loss": _interval_from_dict(content["loss"]),
        }
    )
