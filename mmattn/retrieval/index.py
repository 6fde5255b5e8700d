"""The index: vectors with ids, metadata and the hash of what made them; found by vector, by id, by filter."""

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
    """Vectors that can be searched. Made by `Index.build`, or opened from a bundle by `Index.open`.

    Args:
        items: ids, vectors and metadata.
        metric: "ip", "cosine" or "l2".
        provenance: part -> fingerprint of what made the vectors; None if unknown.
        engine: how it searches.

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
            vectors: [N, D] numbers, N at least 1; kept in float32 ("cosine": at unit length).
            ids: N distinct texts or whole numbers; left out, 0 to N - 1.
            metric: "ip" (inner product), "l2" (squared distance) or "cosine".
            metadata: columns with N values each, for filters; lists may be values.
            provenance: what made the vectors, part -> fingerprint. Vectors of another origin are refused
                from then on.
            target_recall: share of the true 10 nearest that a search has to find; 1 is exact search.
            budget_mb: memory that an approximate index may take beside the vectors.
            kind: "exact", "ann" (where one reaches the recall), or "auto": exact for fewer than 50,000, and
                for more where that is measured to be quicker, as on a GPU it may well be.
            device: "auto" (a GPU where one has room), "cpu", "cuda", "cuda:1"; see `plan`.

        Raises:
            InputError: NaN, another dimension, ids that come twice, a row of zeros for "cosine", no such
                device, ...
        """
        if metric not in METRICS:
            raise InputError(f"index: no metric {metric!r}.{did_you_mean(str(metric), METRICS)}")
        items = Items.validated(vectors, ids, metadata, metric)
        engine = SearchEngine.build(
            items.vectors, metric, target_recall=target_recall, budget_mb=budget_mb, kind=kind, device=device
        )
        return cls(items, metric, provenance, engine)

    def plan(self) -> SearchPlan:
        """How it searches, where, and why: recall, speed, memory and build time of everything tried."""
        return self.engine.plan()

    # --- what it holds ---------------------------------------------------------------------------

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
        """[N] ids, in the order in which items were added."""
        return self._items.ids

    @property
    def matrix(self) -> np.ndarray:
        """[N, D] float32, all vectors in the order of `ids`; read only where it is mapped from a bundle."""
        return self._items.vectors

    @property
    def metadata(self) -> pd.DataFrame:
        """One row an item, in the order of `ids`."""
        return self._items.metadata

    @property
    def approximate(self) -> bool:
        """Does a search look at a part of the vectors only?"""
        return self.engine.ann is not None

    @property
    def device(self) -> Placement:
        """Where it searches, and why."""
        return self.engine.placement

    def vectors(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Return the vectors of some items, [n, D].

        Args:
            ids: [n] ids.

        Raises:
            InputError: an id that is not there.
        """
        result: np.ndarray = self._items.vectors[self._items.find(ids, "index")]
        return result

    def scores(self, query: Any, ids: Sequence[Any]) -> np.ndarray:
        """Return the scores of one query with some items, [n], as `search` computes them.

        Args:
            query: [D].
            ids: [n] ids.

        Raises:
            InputError: an id that is not there, or a bad query.
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
        """The k best items of each query.

        Args:
            queries: [Q, D] numbers.
            k: how many, at most as many as there are items.
            where: a condition over the metadata (see `mmattn.retrieval.filters`); k items that meet it
                come back, or all there are.
            allowed_ids: ids of the only items to look at.
            provenance: what made the queries, compared with what made the index.
            exact: look at every vector, whatever the plan says.

        Raises:
            InputError: a NaN, another dimension, another origin, k out of range, an empty index, an unknown
                id, or a filter that does not parse.
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
        """Search for the k items most similar to each given item, without itself.

        Args:
            ids: [Q] ids.
            k: number of hits.
            where: filter on the metadata.
            allowed_ids: items that may be found; None for all.

        Raises:
            InputError: as `search`, or an id that is not there.
        """
        own = self._items.find(ids, "search")
        check_k(k, len(self), len(self) - 1)
        found = self._search_rows(
            self._items.vectors[own], k + 1, self._items.filter_rows(where, allowed_ids)
        )
        return drop_self_hits(found, self.ids[own], k)

    def _search_rows(self, queries: np.ndarray, k: int, rows: np.ndarray | None, exact: bool = False) -> Hits:
        scores, found = self.engine.search(queries, k, rows, exact=exact)
        return Hits(self.ids[found], scores)

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
        """Add items: all of them, or none if something is wrong.

        Args:
            vectors: [n, D].
            ids: [n] new ids.
            metadata: columns with one value an item.
            provenance: part -> fingerprint of what made the vectors.

        Raises:
            InputError: as `build`; an id that is there already; other metadata columns; vectors of
                another origin than those of the index.
        """
        new = self.check(vectors, ids, metadata, provenance)
        there = [name for name in new.ids.tolist() if name in self]
        if there:
            raise InputError(f"index: id {there[0]!r} is there already, expected a new one (or `update`)")
        self._append(new)

    def update(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Replace vectors and metadata of items.

        Args:
            vectors: [n, D].
            ids: [n] known ids.
            metadata: columns with one value an item.
            provenance: part -> fingerprint of what made the vectors.

        Raises:
            InputError: as `add`, or an id that is not there.
        """
        new = self.check(vectors, ids, metadata, provenance)
        self._drop(self._items.find(new.ids, "index"))
        self._append(new)

    def remove(self, ids: Sequence[Any] | np.ndarray) -> None:
        """Remove items.

        Args:
            ids: of the items.

        Raises:
            InputError: an id that is not there; nothing is removed then.
        """
        self._drop(self._items.find(ids, "index"))

    def check(
        self, vectors: Any, ids: Any, metadata: Any = None, provenance: Mapping[str, str] | None = None
    ) -> Items:
        """Return the items that `add` or `update` would take, without taking them.

        Args:
            vectors: [n, D].
            ids: [n] ids.
            metadata: columns with one value an item.
            provenance: part -> fingerprint of what made the vectors.

        Raises:
            InputError: as `add`, but for ids that are there already.
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

    # --- on the disk -----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder; a kill at any moment leaves what was there, or the whole of this.

        Args:
            folder: of the bundle.

        Raises:
            InputError: the folder holds something else, or metadata that parquet cannot hold.
        """
        index_files.save(folder, self._items, self.metric, self.provenance, self.engine)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto") -> Index:
        """Open what `save` wrote, after checking the hash of every file; vectors stay on the disk.

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
        """The index of a bundle whose files were checked.

        Args:
            opened: bundle whose files were checked.
            device: "auto", "cpu" or a CUDA device.

        Raises:
            InputError: files that are what they were, but do not fit each other.
        """
        return cls(*index_files.load(opened, device))

    def split(self, parts: int) -> list[Index]:
        """Split the items into parts of about equal size, each with the index that is best for its size.

        Args:
            parts: number of parts.

        Raises:
            InputError: fewer than 1 part, or more than items.

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
        """An index of some rows, that searches as is best for so many."""
        items = self._items.take(slice(start, end))
        recall, kind = self.engine.selected_plan.target_recall, "auto" if self.approximate else "exact"
        engine = SearchEngine.build(items.vectors, self.metric, target_recall=recall, kind=kind)
        return Index(items, self.metric, self.provenance, engine)
