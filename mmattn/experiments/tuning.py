"""Hyperparameters chosen on validation alone, with the same budget for every system (Optuna behind it).

A system is tuned against a `ValidationData`, which holds copies of the training and validation interactions
and nothing else: no argument that a system is given leads to the test part.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmattn.array_types import Ints
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.ranking.metrics import TiePolicy, evaluate, rank_users
from mmattn.evaluation.splits.split import Split
from mmattn.files import write_json

__all__ = [
    "Choice",
    "FittedSystem",
    "FloatRange",
    "IntRange",
    "Space",
    "TunableSystem",
    "TunedSystem",
    "TuningResult",
    "ValidationData",
    "tune",
]

ScoreFn = Callable[[Ints, Ints], ArrayLike]
_LIBRARIES = ("mmattn", "numpy", "scipy", "torch", "optuna")


@dataclass(frozen=True)
class FloatRange:
    """A number from `low` to `high`, drawn by its logarithm where `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, drawn by its logarithm where `log`."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[str | int | float | bool | None, ...]


Space = Mapping[str, FloatRange | IntRange | Choice]


class ValidationData:
    """What a choice may be based on: the training part to learn from, the validation part to predict.

    Args:
        split: copied from; no reference to it is kept.
        ties: what comes first among equal scores.

    Raises:
        InputError: a split without a validation part.

    Example:
        >>> from mmattn.evaluation.splits.strategies import random_split
        >>> view = ValidationData(random_split(np.zeros(10, int), np.arange(10), seed=0))
        >>> view.train.nnz, view.candidates.tolist()
        (7, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """

    def __init__(self, split: Split, ties: TiePolicy = "shuffled"):
        self.train = split.known("validation")
        self.histories = split.histories("validation")
        self.has_held_out_users = len(split.validation_users) > 0
        self.items = split.known_items("validation").copy()
        self.candidates = split.candidates("validation").copy()
        self.ties: TiePolicy = ties
        self.protocol = {
            "split": split.protocol, "seed": split.seed, "users": split.user_count, "items": split.item_count,
            "train": len(split.train), "validation": len(split.validation), "ties": ties,
        }  # fmt: skip
        self._positives = split.matrix("validation")
        if not self._positives.nnz:
            raise InputError(f"tune: the {split.protocol} split has no validation part, expected one")

    def mean_metric(self, score_fn: ScoreFn, metric: str) -> float:
        """The mean of a metric such as "ndcg@20" on validation, what is known being masked.

        Args:
            score_fn: `score(users, items)` gives [B, C] scores.
            metric: name with a cut-off, or rprec or auc.
        """
        depth = int(metric.partition("@")[2] or 0) or len(self.candidates) + 1
        ranking = rank_users(
            score_fn, np.arange(self.train.shape[0]), depth,
            candidates=self.candidates, exclude=self.histories, ties=self.ties,
        )  # fmt: skip
        return evaluate(ranking, self._positives, [metric]).mean(metric)

    def fingerprint(self) -> str:
        """SHA-256 of the interactions that choices were based on."""
        digest = hashlib.sha256()
        for matrix in (self.train, self.histories, self._positives):
            for array in (matrix.indptr, matrix.indices):
                digest.update(array.astype(np.int64).tobytes())
        digest.update(self.candidates.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class FittedSystem:
    """A system after learning that chose something itself on validation, such as when to stop.

    Args:
        score_fn: of users and items.
        chosen_parameters: what it chose, by name; it joins the trial's parameters.
    """

    score_fn: ScoreFn
    chosen_parameters: Mapping[str, Any]


@dataclass(frozen=True)
class TunableSystem:
    """A system to be tuned.

    Args:
        fit: `fit(validation, **parameters)` learns from `validation.train` and gives a `score`, or a
            `FittedSystem` where it chose something itself.
        space: parameter -> what it may be; empty for a system with nothing to choose.
        start: values of all parameters for the first trial, within the space; empty draws it too.
    """

    fit: Callable[..., ScoreFn | FittedSystem]
    space: Space
    start: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TunedSystem:
    """What was found for one system.

    Args:
        parameters: the best ones.
        value: their validation figure.
        trials: every trial's parameters and figure (None where it was not a number), in order.
    """

    parameters: Mapping[str, Any]
    value: float
    trials: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class TuningResult:
    """What was found for all systems, and everything that is needed to do it again.

    Args:
        systems: name -> result.
        manifest: protocol, fingerprint of the data, budget, seed, spaces, trials, versions.
    """

    systems: Mapping[str, TunedSystem]
    manifest: Mapping[str, Any]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, atomically.

        Args:
            path: of the JSON file.
        """
        write_json(path, self.manifest)


def tune(
    systems: Mapping[str, TunableSystem],
    data: ValidationData | Split,
    *,
    metric: str = "ndcg@20",
    trials: int = 20,
    seed: int = 0,
) -> TuningResult:
    """Choose the parameters of every system on validation, with the same number of trials for each.

    Args:
        systems: ours and its baselines.
        data: a split is turned into its `ValidationData` before any system sees it.
        metric: name with a cut-off, to be maximised.
        trials: for each system that has something to choose; one suffices for the others.
        seed: of the search (tree-structured Parzen estimator; Bergstra et al., NeurIPS 2011).

    Raises:
        InputError: no systems, fewer than one trial, or a system without a figure in any trial.
        MissingDependency: Optuna is not installed.
    """
    if not systems or trials < 1:
        raise InputError(
            f"tune: got {len(systems)} systems and {trials} trials, expected at least one of both"
        )
    view = data if isinstance(data, ValidationData) else ValidationData(data)
    tuned = {name: _tune_one(name, system, view, metric, trials, seed) for name, system in systems.items()}
    manifest = {
        "metric": metric,
        "trials": trials,
        "seed": seed,
        "sampler": "optuna TPESampler",
        "protocol": view.protocol,
        "data_sha256": view.fingerprint(),
        "systems": {
            name: {
                "space": {
                    key: {type(value).__name__: asdict(value)} for key, value in systems[name].space.items()
                },
                "best": dict(result.parameters),
                "value": result.value,
                "start": dict(systems[name].start),
                "trials": [dict(trial) for trial in result.trials],
            }
            for name, result in tuned.items()
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _LIBRARIES},
        },
    }
    return TuningResult(tuned, manifest)


def _tune_one(
    name: str, system: TunableSystem, view: ValidationData, metric: str, trials: int, seed: int
) -> TunedSystem:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependency("tune needs optuna: pip install 'mmattn[tune]'") from error

    def objective(trial: optuna.Trial) -> float:
        parameters = {key: _suggest(trial, key, value) for key, value in system.space.items()}
        fitted = system.fit(view, **parameters)
        if not isinstance(fitted, FittedSystem):
            return view.mean_metric(fitted, metric)
        trial.set_user_attr("chosen", dict(fitted.chosen_parameters))
        return view.mean_metric(fitted.score_fn, metric)

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        if system.start:
            study.enqueue_trial(dict(system.start))
        study.optimize(objective, n_trials=trials if system.space else 1)
    finally:
        optuna.logging.set_verbosity(verbosity)
    rows = tuple({"parameters": _trial_parameters(trial), "value": trial.value} for trial in study.trials)
    if all(row["value"] is None for row in rows):
        raise InputError(f"tune: {name!r} has no validation figure in any of {len(rows)} trials")
    return TunedSystem(_trial_parameters(study.best_trial), float(study.best_value), rows)


def _trial_parameters(trial: Any) -> dict[str, Any]:
    return {**trial.params, **trial.user_attrs.get("chosen", {})}


def _suggest(trial: Any, name: str, parameter_range: FloatRange | IntRange | Choice) -> Any:
    if isinstance(parameter_range, FloatRange):
        return trial.suggest_float(name, parameter_range.low, parameter_range.high, log=parameter_range.log)
    if isinstance(parameter_range, IntRange):
        return trial.suggest_int(name, parameter_range.low, parameter_range.high, log=parameter_range.log)
    return trial.suggest_categorical(name, list(parameter_range.options))
