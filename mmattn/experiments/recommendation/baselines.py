"""From a baseline's configuration to a fitted system: the content it may use is what our model gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from mmattn.data.dataset import Interactions
from mmattn.data.histories import Histories
from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.splits.split import Split
from mmattn.experiments.config import BaselineConfig
from mmattn.experiments.recommendation.baseline_registry import (
    BASELINES,
    baseline_arguments,
    search_space,
    with_settings,
)
from mmattn.experiments.tuning import FittedSystem, TunableSystem, TuningResult, ValidationData, tune
from mmattn.fusion.pool import segment_mean
from mmattn.recommenders import kernels
from mmattn.recommenders.newcomers import SupportsScore, WithColdUserFallback
from mmattn.recommenders.pairwise import PairwiseRecommender, ValidateFn
from mmattn.recommenders.recent_popularity import RecentPopularity
from mmattn.recommenders.sasrec import SASRec
from mmattn.types import Sample

__all__ = ["BaselineContent", "fit_baseline", "tune_baselines"]


class BaselineContent:
    """What is known of the items, as vectors and tags.

    Args:
        samples: the items.
        inputs: their stored tokens.
        events: all interactions with their times, for baselines of histories; None where there are none.
    """

    def __init__(self, samples: Sequence[Sample], inputs: ModelInputs, events: Interactions | None = None):
        self.samples = samples
        self.inputs = inputs
        self.events = events
        self._kernels: dict[Any, NDArray[np.float64]] = {}

    def mean_token(self, modality: str) -> NDArray[np.floating]:
        """Return the mean token of each item, [I, D]; zeros where the modality is absent.

        Args:
            modality: its name.

        Raises:
            InputError: no stored modality of that name.
        """
        if modality not in self.inputs.tokens:
            raise InputError(
                f"baseline: no stored modality {modality!r}.{did_you_mean(modality, self.inputs.tokens)}"
            )
        tokens = self.inputs.tokens[modality]
        return segment_mean(tokens.values, tokens.sample, len(tokens)).numpy()

    def column(self, name: str) -> list[Any]:
        """Return the values of a table column; None where absent.

        Args:
            name: of the column.

        Raises:
            InputError: no such column.
        """
        tables = [sample.content.get("table") or {} for sample in self.samples]
        columns = sorted({key for table in tables for key in table})
        if name not in columns:
            raise InputError(f"baseline: no column {name!r}.{did_you_mean(name, columns)}")
        return [table.get(name) for table in tables]

    def tags(self, columns: str) -> sparse.csr_array:
        """Return the values of one column, or of several joined by "+", as [I, values] of ones.

        Args:
            columns: names joined by "+".
        """
        tags_by_item: list[list[str]] = [[] for _ in self.samples]
        for name in columns.split("+"):
            for row, cell in enumerate(self.column(name)):
                values = cell if isinstance(cell, (list, tuple)) else [] if cell is None else [cell]
                tags_by_item[row].extend(f"{name}:{value}" for value in values)
        return kernels.tag_matrix(tags_by_item)

    def features(self, config: BaselineConfig) -> NDArray[np.float64]:
        """Return features for linear baselines, [I, F]: each part of length 1, times the root of its weight.

        Args:
            config: of the baseline.

        Raises:
            InputError: the configuration names no content.
        """
        parts = [(weight, self.mean_token(name)) for name, weight in config.vectors.items()]
        parts += [(weight, self.tags(name).toarray()) for name, weight in config.tags.items()]
        parts += [(weight, kernels.tfidf(self.tags(name)).toarray()) for name, weight in config.tfidf.items()]
        if not parts:
            raise InputError(f"baseline {config.kind!r}: got no content, expected vectors, tags or tfidf")
        return np.hstack([weight**0.5 * kernels.concat_normalized(part) for weight, part in parts])

    def kernel(self, config: BaselineConfig) -> NDArray[np.float64]:
        """Return the kernel for kernel baselines, [I, I].

        Args:
            config: of the baseline.
        """
        parts = [(weight, self._cosine_kernel("vectors", name)) for name, weight in config.vectors.items()]
        parts += [(weight, self._cosine_kernel("tags", name)) for name, weight in config.tags.items()]
        parts += [(weight, self._cosine_kernel("tfidf", name)) for name, weight in config.tfidf.items()]
        for name, width in config.gaussian.items():
            values = [np.nan if value is None else float(value) for value in self.column(name)]
            parts.append((1.0, kernels.gaussian(values, width)))
        total = kernels.weighted_sum(*parts)
        return kernels.exponential(total, config.exponent) if config.exponent else total

    def restrict_to(self, interactions: sparse.csr_array) -> BaselineContent:
        """Return the same content with the events of these interactions only.

        Args:
            interactions: [U, I].
        """
        if self.events is None:
            return self
        left = self.events.select(_is_among(self.events, interactions))
        same = BaselineContent(self.samples, self.inputs, left)
        same._kernels = self._kernels
        return same

    def histories(self, interactions: sparse.csr_array) -> Histories:
        """Return the known interactions in the order of time, each at its first.

        Args:
            interactions: [U, I], the known ones.

        Raises:
            InputError: interactions without times.
        """
        if self.events is None or self.events.time is None:
            raise InputError("baseline: got interactions without times, expected a time column in the card")
        known = np.flatnonzero(_is_among(self.events, interactions))
        by_time = known[np.argsort(self.events.time[known], kind="stable")]
        pairs = self.events.users[by_time] * interactions.shape[1] + self.events.items[by_time]
        first = by_time[np.unique(pairs, return_index=True)[1]]
        return Histories.from_events(
            self.events.users[first], self.events.items[first], self.events.time[first],
            num_users=interactions.shape[0],
        )  # fmt: skip

    def _cosine_kernel(self, kind: str, name: str) -> NDArray[np.float64]:
        if (kind, name) not in self._kernels:
            if kind == "vectors":
                kernel = kernels.cosine(self.mean_token(name))
            else:
                tags = self.tags(name)
                kernel = kernels.cosine(kernels.tfidf(tags) if kind == "tfidf" else tags)
            self._kernels[kind, name] = kernel
        return self._kernels[kind, name]


def _is_among(events: Interactions, interactions: sparse.csr_array) -> NDArray[np.bool_]:
    """Which events are of these interactions [U, I]."""
    pairs, count = interactions.tocoo(), np.int64(interactions.shape[1])
    return np.isin(events.users * count + events.items, pairs.row * count + pairs.col)


def fit_baseline(
    config: BaselineConfig,
    content: BaselineContent,
    interactions: sparse.csr_array,
    known: NDArray[np.int64],
    *,
    histories: sparse.csr_array | None = None,
    seed: int = 0,
    validate_fn: ValidateFn | None = None,
    device: str | torch.device = "cpu",
) -> SupportsScore:
    """Fit one baseline.

    Args:
        config: which one, with which content.
        content: of all items.
        interactions: [U, I], the known ones.
        known: ids of the items that were there to be chosen.
        histories: [U, I] histories that users are asked with, if they are not the known interactions: those
            of users that nothing was learned from.
        seed: of baselines that begin at random.
        validate_fn: the validation figure of a `score` function, for baselines that can stop early.
        device: where baselines are trained that have something to train.

    Raises:
        InputError: an option that the kind does not have, or content that is not there.
    """
    kind = BASELINES[config.kind]
    given = {"seed": seed, "validate_fn": validate_fn, "device": device}
    baseline = kind.factory(
        **baseline_arguments(config), **{name: given[name] for name in kind.runtime_arguments}
    )
    features: Any = None
    if kind.content == "histories":
        features = content.histories(interactions)
    elif kind.content:
        features = content.kernel(config) if kind.content == "kernel" else content.features(config)
    fitted = baseline.fit(interactions, features, known)
    if histories is not None:
        fitted = fitted.with_histories(histories)
    if config.cold_user_half_life is None:
        return fitted
    popular = RecentPopularity(config.cold_user_half_life).fit(interactions, content.histories(interactions))
    return WithColdUserFallback(fitted, popular, interactions if histories is None else histories)


def tune_baselines(
    configs: Mapping[str, BaselineConfig],
    content: BaselineContent,
    split: Split,
    *,
    metric: str,
    trials: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> tuple[dict[str, BaselineConfig], TuningResult]:
    """Settings of every baseline, chosen on validation with the same number of trials for each.

    The first trial is what the configuration says, so that it is never worse there for being tuned. A
    baseline trained in epochs stops early on validation, and the number of epochs is among what is found.

    Args:
        configs: name -> baseline.
        content: of all items.
        split: whose validation part is predicted; the test part is out of the baselines' reach.
        metric: name with a cut-off, to be maximised.
        trials: for each baseline that has something to choose.
        seed: of the search and of baselines that begin at random.
        device: where baselines are trained that have something to train.

    Returns:
        The configurations with what was found, and the whole search.
    """
    # Not the test part, whoever asks: what a system holds has no event of it.
    seen = content.restrict_to(split.known("test"))
    systems = {name: _tunable_system(config, seen, metric, seed, device) for name, config in configs.items()}
    tuning = tune(systems, split, metric=metric, trials=trials, seed=seed)
    result = {
        name: with_settings(config, tuning.systems[name].parameters) for name, config in configs.items()
    }
    return result, tuning


def _tunable_system(
    config: BaselineConfig, content: BaselineContent, metric: str, seed: int, device: str | torch.device
) -> TunableSystem:
    def fit(view: ValidationData, **parameters: Any) -> FittedSystem:
        baseline = fit_baseline(
            with_settings(config, parameters), content, view.train, view.items,
            histories=view.histories if view.has_held_out_users else None,
            seed=seed, validate_fn=lambda score: view.mean_metric(score, metric), device=device,
        )  # fmt: skip
        inner = baseline.baseline if isinstance(baseline, WithColdUserFallback) else baseline
        epochs = {"epochs": inner.best_epoch} if isinstance(inner, (PairwiseRecommender, SASRec)) else {}
        return FittedSystem(baseline.score, epochs)

    return TunableSystem(fit, *search_space(config))
