"""Index loss: how much of a task metric an approximate index costs, apart from the loss of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from mmattn.errors import InputError
from mmattn.evaluation.ranking.metrics import Ranking, evaluate
from mmattn.evaluation.statistics.bootstrap import Interval, bootstrap, paired_bootstrap

__all__ = ["IndexLoss", "index_loss"]


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
        loss=paired_bootstrap(ours, theirs),
        recall=float(returned_UK.sum() / there_UK.sum()) if there_UK.any() else float("nan"),
    )
