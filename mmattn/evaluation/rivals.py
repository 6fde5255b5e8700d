"""From a rival's configuration to a fitted system: the content it may use is what our model gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from mmattn.config import RivalConfig
from mmattn.encoders.inputs import Inputs
from mmattn.errors import InputError, nearest
from mmattn.fusion.pool import segment_mean
from mmattn.heads import baselines, kernels
from mmattn.types import Sample

__all__ = ["RivalContent", "fit_rival"]


class RivalContent:
    """What is known of the items, as vectors and tags.

    Args:
        samples: the items.
        inputs: their stored tokens.
    """

    def __init__(self, samples: Sequence[Sample], inputs: Inputs):
        self.samples = samples
        self.inputs = inputs
        self._kernels: dict[Any, NDArray[np.float64]] = {}

    def mean_token(self, modality: str) -> NDArray[np.floating]:
        """[I, D], zeros where the modality is absent."""
        if modality not in self.inputs.tokens:
            raise InputError(
                f"rival: no stored modality {modality!r}.{nearest(modality, self.inputs.tokens)}"
            )
        tokens = self.inputs.tokens[modality]
        return segment_mean(tokens.values, tokens.sample, len(tokens)).numpy()

    def column(self, name: str) -> list[Any]:
        """The values of a table column, None where absent."""
        tables = [sample.content.get("table") or {} for sample in self.samples]
        columns = sorted({key for table in tables for key in table})
        if name not in columns:
            raise InputError(f"rival: no column {name!r}.{nearest(name, columns)}")
        return [table.get(name) for table in tables]

    def tags(self, columns: str) -> sparse.csr_array:
        """[I, values] of ones: the values of one column, or of several joined by "+"."""
        own: list[list[str]] = [[] for _ in self.samples]
        for name in columns.split("+"):
            for place, cell in enumerate(self.column(name)):
                values = cell if isinstance(cell, (list, tuple)) else [] if cell is None else [cell]
                own[place].extend(f"{name}:{value}" for value in values)
        return kernels.tag_matrix(own)

    def features(self, config: RivalConfig) -> NDArray[np.float64]:
        """[I, F] for linear rivals: each part of length 1, times the root of its weight."""
        parts = [(weight, self.mean_token(name)) for name, weight in config.vectors.items()]
        parts += [(weight, self.tags(name).toarray()) for name, weight in config.tags.items()]
        parts += [(weight, kernels.tfidf(self.tags(name)).toarray()) for name, weight in config.rare.items()]
        if not parts:
            raise InputError(f"rival {config.kind!r}: got no content, expected vectors, tags or rare")
        return np.hstack([weight**0.5 * kernels.side_by_side(part) for weight, part in parts])

    def kernel(self, config: RivalConfig) -> NDArray[np.float64]:
        """[I, I] for kernel rivals."""
        parts = [(weight, self._cosine("vectors", name)) for name, weight in config.vectors.items()]
        parts += [(weight, self._cosine("tags", name)) for name, weight in config.tags.items()]
        parts += [(weight, self._cosine("rare", name)) for name, weight in config.rare.items()]
        for name, width in config.numbers.items():
            values = [np.nan if value is None else float(value) for value in self.column(name)]
            parts.append((1.0, kernels.gaussian(values, width)))
        total = kernels.weighted_sum(*parts)
        return kernels.exponential(total, config.exponent) if config.exponent else total

    def _cosine(self, kind: str, name: str) -> NDArray[np.float64]:
        if (kind, name) not in self._kernels:
            if kind == "vectors":
                kernel = kernels.cosine(self.mean_token(name))
            else:
                tags = self.tags(name)
                kernel = kernels.cosine(kernels.tfidf(tags) if kind == "rare" else tags)
            self._kernels[kind, name] = kernel
        return self._kernels[kind, name]


def fit_rival(
    config: RivalConfig,
    content: RivalContent,
    interactions: sparse.csr_array,
    known: NDArray[np.int64],
) -> baselines.Recommender:
    """Fit one rival.

    Args:
        config: which one, with which content.
        content: of all items.
        interactions: [U, I], the known ones.
        known: ids of the items that were there to be chosen.
    """
    strength: Mapping[str, float] = {"strength": config.strength} if config.strength else {}
    if config.kind == "popularity":
        return baselines.Popularity().fit(interactions)
    if config.kind == "ease":
        return baselines.EASE(**strength).fit(interactions, known=known)
    if config.kind == "kernel-ridge":
        return baselines.KernelRidge(**strength).fit(interactions, content.kernel(config), known)
    if config.kind == "content-ridge":
        return baselines.ContentRidge(**strength).fit(interactions, content.features(config), known)
    neighbours = {"neighbours": int(config.strength)} if config.strength else {}
    return baselines.ContentKNN(**neighbours).fit(interactions, content.features(config), known)
