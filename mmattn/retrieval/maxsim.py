"""Late-interaction search: items and queries of several vectors each, scored by MaxSim."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from mmattn.errors import InputError
from mmattn.retrieval.checks import check_ids, check_k, check_provenance, check_vectors, normalize_rows
from mmattn.retrieval.filters import filter_mask
from mmattn.retrieval.hits import Hits, drop_self_hits
from mmattn.retrieval.index import Index
from mmattn.retrieval.items import as_metadata_table, find_rows
from mmattn.retrieval.storage import index_files
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle, save_bundle

__all__ = ["MaxSimIndex"]

_BATCH_VECTORS = 2**18


class MaxSimIndex:
    """Items of several vectors each, scored by MaxSim.

    MaxSim is the sum over the query's vectors of the highest inner product with any vector of the item.

    If the vectors are searched exactly, so are the items. If their number calls for an approximate index, the
    items that own the `depth` nearest vectors of each query vector are candidates, and these are scored
    exactly.

    Paper: Khattab and Zaharia, "ColBERT", SIGIR 2020.

    Args:
        vectors: index of all items' vectors [V, D], item by item, under the ids 0 to V - 1.
        offsets: [N + 1] int64; item i owns the vectors `offsets[i]` to `offsets[i + 1] - 1`.
        ids: [N] ids of the items.
        metadata: one row per item.

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
            items: N arrays [T, D]; T may differ between items and is at least 1.
            ids: N distinct texts or whole numbers; None means 0 to N - 1.
            metric: "ip" or "cosine".
            metadata: columns with one value per item.
            **options: keyword arguments of `Index.build` for the vectors: provenance, target_recall, device,
                ...

        Raises:
            InputError: an item without vectors, another metric, or as `Index.build`.
        """
        if metric not in ("ip", "cosine"):
            raise InputError(f"maxsim index: got metric {metric!r}, expected ip or cosine")
        parts, names, table = _validate_items(
            items, list(range(len(items))) if ids is None else ids, metadata
        )
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        return cls(Index.build(np.concatenate(parts), metric=metric, **options), offsets, names, table)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.ids)

    def __contains__(self, name: object) -> bool:
        return name in self._id_to_row

    @cached_property
    def _id_to_row(self) -> pd.Index:
        result: pd.Index = pd.Index(self.ids)
        return result

    # --- search ----------------------------------------------------------------------------------

    def search(
        self,
        queries: Sequence[Any],
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        depth: int = 100,
    ) -> Hits:
        """Find the k best items of each query.

        Args:
            queries: Q arrays [T, D]; T may differ between queries.
            k: items per query, at most the number of items in the index.
            where: filter expression over the items' metadata; None means no filter.
            allowed_ids: restrict the search to these ids; None means all items.
            provenance: what made the queries; checked against the provenance of the index. None means no
                check.
            depth: candidate vectors per query vector if the search is approximate.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: values that are not finite, another width or provenance, a query without vectors, k
                out of range, an unknown id, or an invalid filter.
        """
        if provenance is not None:
            check_provenance(self.vectors.provenance, provenance, "search")
        check_k(k, len(self))
        keep = np.ones(len(self), dtype=bool) if where is None else filter_mask(where, self.metadata)
        allowed = np.flatnonzero(keep)
        if allowed_ids is not None:
            allowed = np.intersect1d(allowed, find_rows(self._id_to_row, list(allowed_ids), "filter"))
        results = [self._search(query, number, k, allowed, depth) for number, query in enumerate(queries)]
        width = min([k, *(len(rows) for _, rows in results)])
        scores = np.array([scores[:width] for scores, _ in results], np.float32)
        rows = np.array([rows[:width] for _, rows in results], np.int64)
        return Hits(self.ids[rows], scores)

    def search_ids(self, ids: Sequence[Any], k: int = 10, **options: Any) -> Hits:
        """Find the k nearest neighbours of items of the index, excluding each item itself.

        Args:
            ids: Q ids.
            k: neighbours per item, at most N - 1.
            **options: keyword arguments of `search`: where, allowed_ids, depth.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: as `search`, or an unknown id.
        """
        rows = find_rows(self._id_to_row, ids, "search")
        check_k(k, len(self), len(self) - 1)
        queries = [self.vectors.vectors(np.arange(*self.offsets[row : row + 2])) for row in rows]
        return drop_self_hits(self.search(queries, k + 1, **options), self.ids[rows], k)

    def _search(
        self, query: Any, number: int, k: int, allowed: np.ndarray, depth: int
    ) -> tuple[np.ndarray, np.ndarray]:
        query_vectors = check_vectors(query, f"query {number}", lambda row: f"vector {row}")
        if not len(query_vectors) or query_vectors.shape[1] != self.vectors.dim:
            raise InputError(
                f"query {number}: got {list(query_vectors.shape)}, "
                f"expected vectors of width {self.vectors.dim}"
            )
        if self.vectors.metric == "cosine":
            query_vectors = normalize_rows(query_vectors, f"query {number}", lambda row: f"vector {row}")
        rows = allowed
        if self.vectors.approximate:
            near = self.vectors.search(query_vectors, min(depth, len(self.vectors))).ids
            brought = np.unique(np.searchsorted(self.offsets, near, side="right") - 1)
            few = np.intersect1d(brought, allowed, assume_unique=True)
            rows = few if len(few) >= min(k, len(allowed)) else allowed
        scores = self._maxsim(query_vectors, rows)
        order = np.argsort(-scores, kind="stable")[:k]
        return scores[order], rows[order]

    def _maxsim(self, query_vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """[len(rows)] MaxSim scores, computed in batches of about `_BATCH_VECTORS` vectors."""
        counts = np.diff(self.offsets)[rows]
        scores = np.empty(len(rows), np.float32)
        batch = np.cumsum(counts) // _BATCH_VECTORS
        for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(batch)) + 1):
            if len(part):
                token_rows = np.concatenate(
                    [np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows[part]]
                )
                products = query_vectors @ self.vectors.vectors(token_rows).T
                starts = np.cumsum(counts[part]) - counts[part]
                scores[part] = np.maximum.reduceat(products, starts, axis=1).sum(0)
        return scores

    # --- change ----------------------------------------------------------------------------------

    def add(
        self, items: Sequence[Any], ids: Sequence[Any], *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Add items; if any of them is invalid, none is added.

        Args:
            items: n arrays [T, D], T at least 1.
            ids: n new ids, of the same kind (text or whole numbers) as those of the index.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Raises:
            InputError: as `build`; an id that already exists; other columns, width or provenance.
        """
        parts, names, table = _validate_items(items, ids, metadata)
        existing = [name for name in names.tolist() if name in self]
        if existing:
            raise InputError(f"maxsim index: id {existing[0]!r} is there already, expected a new one")
        if set(table.columns) != set(self.metadata.columns) or (len(self) and names.dtype != self.ids.dtype):
            raise InputError(
                f"maxsim index: got {names.dtype} ids with metadata columns {sorted(table.columns)}, "
                f"expected {self.ids.dtype} and {sorted(self.metadata.columns)} as in the index"
            )
        first = len(self.vectors)
        rows = np.concatenate(parts)
        self.vectors.add(rows, np.arange(first, first + len(rows)), provenance=provenance)
        ends = self.offsets[-1] + np.cumsum([len(part) for part in parts])
        self.offsets = np.concatenate([self.offsets, ends])
        self._set_items(
            np.concatenate([self.ids, names]) if len(self) else names,
            pd.concat([self.metadata, table], ignore_index=True) if len(self) else table,
        )

    def remove(self, ids: Sequence[Any]) -> None:
        """Remove items with all their vectors.

        Args:
            ids: ids of the index.

        Raises:
            InputError: an unknown id; nothing is removed then.
        """
        keep = np.ones(len(self), dtype=bool)
        keep[find_rows(self._id_to_row, ids, "maxsim index")] = False
        counts = np.diff(self.offsets)
        self.vectors.remove(np.flatnonzero(~keep.repeat(counts)))
        self.vectors = self.vectors.with_integer_ids()
        self.offsets = np.concatenate([[0], np.cumsum(counts[keep])])
        self._set_items(self.ids[keep], self.metadata[keep].reset_index(drop=True))

    def _set_items(self, ids: np.ndarray, metadata: pd.DataFrame) -> None:
        self.ids, self.metadata = ids, metadata
        self.__dict__.pop("_id_to_row", None)

    # --- storage ---------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, atomically: an interrupted save leaves the old or the new state.

        Args:
            folder: new, empty, or a bundle that is replaced.

        Raises:
            InputError: as `Index.save`.
        """
        writers = {
            "offsets.npy": index_files.write_array(self.offsets),
            "items.parquet": index_files.write_items(self.ids, self.metadata),
        }
        save_bundle(folder, {"kind": "maxsim", "count": len(self)}, writers, {"vectors": self.vectors.save})

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> MaxSimIndex:
        """Open a folder written by `save`, after checking the hash of every file.

        Args:
            folder: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: there is no such index, or it is damaged; the message names the file and the damage.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> MaxSimIndex:
        """Restore the index of a verified bundle.

        Args:
            opened: the bundle.
            device: as in `Index.build`.

        Raises:
            InputError: another kind of bundle, or files that are inconsistent with each other.
        """
        opened.check_kind("maxsim")
        count = opened.attributes.get("count")
        whole = {"offsets", "items"} <= set(opened.files) and set(opened.parts) == {"vectors"}
        if not whole or type(count) is not int or count < 0:
            raise InputError(f"{opened.folder}: manifest.json does not describe an index of this version")
        vectors = Index.from_bundle(opened.parts["vectors"], device)
        offsets = np.array(index_files.read_array(opened, "offsets", (count + 1,), np.int64))
        if offsets[0] or offsets[-1] != len(vectors) or (np.diff(offsets) < 1).any():
            raise InputError(f"{opened.files['offsets']}: does not divide {len(vectors)} vectors among items")
        return cls(vectors, offsets, *index_files.read_items(opened, count))


def _validate_items(
    items: Sequence[Any], ids: Sequence[Any], metadata: Any
) -> tuple[list[np.ndarray], np.ndarray, pd.DataFrame]:
    """Validated vectors, ids and metadata of the same number of items."""
    names = check_ids(ids, "maxsim index")
    if len(names) != len(items) or not len(items):
        raise InputError(f"maxsim index: got {len(names)} ids for {len(items)} items, expected at least one")
    parts = [
        check_vectors(item, "maxsim index", lambda row, name=name: f"vector {row} of id {name!r}")  # type: ignore[misc]
        for item, name in zip(items, names.tolist(), strict=True)
    ]
    for part, name in zip(parts, names.tolist(), strict=True):
        if not len(part) or part.shape[1] != parts[0].shape[1]:
            raise InputError(
                f"maxsim index: id {name!r} has vectors {list(part.shape)}, "
                f"expected at least one of width {parts[0].shape[1]}"
            )
    return parts, names, as_metadata_table(metadata, len(names))
