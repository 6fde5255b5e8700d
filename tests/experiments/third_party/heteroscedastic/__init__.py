"""A regression head from another distribution: mean and deviation of each sample, with its own metrics."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mmattn.evaluation.tasks.examples import TaskExamples, make_example
from mmattn.evaluation.tasks.task_metrics import TaskMetrics, safe_divide
from mmattn.heads.base import SupervisedHead


class GaussianMetrics(TaskMetrics):
    """Mean absolute error, root mean squared error, and coverage of the central 90% interval."""

    primary_metric = "mae"
    lower_is_better = frozenset({"mae", "rmse"})

    def counts(self, predictions, targets):
        mean_N, deviation_N = np.array(
            [[prediction["mean"], prediction["deviation"]] for prediction in predictions]
        ).T
        error_N = np.abs(mean_N - np.array(targets))
        return np.stack([error_N, error_N**2, error_N <= 1.645 * deviation_N, np.ones(len(targets))], axis=1)

    def compute(self, sums):
        mae, mse, coverage = (safe_divide(sums[..., column], sums[..., 3]) for column in range(3))
        return {"mae": mae, "rmse": np.sqrt(mse), "coverage": coverage}

    def selection_score(self, metrics):
        return -metrics["mae"]


class GaussianHead(SupervisedHead):
    """p(y | x) = N(y; mean(x), deviation(x)^2), trained by likelihood.

    Args:
        dim: width of the fused vectors.
        center: mean of the training targets.
        scale: their standard deviation.
    """

    target_roles = ("value",)

    def __init__(self, dim, center=0.0, scale=1.0):
        super().__init__()
        self.center, self.scale = center, scale
        self.project = nn.Linear(dim, 2)

    @classmethod
    def options_for(cls, targets):
        known = [target for target in targets if target is not None]
        return {"center": float(np.mean(known)), "scale": float(np.std(known))}

    @classmethod
    def metrics(cls, targets, name=""):
        cls.check_metric(name)
        return GaussianMetrics()

    @classmethod
    def examples(cls, items):
        def shown(value):
            return f"{value['mean']:.0f} \N{PLUS-MINUS SIGN} {value['deviation']:.0f}"

        worst = sorted(items, key=lambda item: -abs(item.prediction["mean"] - item.target))[:5]
        cases = tuple(
            make_example(
                item,
                target=f"{item.target:.0f}",
                prediction=shown(item.prediction),
            )
            for item in worst
        )
        return TaskExamples("Largest errors", "Five test items of the first seed.", cases)

    def forward(self, fused):
        mean_B, spread_B = self.project(fused.pooled).float().unbind(1)
        return mean_B, F.softplus(spread_B) + 1e-3

    def loss(self, fused, targets):
        mean_B, deviation_B = self(fused)
        known = [row for row, target in enumerate(targets) if target is not None]
        if not known:
            return mean_B.sum() * 0.0
        wanted = mean_B.new_tensor([(targets[row] - self.center) / self.scale for row in known])
        return F.gaussian_nll_loss(mean_B[known], wanted, deviation_B[known] ** 2)

    @torch.no_grad()
    def predict(self, fused):
        return [
            {"mean": self.center + self.scale * mean, "deviation": self.scale * deviation}
            for mean, deviation in zip(*(part.tolist() for part in self(fused)), strict=True)
        ]
