"""LanceDB, embedded: vectors of an index in a table of a vector database, and the same searches there.

pip install 'mmattn[lancedb]'
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.errors import InputError, MissingDependency
from mmattn.retrieval.checks import check_provenance, check_vectors
from mmattn.retrieval.index import Hits, Index
from mmattn.retrieval.search.exact import Metric
from mmattn.retrieval.storage.arrow import VectorTable, to_arrow

__all__ = ["LanceTable"]

_PROVENANCE_KEY = b"mmattn.provenance"
_METRIC_KEY = b"mmattn.metric"
_LANCE_METRICS: dict[Metric, str] = {"ip": "dot", "l2": "l2", "cosine": "cosine"}


class LanceTable:
    """A LanceDB table that answers as the index it was written from.

    Args:
        folder: of the database.
        name: of the table.

    Raises:
        InputError: no such table, or one that `LanceTable.write` has not made.
        MissingDependency: LanceDB is not installed.

    Example:
        >>> import tempfile
        >>> films = Index.build(np.eye(3), ["a", "b", "c"], metadata={"year": [1995, 1999, 2001]})
        >>> table = LanceTable.write(films, tempfile.mkdtemp(), "films")
        >>> table.search([[0.1, 0.2, 0.9]], k=2, where="year < 2000").ids.tolist()
        [['b', 'a']]
    """

    def __init__(self, folder: str | Path, name: str):
        try:
            self.table: Any = _import_lancedb().connect(str(folder)).open_table(name)
        except (ValueError, FileNotFoundError) as error:
            raise InputError(
                f"{folder}: no table {name!r}, expected one that LanceTable.write made"
            ) from error
        described = self.table.schema.metadata or {}
        if _METRIC_KEY not in described:
            raise InputError(
                f"{folder}: table {name!r} does not say its metric, expected one of LanceTable.write"
            )
        self.metric: Metric = described[_METRIC_KEY].decode()
        origin = described.get(_PROVENANCE_KEY)
        self.provenance: Mapping[str, str] | None = None if origin is None else json.loads(origin)

    @classmethod
    def write(cls, index: Index, folder: str | Path, name: str) -> LanceTable:
        """Write everything that an index holds as a new table, replacing one of that name.

        Args:
            index: the index.
            folder: of the database.
            name: of the table.
        """
        table = to_arrow(VectorTable.from_index(index))
        described = {**(table.schema.metadata or {}), _METRIC_KEY: index.metric.encode()}
        _import_lancedb().connect(str(folder)).create_table(
            name, table.replace_schema_metadata(described), mode="overwrite"
        )
        return cls(folder, name)

    def __len__(self) -> int:
        """Number of items."""
        return self.table.count_rows()

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        where: str | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> Hits:
        """The k best items of each query; `where` is a condition in SQL, applied before the search.

        Args:
            queries: [Q, D].
            k: number of hits.
            where: condition in SQL, applied before the search.
            provenance: part -> fingerprint of what made the queries.

        Raises:
            InputError: a NaN, another width, vectors of another origin, or a condition LanceDB refuses.
        """
        if provenance is not None:
            check_provenance(self.provenance, provenance, "search")
        rows = check_vectors(queries, "queries", lambda row: f"query {row}")
        width = self.table.schema.field("vector").type.list_size
        if rows.shape[1] != width:
            raise InputError(f"queries: got width {rows.shape[1]}, expected {width} as in the table")
        results = [self._search_one(row, k, where) for row in rows]
        most = min([k, *(len(ids) for ids, _ in results)])
        ids = np.array([ids[:most] for ids, _ in results])
        return Hits(
            ids if ids.dtype.kind == "i" else ids.astype(object),
            np.array([scores[:most] for _, scores in results], np.float32),
        )

    def _search_one(self, query: np.ndarray, k: int, where: str | None) -> tuple[list[Any], np.ndarray]:
        request = (
            self.table.search(query, vector_column_name="vector")
            .distance_type(_LANCE_METRICS[self.metric])
            .limit(k)
        )
        try:
            answer = (request if where is None else request.where(where, prefilter=True)).to_arrow()
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"LanceDB: the search was refused ({' '.join(str(error).split())[:200]})"
            ) from error
        far = answer["_distance"].to_numpy()
        return answer["id"].to_pylist(), -far if self.metric == "l2" else 1 - far


def _import_lancedb() -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise MissingDependency("LanceDB is not installed: pip install 'mmattn[lancedb]'") from error
    return lancedb
