"""Weights of tasks, by hand: fixed, by uncertainty, and from the angles between gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmattn import InputError
from mmattn.training.tasks.task_weighting import (
    FixedWeights,
    GradientWeights,
    TaskWeighting,
    UncertaintyWeights,
    build_weighting,
)


def test_uncertainty_follows_its_formula() -> None:
    weighting = UncertaintyWeights(["click", "rating"], regression_tasks=["rating"])
    with torch.no_grad():
        weighting.log_variance.copy_(torch.tensor([0.4, -0.6]))
    total = weighting({"rating": torch.tensor(3.0), "click": torch.tensor(2.0)}, [])  # in any order
    expected = math.exp(-0.4) * 2 + 0.4 / 2 + math.exp(0.6) * 3 / 2 - 0.6 / 2
    assert total.item() == pytest.approx(expected, rel=1e-6)
    total.backward()
    wanted = [0.5 - math.exp(-0.4) * 2, 0.5 - math.exp(0.6) * 3 / 2]
    assert weighting.log_variance.grad.tolist() == pytest.approx(wanted, rel=1e-6)


def test_uncertainty_settles_where_the_loss_says() -> None:
    """The minimum over s of exp(-s) L + s / 2 is at exp(s) = 2 L; of a squared error, at the error itself."""
    weighting = UncertaintyWeights(["click", "rating"], regression_tasks=["rating"])
    losses = {"click": torch.tensor(0.7), "rating": torch.tensor(2.3)}
    optimizer = torch.optim.Adam(weighting.parameters(), 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        weighting(losses, []).backward()
        optimizer.step()
    assert weighting.log_variance.exp().tolist() == pytest.approx([1.4, 2.3], rel=1e-3)


class Two(nn.Module):
    """Losses with the gradients a and b on what they share, and one that has a parameter of its own."""

    def __init__(self, a: list[float], b: list[float]):
        super().__init__()
        self.shared = nn.Parameter(torch.zeros(len(a)))
        self.own = nn.Parameter(torch.zeros(1))
        self.a, self.b = torch.tensor(a), torch.tensor(b)

    def losses(self) -> dict[str, torch.Tensor]:
        return {"a": self.a @ self.shared + 1, "b": self.b @ self.shared + 100 * self.own.sum() + 1}

    def gradients(self, weighting: TaskWeighting) -> tuple[list[float], float]:
        weighting(self.losses(), list(self.parameters())).backward()
        assert self.shared.grad is not None
        assert self.own.grad is not None
        return self.shared.grad.tolist(), self.own.grad.item()


@pytest.mark.parametrize(
    ("method", "expected", "own"),
    [
        # a = (2, 0), b = (-1, 3), a.b = -2. PCGrad: a + b/5 = (1.8, .6) and b + a/2 = (0, 3); together 6/5 b.
        ("PCGrad", [1.8, 3.6], 120.0),
        # The shortest vector between them: w = (b.b - a.b) / |a - b|^2 = 12/18 of a.
        ("MGDA", [1.0, 1.0], 100 / 3),
        # UPGrad is the mean of both projections.
        ("UPGrad", [0.9, 1.8], 60.0),
    ],
)
def test_gradient_weights_by_hand(method: str, expected: list[float], own: float) -> None:
    pytest.importorskip("torchjd", reason="an extra: pip install 'mmattn[multitask]'")
    actual = Two([2.0, 0.0], [-1.0, 3.0]).gradients(GradientWeights(method))
    assert actual[0] == pytest.approx(expected, abs=2e-2)
    assert actual[1] == pytest.approx(own, rel=1e-2)


def test_gradients_that_agree_are_left_alone() -> None:
    pytest.importorskip("torchjd")
    shared, group = Two([2.0, 1.0], [1.0, 3.0]).gradients(GradientWeights("PCGrad"))
    assert (shared, group) == ([3.0, 4.0], 100.0)


def test_without_gradients_it_is_the_sum() -> None:
    pytest.importorskip("torchjd")
    two = Two([2.0, 0.0], [-1.0, 3.0])
    with torch.no_grad():
        assert GradientWeights("UPGrad")(two.losses(), list(two.parameters())).item() == 2.0


def test_weights_by_name() -> None:
    pytest.importorskip("torchjd")
    fixed = build_weighting({"name": "fixed", "options": {"weights": {"b": 0.25}}}, ["a", "b"])
    assert isinstance(fixed, FixedWeights)
    assert Two([2.0], [4.0]).gradients(fixed)[0] == [3.0]
    by_noise = build_weighting({"name": "uncertainty", "options": {"regression_tasks": ["b"]}}, ["a", "b"])
    assert isinstance(by_noise, UncertaintyWeights)
    assert isinstance(build_weighting("UPGrad", ["a", "b"]), GradientWeights)


def test_what_the_weights_refuse() -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(InputError, match=r"no kind 'uncertanty'. Did you mean 'uncertainty'\?"):
        build_weighting("uncertanty", ["a"])
    with pytest.raises(InputError, match="task weights, MGDA: .*'epsilom'"):
        build_weighting({"name": "MGDA", "options": {"epsilom": 1}}, ["a"])
    with pytest.raises(InputError, match="task weights, fixed: .*'weight'"):
        build_weighting({"name": "fixed", "options": {"weight": {}}}, ["a"])
    with pytest.raises(InputError, match=r"no method 'PCGrd' in torchjd. Did you mean 'PCGrad'\?"):
        GradientWeights("PCGrd")
    with pytest.raises(InputError, match=r"squared: no task 'ratng'. Did you mean 'rating'\?"):
        UncertaintyWeights(["click", "rating"], regression_tasks=["ratng"])
    with pytest.raises(InputError, match="got -1 for 'a'"):
        FixedWeights({"a": -1})
    with pytest.raises(InputError, match="no task 'c'"):
        FixedWeights({"c": 1.0})({"a": torch.tensor(1.0)}, [])
