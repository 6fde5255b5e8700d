"""Baselines of a trained alignment: linear maps between two sets of frozen features, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASELINES", "Baseline"]

Floats = NDArray[np.float64]
Fitted = tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]  # of queries, of targets
Baseline = Callable[..., Fitted]


def ridge(x: Floats, y: Floats, penalty: float) -> Fitted:
    """Predict the target's features from the query's; the penalty is a share of the mean eigenvalue."""
    x_mean, y_mean = x.mean(0), y.mean(0)
    kernel = (x - x_mean) @ (x - x_mean).T
    ridge_NN = kernel + penalty * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    weight = (x - x_mean).T @ np.linalg.solve(ridge_NN, y - y_mean)
    return (lambda query: _unit((query - x_mean) @ weight)), (lambda target: _unit(target - y_mean))


def procrustes(x: Floats, y: Floats, width: int) -> Fitted:
    """The rotation of the query's principal components that brings them closest to the target's."""
    (x_mean, x_axes), (y_mean, y_axes) = _components(x, width), _components(y, width)
    left, _, right = np.linalg.svd(((x - x_mean) @ x_axes).T @ ((y - y_mean) @ y_axes), full_matrices=False)
    turn = left @ right
    return (
        (lambda query: _unit((query - x_mean) @ x_axes @ turn)),
        (lambda target: _unit((target - y_mean) @ y_axes)),
    )


def cca(x: Floats, y: Floats, width: int, shrinkage: float) -> Fitted:
    """Canonical correlations of principal components, covariances shrunk; axes weigh as they correlate."""
    (x_mean, x_axes), (y_mean, y_axes) = _components(x, width), _components(y, width)
    a, b = (x - x_mean) @ x_axes, (y - y_mean) @ y_axes
    x_white, y_white = _whitener(a, shrinkage), _whitener(b, shrinkage)
    left, strength, right = np.linalg.svd(x_white.T @ a.T @ b @ y_white / len(a), full_matrices=False)
    x_map, y_map = x_axes @ x_white @ left * strength, y_axes @ y_white @ right.T * strength
    return (lambda query: _unit((query - x_mean) @ x_map)), (lambda target: _unit((target - y_mean) @ y_map))


def _components(x: Floats, width: int) -> tuple[Floats, Floats]:
    mean = x.mean(0)
    return mean, np.linalg.svd(x - mean, full_matrices=False)[2][:width].T


def _whitener(x: Floats, shrinkage: float) -> Floats:
    covariance = x.T @ x / len(x)
    covariance += shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, axes = np.linalg.eigh(covariance)
    return axes / np.sqrt(values)


def _unit(x: Floats) -> Floats:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# Name -> how to fit it, and the settings among which validation chooses.
BASELINES: Mapping[str, tuple[Baseline, Sequence[Mapping[str, Any]]]] = {
    "ridge": (ridge, [{"penalty": each} for each in (0.3, 1.0, 3.0, 10.0)]),
    "Procrustes": (procrustes, [{"width": each} for each in (32, 64, 128)]),
    "CCA": (cca, [{"width": width, "shrinkage": each} for width in (64, 192) for each in (0.3, 3.0)]),
}
