"""Norms against numbers worked out by hand and against torch."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmattn import attention as A
from mmattn.attention.language.norms import Norm
from mmattn.attention.language.pairs import Pairs, TokenFields
from mmattn.errors import InputError

NORMS = [A.softmax(), A.softmax("sink"), A.sigmoid, A.sparsemax, A.entmax15, A.topk(2)]


def weigh(norm: Norm, score: list[list[float]] | Tensor, allowed: list[list[bool]] | None = None) -> Tensor:
    """Weights [Q, K] of one head."""
    score = torch.as_tensor(score, dtype=torch.float64)
    seen = torch.ones_like(score, dtype=torch.bool) if allowed is None else torch.tensor(allowed)
    nowhere = TokenFields(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64), ())
    parameters = {"sink": torch.tensor([math.log(3.0)], dtype=torch.float64)}
    pairs = Pairs(nowhere, nowhere, torch.zeros(1, 1, 1, dtype=torch.int64), parameters)
    return norm.normalize(score[None], seen, pairs)[0]


def close(got: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_softmax() -> None:
    close(weigh(A.softmax(), [[0.0, math.log(3.0)]]), [[0.25, 0.75]])


def test_a_sink_takes_its_share() -> None:
    # exp: 1 and 2 for the keys, 3 for the sink.
    close(weigh(A.softmax("sink"), [[0.0, math.log(2.0)]]), [[1 / 6, 2 / 6]])


def test_sigmoid_has_no_competition() -> None:
    close(weigh(A.sigmoid, [[0.0, math.log(3.0)]]), [[0.5, 0.75]])


def test_sparsemax() -> None:
    # (0.8, 0.4, -1): the first two share, threshold (1.2 - 1) / 2 = 0.1. (2, 0): winner takes all.
    close(weigh(A.sparsemax, [[0.8, 0.4, -1.0], [2.0, 0.0, 0.0]]), [[0.7, 0.3, 0.0], [1.0, 0.0, 0.0]])


def test_entmax15() -> None:
    # Two equal scores share. With z = score / 2, weights (z - t)^2: for (1, 0), t solves
    # (0.5 - t)^2 + t^2 = 1, so t = (1 - sqrt(7)) / 4. A lead of 2 takes everything.
    t = (1 - math.sqrt(7.0)) / 4
    close(
        weigh(A.entmax15, [[5.0, 5.0], [1.0, 0.0], [2.0, 0.0]]),
        [[0.5, 0.5], [(0.5 - t) ** 2, t**2], [1.0, 0.0]],
    )


def test_topk_keeps_the_best_and_ties_with_the_last() -> None:
    close(weigh(A.topk(1), [[1.0, 3.0, 2.0]]), [[0.0, 1.0, 0.0]])
    close(weigh(A.topk(2), [[1.0, 1.0, 1.0]]), [[1 / 3, 1 / 3, 1 / 3]])
    close(weigh(A.topk(5), [[0.0, 0.0]]), [[0.5, 0.5]])


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_what_is_not_allowed_gets_exactly_nothing(norm: Norm) -> None:
    score = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hidden = torch.tensor([[True, False, True, False, True]] * 2 + [[False] * 5])
    weight = weigh(norm, score, hidden.tolist())
    assert (weight[~hidden] == 0).all()
    assert (weight[2] == 0).all()
    # The same weights as over the allowed keys alone.
    torch.testing.assert_close(weight[:2, ::2], weigh(norm, score[:2, ::2]))


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_gradients_by_finite_differences(norm: Norm) -> None:
    score = torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    hidden = [[True, False, True, True, True], [True] * 5, [False] * 5]
    assert torch.autograd.gradcheck(lambda s: weigh(norm, s, hidden), score.requires_grad_())


@pytest.mark.parametrize("norm", NORMS, ids=str)
@pytest.mark.parametrize("large", [1e4, -1e4])
def test_large_scores_stay_finite(norm: Norm, large: float) -> None:
    score = (torch.tensor([[large, large - 1, 0.0]], dtype=torch.float64)).requires_grad_()
    weight = weigh(norm, score)
    weight.sum().backward()
    assert weight.isfinite().all()
    assert score.grad is not None
    assert score.grad.isfinite().all()


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"topk\(k\): got 0, expected a whole number from 1"):
        A.topk(0)
    with pytest.raises(InputError, match=r"softmax\(sink\): got 3, expected a printable name"):
        A.softmax(sink=3)  # type: ignore[arg-type]
