"""Content of an index: vectors, ids and metadata with aligned rows, validated on construction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mmattn.errors import InputError, did_you_mean
from mmattn.retrieval.checks import check_ids, check_vectors, normalize_rows
from mmattn.retrieval.filters import filter_mask
from mmattn.retrieval.search.exact import Metric

__all__ = ["Items", "as_metadata_table", "find_rows"]


@dataclass(frozen=True, eq=False)
class Items:
    """Aligned rows of vectors, ids and metadata.

    Args:
        vectors: [N, D] float32.
        ids: [N] int64, or objects that are all text.
        metadata: N rows; may have no columns.
    """

    vectors: np.ndarray
    ids: np.ndarray
    metadata: pd.DataFrame

    @classmethod
    def validated(cls, vectors: Any, ids: Any, metadata: Any, metric: Metric) -> Items:
        """Check user input and build items from it.

        Args:
            vectors: [N, D] numbers, N at least 1.
            ids: N distinct texts or whole numbers; None means 0 to N - 1.
            metadata: anything `pandas.DataFrame` accepts, N rows; None means no columns.
            metric: "cosine" normalizes the vectors to unit length.

        Raises:
            InputError: no vectors, values that are not finite, duplicate ids, parts of different lengths, or
                a row of zeros for "cosine".
        """
        count = len(vectors)
        if not count:
            raise InputError("index: got no vectors, expected at least one")
        names = check_ids(np.arange(count) if ids is None else ids, "index")
        if len(names) != count:
            raise InputError(f"index: got {len(names)} ids for {count} vectors")
        rows = check_vectors(vectors, "vectors", lambda row: f"id {names[row]!r}")
        if metric == "cosine":
            rows = normalize_rows(rows, "vectors", lambda row: f"id {names[row]!r}")
        return cls(rows, names, as_metadata_table(metadata, count))

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        result: int = self.vectors.shape[1]
        return result

    @cached_property
    def id_to_row(self) -> pd.Index:
        """pandas index that maps an id to its row."""
        result: pd.Index = pd.Index(self.ids)
        return result

    def find(self, ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
        """Rows of the given ids.

        Args:
            ids: n ids.
            what: name of the operation for error messages.

        Returns:
            [n] int64 rows.

        Raises:
            InputError: an unknown id; the message suggests a similar one.
        """
        return find_rows(self.id_to_row, ids, what)

    def filter_rows(self, where: str | None, allowed_ids: Collection[Any] | None) -> np.ndarray | None:
        """Rows that pass the filters.

        Args:
            where: filter expression over the metadata; None means no filter.
            allowed_ids: ids that may pass; None means all.

        Returns:
            [R] rows, ascending; None if both filters are None.

        Raises:
            InputError: an unknown id, or an invalid filter expression.
        """
        if where is None and allowed_ids is None:
            return None
        keep = np.ones(len(self), dtype=bool)
        if allowed_ids is not None:
            keep[:] = False
            keep[self.find(list(allowed_ids), "filter")] = True
        if where is not None:
            keep &= filter_mask(where, self.metadata)
        return np.flatnonzero(keep)

    def aligned(self, new: Items) -> Items:
        """Check that new items are compatible with these, and reorder their metadata columns to match.

        Args:
            new: items that are to be added or to replace some.

        Raises:
            InputError: another width, other columns, or ids of another kind.
        """
        if set(new.metadata.columns) != set(self.metadata.columns):
            raise InputError(
                f"index: got metadata columns {sorted(map(str, new.metadata.columns))}, "
                f"expected {sorted(map(str, self.metadata.columns))} as in the index"
            )
        if new.dim != self.dim:
            raise InputError(f"index: got vectors of width {new.dim}, expected {self.dim}")
        if len(self) and new.ids.dtype != self.ids.dtype:
            kinds = {True: "whole numbers", False: "text"}
            raise InputError(
                f"index: got ids that are {kinds[new.ids.dtype == np.int64]}, "
                f"expected {kinds[self.ids.dtype == np.int64]} as in the index"
            )
        return Items(new.vectors, new.ids, new.metadata[list(self.metadata.columns)])

    def concatenated(self, new: Items) -> Items:
        """Append items.

        Args:
            new: items that passed `aligned`.
        """
        if not len(self):
            return new
        return Items(
            np.concatenate([self.vectors, new.vectors]),
            np.concatenate([self.ids, new.ids]),
            pd.concat([self.metadata, new.metadata], ignore_index=True),
        )

    def take(self, rows: np.ndarray | slice) -> Items:
        """Select rows.

        Args:
            rows: row numbers, a boolean mask [N], or a slice.
        """
        return Items(self.vectors[rows], self.ids[rows], self.metadata.iloc[rows].reset_index(drop=True))


def find_rows(id_to_row: pd.Index, ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """Look up the rows of ids.

    Args:
        id_to_row: index of all ids.
        ids: n ids.
        what: name of the operation for error messages.

    Returns:
        [n] int64 rows.

    Raises:
        InputError: not a list, or an unknown id; the message suggests a similar one.
    """
    if isinstance(ids, str) or not isinstance(ids, (Sequence, np.ndarray)):
        raise InputError(f"{what}: got {ids!r}, expected a list of ids")
    rows = id_to_row.get_indexer(pd.Index(ids, dtype=None if len(ids) else id_to_row.dtype))
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        name = list(ids)[unknown[0]]
        hint = (
            did_you_mean(name, id_to_row.tolist())
            if isinstance(name, str) and len(id_to_row) < 10_000
            else ""
        )
        close = hint if hint.startswith(" Did") else ""  # a list of all ids helps nobody
        raise InputError(f"{what}: {len(unknown)} unknown ids, the first is {name!r}.{close}")
    return rows


def as_metadata_table(metadata: Any, count: int) -> pd.DataFrame:
    """Convert metadata to a table of `count` rows.

    Args:
        metadata: anything `pandas.DataFrame` accepts; None means a table without columns.
        count: number of items.

    Raises:
        InputError: not a table, another number of rows, or a column named "id" or with a name that is no
            text.
    """
    if metadata is None:
        return pd.DataFrame(index=range(count))
    try:
        table = pd.DataFrame(metadata).reset_index(drop=True)
    except ValueError as error:
        raise InputError(f"index: the metadata is no table ({error})") from error
    if not len(table.columns):
        return pd.DataFrame(index=range(count))
    if len(table) != count:
        raise InputError(f"index: got metadata of {len(table)} rows for {count} vectors")
    if "id" in table.columns or not all(isinstance(name, str) for name in table.columns):
        raise InputError("index: metadata columns need names other than 'id', which the ids have")
    return table
