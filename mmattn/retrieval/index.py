"""Index of vectors with ids, metadata and provenance; searched by vector or by id, with filters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from mmattn.errors import InputError, did_you_mean
from mmattn.retrieval.checks import check_k, check_provenance, check_vectors, normalize_rows
from mmattn.retrieval.hits import Hits, drop_self_hits
from mmattn.retrieval.items import Items, as_metadata_table
from mmattn.retrieval.search.devices import Placement
from mmattn.retrieval.search.engine import SearchEngine
from mmattn.retrieval.search.exact import METRICS, Metric, pair_scores
from mmattn.retrieval.search.float32_matmul import full_precision
from mmattn.retrieval.search.plan import SearchPlan
from mmattn.retrieval.storage import index_files
from mmattn.retrieval.storage.bundle import OpenedBundle, open_bundle

__all__ = ["Hits", "Index"]


class Index:
    """Searchable vectors. Build one with `Index.build`, or open a saved bundle with `Index.open`.

    Args:
        items: vectors, ids and metadata.
        metric: "ip" (inner product), "l2" (squared distance) or "cosine".
        provenance: what made the vectors, part -> fingerprint; None if unknown.
        engine: the search over the vectors of `items`.

    Example:
        >>> films = Index.build(np.eye(3), ["a", "b", "c"], metadata={"year": [1995, 1999, 2001]})
        >>> films.search([[0.1, 0.2, 0.9]], k=2).to_lists()
        [[('c', 0.8999999761581421), ('b', 0.20000000298023224)]]
        >>> films.search([[0.1, 0.2, 0.9]], k=2, where="year < 2000").ids.tolist()
        [['b', 'a']]
    """

    def __init__(
        self, items: Items, metric: Metric, provenance: Mapping[str, str] | None, engine: SearchEngine
    ):
        self.metric = metric
        self.provenance = None if provenance is None else dict(provenance)
        self.engine = engine
        self._items = items

    @classmethod
    def build(
        cls,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray | None = None,
        metric: Metric = "ip",
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        target_recall: float = 0.95,
        budget_mb: float | None = None,
        kind: Literal["auto", "exact", "ann"] = "auto",
        device: str = "auto",
    ) -> Index:
        """Check the vectors and make them searchable.

        Args:
            vectors: [N, D] numbers, N at least 1; stored in float32 (at unit length for "cosine").
            ids: N distinct texts or whole numbers; None means 0 to N - 1.
            metric: "ip" (inner product), "l2" (squared distance) or "cosine".
            metadata: columns of N values each, for filters; values may be lists.
            provenance: what made the vectors, part -> fingerprint. Vectors of another provenance are refused
                by `add` and `update`.
            target_recall: fraction of the true 10 nearest neighbours that a search has to find; 1 means exact
                search.
            budget_mb: MB that an approximate index may take in addition to the vectors; None means no limit.
            kind: "exact"; "ann" (approximate if an index reaches the recall); or "auto": exact below 50,000
                vectors, above that whichever is measured to be faster.
            device: "auto" (a GPU if one has room), "cpu", "cuda" or for example "cuda:1"; see `plan`.

        Raises:
            InputError: values that are not finite, a wrong shape, duplicate ids, a row of zeros for "cosine",
                or an unknown device, metric or kind.
        """
        if metric not in METRICS:
            raise InputError(f"index: no metric {metric!r}.{did_you_mean(str(metric), METRICS)}")
        items = Items.validated(vectors, ids, metadata, metric)
        engine = SearchEngine.build(
            items.vectors, metric, target_recall=target_recall, budget_mb=budget_mb, kind=kind, device=device
        )
        return cls(items, metric, provenance, engine)

    def plan(self) -> SearchPlan:
        """Search plan: method, device and reason, with the measurements of all candidates."""
        return self.engine.plan()

    # --- content ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items.id_to_row

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return self._items.dim

    @property
    def ids(self) -> np.ndarray:
        """[N] ids, in insertion order."""
        return self._items.ids

    @property
    def matrix(self) -> np.ndarray:
        """[N, D] float32, all vectors in the order of `ids`; read-only if mapped from a bundle."""
        return self._items.vectors

    @property
    def metadata(self) -> pd.DataFrame:
        """One row per item, in the order of `ids`."""
        return self._items.metadata

    @property
    def approximate(self) -> bool:
        """Whether searches are approximate."""
        return self.engine.ann is not None

    @property
    def device(self) -> Placement:
        """The device that searches run on, and the reason."""
        return self.engine.placement

    def vectors(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Look up the vectors of items.

        Args:
            ids: n ids.

        Returns:
            [n, D] float32 vectors (of unit length for "cosine").

        Raises:
            InputError: an unknown id.
        """
        result: np.ndarray = self._items.vectors[self._items.find(ids, "index")]
        return result

    def scores(self, query: Any, ids: Sequence[Any]) -> np.ndarray:
        """Score one query against named items, as `search` does.

        Args:
            query: [D] numbers.
            ids: n ids.

        Returns:
            [n] float32 scores, higher is better.

        Raises:
            InputError: an unknown id, or an invalid query.
        """
        rows = self._checked_queries(np.asarray(query)[None])
        chosen = torch.from_numpy(self.vectors(ids))
        with full_precision():
            return pair_scores(torch.from_numpy(rows), chosen[None], self.metric)[0].numpy()

    def __repr__(self) -> str:
        return f"Index({len(self):,} vectors of width {self.dim}, {self.metric}, on {self.device.device})"

    # --- search ----------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> Hits:
        """Find the k best items of each query.

        Args:
            queries: [Q, D] numbers.
            k: items per query, at most the number of items in the index.
            where: filter expression over the metadata (see `mmattn.retrieval.filters`); fewer than k items
                are returned if fewer meet it. None means no filter.
            allowed_ids: restrict the search to these ids; None means all items.
            provenance: what made the queries; checked against the provenance of the index. None means no
                check.
            exact: compare with every vector, even if the plan is approximate.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: values that are not finite, another width or provenance, k out of range, an empty
                index, an unknown id, or an invalid filter.
        """
        if provenance is not None:
            check_provenance(self.provenance, provenance, "search")
        check_k(k, len(self))
        rows = self._checked_queries(queries)
        return self._search_rows(rows, k, self._items.filter_rows(where, allowed_ids), exact)

    def search_ids(
        self,
        ids: Sequence[Any],
        k: int = 10,
        *,
        where: str | None = None,
        allowed_ids: Collection[Any] | None = None,
    ) -> Hits:
        """Find the k nearest neighbours of items of the index, excluding each item itself.

        Args:
            ids: Q ids.
            k: neighbours per item, at most N - 1.
            where: filter expression over the metadata; None means no filter.
            allowed_ids: restrict the neighbours to these ids; None means all items.

        Returns:
            Hits with `ids` and `scores` of shape [Q, k].

        Raises:
            InputError: as `search`, or an unknown id.
        """
        rows = self._items.find(ids, "search")
        check_k(k, len(self), len(self) - 1)
        hits = self._search_rows(
            self._items.vectors[rows], k + 1, self._items.filter_rows(where, allowed_ids)
        )
        return drop_self_hits(hits, self.ids[rows], k)

    def _search_rows(self, queries: np.ndarray, k: int, rows: np.ndarray | None, exact: bool = False) -> Hits:
        scores, hit_rows = self.engine.search(queries, k, rows, exact=exact)
        return Hits(self.ids[hit_rows], scores)

    def _checked_queries(self, queries: Any) -> np.ndarray:
        rows = check_vectors(queries, "queries", lambda row: f"query {row}")
        if rows.shape[1] != self.dim:
            raise InputError(f"queries: got width {rows.shape[1]}, expected {self.dim} as in the index")
        return (
            normalize_rows(rows, "queries", lambda row: f"query {row}") if self.metric == "cosine" else rows
        )

    # --- change ----------------------------------------------------------------------------------

    def add(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add items; if any of them is invalid, none is added.

        Args:
            vectors: [n, D] numbers.
            ids: n new ids, of the same kind (text or whole numbers) as those of the index.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Raises:
            InputError: as `build`; an id that already exists; other metadata columns; another provenance.
        """
        new = self.check(vectors, ids, metadata, provenance)
        existing = [name for name in new.ids.tolist() if name in self]
        if existing:
            raise InputError(f"index: id {existing[0]!r} is there already, expected a new one (or `update`)")
        self._append(new)

    def update(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Replace the vectors and metadata of existing items.

        Args:
            vectors: [n, D] numbers.
            ids: n ids of the index.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Raises:
            InputError: as `add`, or an unknown id.
        """
        new = self.check(vectors, ids, metadata, provenance)
        self._drop(self._items.find(new.ids, "index"))
        self._append(new)

    def remove(self, ids: Sequence[Any] | np.ndarray) -> None:
        """Remove items.

        Args:
            ids: ids of the index.

        Raises:
            InputError: an unknown id; nothing is removed then.
        """
        self._drop(self._items.find(ids, "index"))

    def check(
        self, vectors: Any, ids: Any, metadata: Any = None, provenance: Mapping[str, str] | None = None
    ) -> Items:
        """Validate items as `add` and `update` do, without changing the index.

        Args:
            vectors: [n, D] numbers.
            ids: n ids; they may exist already.
            metadata: the columns of the index, n values each; None if it has none.
            provenance: what made the vectors; must equal the provenance of the index.

        Returns:
            The validated items, with metadata columns in the order of the index.

        Raises:
            InputError: as `add`, except for ids that already exist.
        """
        check_provenance(self.provenance, provenance, "index")
        return self._items.aligned(Items.validated(vectors, ids, metadata, self.metric))

    def _append(self, new: Items) -> None:
        self._items = self._items.concatenated(new)
        self.engine.add(self._items.vectors, new.vectors)

    def _drop(self, rows: np.ndarray) -> None:
        keep = np.ones(len(self), dtype=bool)
        keep[rows] = False
        self._items = self._items.take(keep)
        self.engine.remove(self._items.vectors, keep)

    def with_integer_ids(self) -> Index:
        """The same vectors under the ids 0 to N - 1, without metadata."""
        items = Items(self._items.vectors, np.arange(len(self)), as_metadata_table(None, len(self)))
        return Index(items, self.metric, self.provenance, self.engine)

    # --- storage ---------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder, atomically: an interrupted save leaves the old or the new state.

        Args:
            folder: new, empty, or a bundle that is replaced.

        Raises:
            InputError: the folder holds something else, or metadata that parquet cannot store.
        """
        index_files.save(folder, self._items, self.metric, self.provenance, self.engine)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> Index:
        """Open a folder written by `save`, after checking the hash of every file.

        The vectors stay on disk and are mapped into memory.

        `mmattn.retrieval.open_index.open_index` opens any kind of index.

        Args:
            folder: the bundle.
            device: as in `build`.

        Raises:
            InputError: there is no such index, or it is damaged; the message names the file and the damage.
        """
        return open_bundle(folder, lambda opened: cls.from_bundle(opened, device))

    @classmethod
    def from_bundle(cls, opened: OpenedBundle, device: str = "auto") -> Index:
        """Restore the index of a verified bundle.

        Args:
            opened: the bundle.
            device: as in `build`.

        Raises:
            InputError: files that are inconsistent with each other or the manifest.
        """
        return cls(*index_files.load(opened, device))

    def split(self, parts: int) -> list[Index]:
        """Split the items into parts of about equal size, each with its own search plan.

        Args:
            parts: number of parts, at most the number of items.

        Raises:
            InputError: `parts` is out of range.

        Example:
            >>> [half.ids.tolist() for half in Index.build(np.eye(4), ["a", "b", "c", "d"]).split(2)]
            [['a', 'b'], ['c', 'd']]
        """
        if type(parts) is not int or not 1 <= parts <= len(self):
            raise InputError(
                f"split: got {parts!r} shards, expected 1 to {len(self)}, the number of items there are"
            )
        ends = np.linspace(0, len(self), parts + 1).astype(int)
        return [self._slice(start, end) for start, end in pairwise(ends)]

    def _slice(self, start: int, end: int) -> Index:
        """Index of a range of rows, with a search plan for that number of rows."""
        items = self._items.take(slice(start, end))
        recall, kind = self.engine.selected_plan.target_recall, "auto" if self.approximate else "exact"
        engine = SearchEngine.build(items.vectors, self.metric, target_recall=recall, kind=kind)
        return Index(items, self.metric, self.provenance, engine)
