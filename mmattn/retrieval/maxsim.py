"""Several vectors an item: late interaction, where every vector of a query finds its best partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from mmattn.errors import InputError
from mmattn.retrieval.checks import check_ids, check_vectors, unit_length
from mmattn.retrieval.filters import matching
from mmattn.retrieval.index import Hits, Index

__all__ = ["MaxSimIndex"]

_VECTORS_AT_ONCE = 2**18


class MaxSimIndex:
    """Items of several vectors each, scored by MaxSim: the sum over a query's vectors of the best product
    with any vector of the item.

    Where the vectors are searched exactly, so are the items. Where they are many enough for an
    approximate index, the items of the `depth` vectors nearest to each vector of the query are scored,
    exactly.

    Paper: Khattab and Zaharia, "ColBERT", SIGIR 2020.

    Example:
        >>> films = MaxSimIndex.build([[[1, 0], [0, 1]], [[0.9, 0.1]]], ["a", "b"])
        >>> films.search([[[1, 0], [0, 1]]], k=2).to_lists()
        [[('a', 2.0), ('b', 1.0)]]
    """

    def __init__(self, vectors: Index, offsets: np.ndarray, ids: np.ndarray, metadata: pd.DataFrame):
        self.vectors = vectors
        self.offsets = offsets
        self.ids = ids
        self.metadata = metadata

    @classmethod
    def build(
        cls,
        items: Sequence[Any],
        ids: Sequence[Any] | None = None,
        metric: Literal["ip", "cosine"] = "ip",
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> MaxSimIndex:
        """Make items searchable.

        Args:
            items: one [T, D] each, T at least 1.
            ids: one each; left out, their numbers.
            metric: "ip" or "cosine".
            metadata: columns with one value an item.
            options: of `Index.build`, for the vectors.

        Raises:
            InputError: an item without vectors, another metric, or as `Index.build`.
        """
        if metric not in ("ip", "cosine"):
            raise InputError(f"maxsim index: got metric {metric!r}, expected ip or cosine")
        names = check_ids(list(range(len(items))) if ids is None else ids, "maxsim index")
        if len(names) != len(items) or not len(items):
            raise InputError(
                f"maxsim index: got {len(names)} ids for {len(items)} items, expected at least one"
            )
        parts = [_checked(item, f"id {name!r}") for item, name in zip(items, names.tolist(), strict=True)]
        for part, name in zip(parts, names.tolist(), strict=True):
            if not len(part) or part.shape[1] != parts[0].shape[1]:
                raise InputError(
                    f"maxsim index: id {name!r} has vectors {list(part.shape)}, "
                    f"expected at least one of width {parts[0].shape[1]}"
                )
        table = pd.DataFrame(metadata if metadata is not None else {}, index=None)
        if len(table.columns) and len(table) != len(items):
            raise InputError(f"maxsim index: got metadata of {len(table)} rows for {len(items)} items")
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return cls(Index.build(np.concatenate(parts), metric=metric, **options), offsets, names, table)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    def search(
        self, queries: Sequence[Any], k: int = 10, *, where: str | None = None, depth: int = 100
    ) -> Hits:
        """The k best items of each query.

        Args:
            queries: one [T, D] each.
            k: how many, at most as many as there are items.
            where: a condition over the items' metadata.
            depth: vectors that each vector of a query brings in, where the search is approximate.

        Raises:
            InputError: a NaN, another width, a query without vectors, k out of range, or a bad filter.
        """
        if not 1 <= k <= len(self):
            raise InputError(f"search: got k={k!r}, expected 1 to {len(self)}, the number of items there are")
        allowed = np.arange(len(self)) if where is None else np.flatnonzero(matching(where, self.metadata))
        found = [self._search(query, number, k, allowed, depth) for number, query in enumerate(queries)]
        width = min([k, *(len(rows) for _, rows in found)])
        scores = np.array([scores[:width] for scores, _ in found], np.float32)
        rows = np.array([rows[:width] for _, rows in found], np.int64)
        return Hits(self.ids[rows], scores)

    def _search(
        self, query: Any, number: int, k: int, allowed: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        asked = check_vectors(query, f"query {number}", lambda row: f"vector {row}")
        if not len(asked) or asked.shape[1] != self.vectors.dim:
            raise InputError(
                f"query {number}: got {list(asked.shape)}, expected vectors of width {self.vectors.dim}"
            )
        if self.vectors.metric == "cosine":
            asked = unit_length(asked, f"query {number}", lambda row: f"vector {row}")
        rows = allowed
        if self.vectors.approximate:
            near = self.vectors.search(asked, min(depth, len(self.vectors))).ids
            brought = np.unique(np.searchsorted(self.offsets, near, side="right") - 1)
            few = np.intersect1d(brought, allowed, assume_unique=True)
            rows = few if len(few) >= min(k, len(allowed)) else allowed
        scores = self._maxsim(asked, rows)
        order = np.argsort(-scores, kind="stable")[:k]
        return scores[order], rows[order]

    def _maxsim(self, asked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[len(rows)] scores, some hundred thousand vectors at a time."""
        counts = np.diff(self.offsets)[rows]
        scores = np.empty(len(rows), np.float32)
        batch = np.cumsum(counts) // _VECTORS_AT_ONCE
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(batch)) + 1):
            if len(part):
                places = np.concatenate(
                    [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows[part]]
                )
                products = asked @ self.vectors.vectors(places).T
                starts = np.cumsum(counts[part]) - counts[part]
                scores[part] = np.maximum.reduceat(products, starts, axis=1).sum(0)
        return scores


def _checked(item: Any, whose: str) -> np.ndarray:
    return check_vectors(item, "maxsim index", lambda row: f"vector {row} of {whose}")
