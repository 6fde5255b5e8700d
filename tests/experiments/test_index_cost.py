"""What vectors and an index lose, on a recommender whose scores are known."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mmattn.evaluation.index_loss import IndexCost
from mmattn.evaluation.ranking.metrics import evaluate
from mmattn.evaluation.splits import strategies
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.config import ProtocolConfig
from mmattn.experiments.recommendation.index_cost import measure_index_cost
from mmattn.experiments.recommendation.protocol import rank_part
from mmattn.experiments.recommendation.system_evaluation import (
    SystemEvaluator,
    SystemResult,
    pick_example_users,
    split_subgroups,
)
from mmattn.training.tasks.recommender import HistoryWeights, TrainedRecommender


class Linear(TrainedRecommender):
    """score = histories @ weights, as the real one's."""

    def __init__(self, split: Split, dim: int = 5):
        self.histories = split.known("test")
        self.known_items = np.arange(split.item_count)
        rng = np.random.default_rng(0)
        items = rng.normal(size=(split.item_count, dim)).astype(np.float32)
        self.table = torch.from_numpy(items @ items.T)

    def weights(self, items: np.ndarray) -> torch.Tensor:
        return self.table[:, torch.from_numpy(items)]

    def history_weights(self, items: np.ndarray) -> HistoryWeights:
        return HistoryWeights(self.weights(items), self.histories, self.known_items)

    def score(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return self.histories[np.asarray(users)] @ self.weights(np.asarray(items)).numpy()


@pytest.fixture(params=["cold", "random"])
def split(request: pytest.FixtureRequest) -> Split:
    users, items = np.nonzero(np.random.default_rng(1).random((43, 101)) < 0.3)
    if request.param == "cold":
        return strategies.cold_item_split(users, items, item_count=101, user_count=43, seed=0, fraction=0.5)
    return strategies.random_split(users, items, seed=0, user_count=43, item_count=101)


def test_the_loss_falls_into_its_parts(split: Split) -> None:
    model = Linear(split)
    actual = measure_index_cost(model, split, "ndcg@7", dim=16)
    ranking = rank_part(model.score, split, "test", 7)
    truth = evaluate(ranking, split.matrix("test"), ["ndcg@7"]).mean("ndcg@7")
    assert actual.model_metric.mean == pytest.approx(truth)
    # Five dimensions are all there is: vectors lose nothing, and what is known is masked here too.
    assert actual.vector_loss.mean == pytest.approx(0.0, abs=1e-6)
    assert actual.exact_search.metric.mean == pytest.approx(truth, abs=1e-6)
    recalls = [point.recall for point in actual.operating_points]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.99
    for point in actual.operating_points:
        assert actual.exact_search.metric.mean - point.metric.mean == pytest.approx(point.loss.mean)
        assert point.queries_per_second > 0
    assert IndexCost.from_dict(json.loads(json.dumps(actual.to_dict()))) == actual


def test_vectors_that_are_too_short_lose_by_themselves(split: Split) -> None:
    actual = measure_index_cost(Linear(split, dim=41), split, "ndcg@7", dim=2)
    assert (actual.dim, actual.n_items) == (2, len(split.candidates("test")))
    assert actual.vector_loss.mean == pytest.approx(
        actual.model_metric.mean - actual.exact_search.metric.mean
    )
    assert actual.vector_loss.high - actual.vector_loss.low > 0.001  # user by user it does change


def test_scores_that_are_no_inner_products_have_no_index(split: Split) -> None:
    class Other(TrainedRecommender):
        def score(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
            return np.zeros((len(users), len(items)), np.float32)

    assert measure_index_cost(Other(), split, "ndcg@7") is None


def test_examined_in_one_ranking(split: Split) -> None:
    model, protocol = Linear(split), ProtocolConfig(metrics=("ndcg@7", "recall@7"))
    examiner = SystemEvaluator(split, protocol)
    actual = examiner.evaluate_scores(model.score)
    for name, values in examiner.per_user_metrics(model.score).items():
        np.testing.assert_array_equal(actual.values[name], values)
    assert actual.recall[5] < actual.recall[10]
    assert 7 not in actual.recall
    # Item subgroups part the positives, so their hits add up; history subgroups part the users.
    counts = np.diff(split.matrix("test").indptr)
    whole = np.nansum(actual.values["recall@7"] * counts)
    items, users = split_subgroups(split)
    hits = sum(
        np.nansum(actual.subgroups[name] * split.matrix("test")[:, np.flatnonzero(mask)].sum(1))
        for name, mask in items.items() if name in actual.subgroups
    )  # fmt: skip
    assert hits == pytest.approx(whole)
    assert sum(np.nansum(actual.subgroups[name] * counts) for name in users if name in actual.subgroups) == (
        pytest.approx(whole)
    )


def test_examples_are_the_best_the_worst_and_others() -> None:
    users, items = np.nonzero(np.random.default_rng(1).random((43, 101)) < 0.3)
    split = strategies.random_split(users, items, seed=0, user_count=43, item_count=101)
    values = np.random.default_rng(2).random(43)
    values[[3, 5, 7]], values[[11, 13, 17]] = 1.5, -1.0
    actual = pick_example_users(SystemResult({"m": values}, {}, {}, None), split, seed=0)  # type: ignore[arg-type]
    assert sorted(actual["best"]) == [3, 5, 7]
    assert actual["worst"].tolist() == [11, 13, 17]
    assert len(actual["drawn"]) == 4
    assert not set(actual["drawn"]) & {3, 5, 7, 11, 13, 17}
