"""The index: vectors with ids, metadata and the hash of what made them; found by vector, by id, by filter."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from mmattn.errors import InputError, nearest
from mmattn.retrieval import storage
from mmattn.retrieval.ann import EXACT_BELOW, FEWEST, AnnSearch, choose
from mmattn.retrieval.bundle import open_bundle, save_bundle
from mmattn.retrieval.checks import check_ids, check_provenance, check_vectors, unit_length
from mmattn.retrieval.exact import METRICS, ExactSearch, Metric, pair_scores
from mmattn.retrieval.filters import matching
from mmattn.retrieval.plan import Plan

__all__ = ["Hits", "Index"]


@dataclass(frozen=True, eq=False)
class Hits:
    """What was found for Q queries, best first.

    Args:
        ids: [Q, k] ids of the items.
        scores: [Q, k] float32, higher is better (minus the squared distance for "l2").
    """

    ids: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)

    def to_lists(self) -> list[list[tuple[Any, float]]]:
        """(id, score) pairs of each query."""
        return [
            list(zip(ids, scores, strict=True))
            for ids, scores in zip(self.ids.tolist(), self.scores.tolist(), strict=True)
        ]


class Index:
    """Vectors that can be searched. Made by `Index.build`.

    Example:
        >>> films = Index.build(np.eye(3), ["a", "b", "c"], metadata={"year": [1995, 1999, 2001]})
        >>> films.search([[0.1, 0.2, 0.9]], k=2).to_lists()
        [[('c', 0.8999999761581421), ('b', 0.20000000298023224)]]
        >>> films.search([[0.1, 0.2, 0.9]], k=2, where="year < 2000").ids.tolist()
        [['b', 'a']]
    """

    def __init__(
        self,
        vectors: np.ndarray,
        ids: np.ndarray,
        metric: Metric,
        metadata: pd.DataFrame,
        provenance: Mapping[str, str] | None,
        plan: Plan | None = None,
        ann: AnnSearch | None = None,
    ):
        self.metric = metric
        self._plan = plan or Plan("exact search", 1.0, 10)
        self._ann = ann
        self.provenance = None if provenance is None else dict(provenance)
        self._take(vectors, ids, metadata)

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
            kind: "exact", "ann" (where one reaches the recall), or "auto": exact for fewer than 50,000.

        Raises:
            InputError: NaN, another dimension, ids that come twice, a row of zeros for "cosine", ...
        """
        if metric not in METRICS:
            raise InputError(f"index: no metric {metric!r}.{nearest(str(metric), METRICS)}")
        rows, names, table = _checked(vectors, ids, metadata, metric, None)
        if not 0 < target_recall <= 1:
            raise InputError(f"index: got target_recall={target_recall}, expected more than 0 and at most 1")
        if kind not in ("auto", "exact", "ann"):
            raise InputError(f"index: no kind {kind!r}.{nearest(str(kind), ('auto', 'exact', 'ann'))}")
        asked = kind == "exact" or target_recall == 1
        if asked or len(rows) < (EXACT_BELOW if kind == "auto" else FEWEST):
            why = "as asked" if asked else f"only {len(rows):,} vectors"
            return cls(rows, names, metric, table, provenance, Plan(f"exact search: {why}", 1.0, 10))
        ann, plan = choose(rows, metric, target_recall=target_recall, budget_mb=budget_mb)
        return cls(rows, names, metric, table, provenance, plan, ann)

    def plan(self) -> Plan:
        """How it searches, and why: recall, speed, memory and build time of everything that was tried."""
        return self._plan

    def _take(self, vectors: np.ndarray, ids: np.ndarray, metadata: pd.DataFrame) -> None:
        self._vectors = vectors
        self._ids = ids
        self._metadata = metadata
        self._places = pd.Index(ids)
        self._exact = ExactSearch(vectors, self.metric)

    # --- what it holds ---------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of items."""
        return len(self._ids)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @property
    def dim(self) -> int:
        """Width D of a vector."""
        return self._vectors.shape[1]

    @property
    def ids(self) -> np.ndarray:
        """[N] ids, in the order in which items were added."""
        return self._ids

    @property
    def metadata(self) -> pd.DataFrame:
        """One row an item, in the order of `ids`."""
        return self._metadata

    def vectors(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """[n, D] vectors of the named items.

        Raises:
            InputError: an id that is not there.
        """
        return self._vectors[self._find(ids, "index")]

    @property
    def approximate(self) -> bool:
        """Does a search look at a part of the vectors only?"""
        return self._ann is not None

    def scores(self, query: Any, ids: Sequence[Any]) -> np.ndarray:
        """[n] scores of one query [D] with the named items, as `search` has them.

        Raises:
            InputError: an id that is not there, or a bad query.
        """
        rows = self._checked_queries(np.asarray(query)[None])
        chosen = torch.from_numpy(self.vectors(ids))
        return pair_scores(torch.from_numpy(rows), chosen[None], self.metric)[0].numpy()

    def __repr__(self) -> str:
        return f"Index({len(self):,} vectors of width {self.dim}, {self.metric})"

    # --- search ----------------------------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: str | None = None,
        among: Collection[Any] | None = None,
        provenance: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> Hits:
        """The k best items of each query.

        Args:
            queries: [Q, D] numbers.
            k: how many, at most as many as there are items.
            where: a condition over the metadata (see `mmattn.retrieval.filters`); k items that meet it
                come back, or all there are.
            among: ids of the only items to look at.
            provenance: what made the queries, compared with what made the index.
            exact: look at every vector, whatever the plan says.

        Raises:
            InputError: a NaN, another dimension, another origin, k out of range, an empty index, an unknown
                id, or a filter that does not parse.
        """
        if provenance is not None:
            check_provenance(self.provenance, provenance, "search")
        self._check_k(k)
        rows = self._checked_queries(queries)
        return self._hits(*self._search(rows, k, self._allowed(where, among), exact))

    def search_ids(
        self,
        ids: Sequence[Any],
        k: int = 10,
        *,
        where: str | None = None,
        among: Collection[Any] | None = None,
    ) -> Hits:
        """The k items most like each named one, itself left out.

        Raises:
            InputError: as `search`, or an id that is not there.
        """
        own = self._find(ids, "search")
        self._check_k(k, len(self) - 1)
        allowed = self._allowed(where, among)
        scores, rows = self._search(self._vectors[own], k + 1, allowed)
        # Every line loses one: its own place where that was found, the last one where it was not.
        keep = rows != own[:, None]
        absent = keep.all(1)
        if rows.shape[1] > k or not absent.all():
            keep[absent, -1] = False
        width = int(keep.sum(1).min()) if len(keep) else 0
        return self._hits(scores[keep].reshape(-1, width), rows[keep].reshape(-1, width))

    def _search(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and rows [Q, k], or fewer columns where the filter leaves fewer rows."""
        few = rows is not None and len(rows) <= max(EXACT_BELOW // 4, 4 * k)
        if self._ann is None or few or exact:
            return self._exact(queries, k, rows)
        scores, found = self._ann.search(self._vectors, queries, k, rows)
        # A filter may leave nothing in the lists that were probed: these queries see everything.
        short = np.flatnonzero((found < 0).any(1)) if found.shape[1] == k else np.arange(len(queries))
        if len(short) == len(queries):
            return self._exact(queries, k, rows)
        if len(short):
            scores[short], found[short] = self._exact(queries[short], k, rows)
        return scores, found

    def _hits(self, scores: np.ndarray, rows: np.ndarray) -> Hits:
        return Hits(self._ids[rows], scores)

    def _check_k(self, k: int, most: int | None = None) -> None:
        if not len(self):
            raise InputError("search: the index is empty, expected items to find")
        most = len(self) if most is None else most
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= most:
            raise InputError(f"search: got k={k!r}, expected 1 to {most}, the number of items there are")

    def _checked_queries(self, queries: Any) -> np.ndarray:
        rows = check_vectors(queries, "queries", lambda row: f"query {row}")
        if rows.shape[1] != self.dim:
            raise InputError(f"queries: got width {rows.shape[1]}, expected {self.dim} as in the index")
        return unit_length(rows, "queries", lambda row: f"query {row}") if self.metric == "cosine" else rows

    def _allowed(self, where: str | None, among: Collection[Any] | None) -> np.ndarray | None:
        """[R] ascending rows that the filters leave; None where there is no filter."""
        if where is None and among is None:
            return None
        keep = np.ones(len(self), dtype=bool)
        if among is not None:
            keep[:] = False
            keep[self._find(list(among), "filter")] = True
        if where is not None:
            keep &= matching(where, self._metadata)
        return np.flatnonzero(keep)

    def _find(self, ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
        if isinstance(ids, str) or not isinstance(ids, (Sequence, np.ndarray)):
            raise InputError(f"{what}: got {ids!r}, expected a list of ids")
        rows = self._places.get_indexer(pd.Index(ids, dtype=self._ids.dtype if not len(ids) else None))
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            name = list(ids)[unknown[0]]
            hint = nearest(name, self._ids.tolist()) if isinstance(name, str) and len(self) < 10_000 else ""
            raise InputError(f"{what}: {len(unknown)} unknown ids, the first is {name!r}.{hint}")
        return rows

    # --- on the disk -----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the index to a folder; a kill at any moment leaves what was there, or the whole of this.

        Raises:
            InputError: the folder holds something else, or metadata that parquet cannot hold.
        """
        save_bundle(folder, self._facts(), self._writers())

    def _facts(self) -> dict[str, Any]:
        return {
            "count": len(self),
            "dim": self.dim,
            "metric": self.metric,
            "ids": "number" if self._ids.dtype == np.int64 else "text",
            "provenance": self.provenance,
            "plan": self._plan.to_dict(),
            "ann": None if self._ann is None else asdict(self._ann.settings),
        }

    def _writers(self) -> dict[str, Callable[[Path], None]]:
        writers = {
            "vectors.npy": storage.write_array(self._vectors),
            "items.parquet": storage.write_items(self._ids, self._metadata),
        }
        if self._ann is not None:
            writers |= {"ann.faiss": self._ann.write, "places.npy": storage.write_array(self._ann.places)}
        return writers

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Open what `save` wrote, after checking the hash of every file; vectors stay on the disk.

        Raises:
            InputError: there is no index, or it is damaged: which file, and how, is said.
        """
        opened = open_bundle(folder)
        storage.check_facts(opened)
        vectors = storage.read_vectors(opened)
        ids, metadata = storage.read_items(opened)
        check_ids(ids, str(opened.files["items"]))
        plan, ann = storage.read_search(opened)
        return cls(vectors, ids, opened.facts["metric"], metadata, opened.facts["provenance"], plan, ann)

    # --- change ----------------------------------------------------------------------------------

    def add(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Add items; all of them or, where something is wrong, none.

        Raises:
            InputError: as `build`; an id that is there already; other metadata columns; vectors of
                another origin than those of the index.
        """
        rows, names, table = self._new(vectors, ids, metadata, provenance)
        there = [name for name in names.tolist() if name in self._places]
        if there:
            raise InputError(f"index: id {there[0]!r} is there already, expected a new one (or `update`)")
        self._append(rows, names, table)

    def update(
        self,
        vectors: Any,
        ids: Sequence[Any] | np.ndarray,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        """Replace items that are there: vectors and metadata.

        Raises:
            InputError: as `add`, or an id that is not there.
        """
        rows, names, table = self._new(vectors, ids, metadata, provenance)
        old = self._find(names.tolist(), "index")
        self._drop(old)
        self._append(rows, names, table)

    def remove(self, ids: Sequence[Any]) -> None:
        """Remove items.

        Raises:
            InputError: an id that is not there; nothing is removed then.
        """
        self._drop(self._find(ids, "index"))

    def _new(
        self, vectors: Any, ids: Any, metadata: Any, provenance: Mapping[str, str] | None
    ) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
        check_provenance(self.provenance, provenance, "index")
        rows, names, table = _checked(vectors, ids, metadata, self.metric, self._metadata)
        if rows.shape[1] != self.dim:
            raise InputError(f"index: got vectors of width {rows.shape[1]}, expected {self.dim}")
        if len(self) and names.dtype != self._ids.dtype:
            kinds = {True: "whole numbers", False: "text"}
            raise InputError(
                f"index: got ids that are {kinds[names.dtype == np.int64]}, "
                f"expected {kinds[self._ids.dtype == np.int64]} as in the index"
            )
        return rows, names, table

    def _append(self, rows: np.ndarray, names: np.ndarray, table: pd.DataFrame) -> None:
        ids = np.concatenate([self._ids, names]) if len(self) else names
        metadata = pd.concat([self._metadata, table], ignore_index=True) if len(self) else table
        if self._ann is not None:
            self._ann.added(rows, len(self))
        self._take(np.concatenate([self._vectors, rows]), ids, metadata)

    def _drop(self, rows: np.ndarray) -> None:
        keep = np.ones(len(self), dtype=bool)
        keep[rows] = False
        if self._ann is not None:
            self._ann.dropped(keep)
        self._take(self._vectors[keep], self._ids[keep], self._metadata[keep].reset_index(drop=True))


def _checked(
    vectors: Any, ids: Any, metadata: Any, metric: Metric, like: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Vectors, ids and metadata that fit each other."""
    count = len(vectors)
    if not count:
        raise InputError("index: got no vectors, expected at least one")
    names = check_ids(np.arange(count) if ids is None else ids, "index")
    if len(names) != count:
        raise InputError(f"index: got {len(names)} ids for {count} vectors")
    rows = check_vectors(vectors, "vectors", lambda row: f"id {names[row]!r}")
    if metric == "cosine":
        rows = unit_length(rows, "vectors", lambda row: f"id {names[row]!r}")
    table = _table(metadata, count)
    if like is not None and set(table.columns) != set(like.columns):
        raise InputError(
            f"index: got metadata columns {sorted(map(str, table.columns))}, "
            f"expected {sorted(map(str, like.columns))} as in the index"
        )
    return rows, names, table if like is None else table[list(like.columns)]


def _table(metadata: Any, count: int) -> pd.DataFrame:
    if metadata is None:
        return pd.DataFrame(index=range(count))
    try:
        table = pd.DataFrame(metadata).reset_index(drop=True)
    except ValueError as error:
        raise InputError(f"index: the metadata is no table ({error})") from error
    if len(table) != count:
        raise InputError(f"index: got metadata of {len(table)} rows for {count} vectors")
    if "id" in table.columns or not all(isinstance(name, str) for name in table.columns):
        raise InputError("index: metadata columns need names other than 'id', which the ids have")
    return table
