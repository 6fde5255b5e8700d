"""Matching and the loss of sets: against brute force, and against numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmattn import InputError
from mmattn.heads.detection.loss import BoxPredictions, match_predictions, set_loss
from mmattn.heads.detection.matching import CostWeights, hungarian_matching
from mmattn.heads.detection.targets import BoxTargets

COSTS = st.tuples(st.integers(0, 6), st.integers(0, 6)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-50, 50).map(float))
)


@given(st.lists(COSTS, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_other_assignment_costs_less(costs: list[np.ndarray]) -> None:
    actual = hungarian_matching([torch.from_numpy(cost) for cost in costs])
    predictions = objects = 0
    for cost in costs:
        group = (actual.object_index >= objects) & (actual.object_index < objects + cost.shape[1])
        rows, columns = actual.prediction_index[group] - predictions, actual.object_index[group] - objects
        assert len(rows) == len(set(rows.tolist())) == len(set(columns.tolist())) == min(cost.shape)
        tall = cost if len(cost) >= cost.shape[1] else cost.T
        best = min(
            sum(tall[row, column] for column, row in enumerate(order))
            for order in permutations(range(len(tall)), tall.shape[1])
        )
        assert cost[rows, columns].sum() == best
        predictions, objects = predictions + cost.shape[0], objects + cost.shape[1]
    assert len(actual.object_index) == sum(min(cost.shape) for cost in costs)


def test_a_cost_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="sample 0 .* not finite"):
        hungarian_matching([torch.tensor([[float("nan")], [1.0]])])


def test_costs_below_zero_are_refused() -> None:
    with pytest.raises(InputError, match="expected numbers from 0"):
        CostWeights(l1=-1.0)


# Two squares of side 2 on a picture of 10 by 10: one from (1, 1), the other from (2, 1). They share an area
# of 2, cover 6 together, and so does the smallest box around both: IoU = GIoU = 1/3.
FIRST, SECOND = torch.tensor([[0.2, 0.2, 0.2, 0.2]]), torch.tensor([[0.3, 0.2, 0.2, 0.2]])
# From (6, 1): nothing is shared, the box around both is 7 by 2: GIoU = 0 - (14 - 8) / 14.
FAR = torch.tensor([[0.7, 0.2, 0.2, 0.2]])


@pytest.mark.parametrize(("boxes", "giou"), [(FIRST, 1.0), (SECOND, 1 / 3), (FAR, -6 / 14)])
def test_the_overlap_by_hand(boxes: torch.Tensor, giou: float) -> None:
    costs = CostWeights(classification=0.0, l1=0.0, giou=1.0)
    logits, label = torch.zeros(1, 1), torch.tensor([0])
    torch.testing.assert_close(costs.cost_matrix(logits, boxes, label, FIRST), torch.tensor([[1 - giou]]))
    truth = BoxTargets(label, FIRST, counts=(1,))
    pairs = hungarian_matching([torch.zeros(1, 1)])
    loss = set_loss(costs, BoxPredictions(logits, boxes, (1,)), truth, pairs)
    torch.testing.assert_close(loss, torch.tensor(1 - giou))


def test_the_focal_loss_by_hand() -> None:
    """Two predictions, one object of label 1: at logits 0 a right label costs .25 * .25 * log 2, a wrong one
    .75 * .25 * log 2."""
    truth = BoxTargets(torch.tensor([1]), FIRST, counts=(1,))
    pairs = hungarian_matching([torch.tensor([[1.0], [0.0]])])
    assert pairs.prediction_index.tolist() == [1]
    actual = BoxPredictions(torch.zeros(2, 3), FIRST.expand(2, 4), (2,))
    loss = set_loss(CostWeights(1.0, 0.0, 0.0), actual, truth, pairs)
    torch.testing.assert_close(loss, torch.tensor((0.25 + 5 * 0.75) * 0.25 * math.log(2)))


def test_the_distance_by_hand() -> None:
    truth = BoxTargets(torch.tensor([0]), FIRST, counts=(1,))
    actual = BoxPredictions(torch.zeros(1, 1), FAR, (1,))
    loss = set_loss(CostWeights(0.0, 5.0, 0.0), actual, truth, hungarian_matching([torch.zeros(1, 1)]))
    torch.testing.assert_close(loss, torch.tensor(5 * 0.5))


def test_the_order_of_objects_and_of_predictions_does_not_matter() -> None:
    torch.manual_seed(0)
    logits, boxes = torch.randn(7, 3), torch.rand(7, 4) * 0.5 + 0.1
    labels, truth = torch.tensor([0, 2, 2, 1, 0]), torch.rand(5, 4) * 0.5 + 0.1
    costs = CostWeights()

    def loss(predictions: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
        targets = BoxTargets(labels[objects], truth[objects], counts=(5,))
        actual = BoxPredictions(logits[predictions], boxes[predictions], (7,))
        return set_loss(costs, actual, targets, match_predictions(costs, actual, targets))

    expected = loss(torch.arange(7), torch.arange(5))
    for _ in range(5):
        torch.testing.assert_close(loss(torch.randperm(7), torch.randperm(5)), expected)
