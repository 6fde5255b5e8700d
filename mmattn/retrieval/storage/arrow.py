"""Vectors as Arrow tables and parquet files: what `mmattn embed` writes and vector databases read.

The columns are `id`, `vector` (a list of float32 of fixed length) and the metadata; what made the vectors
stands in the schema's metadata, and comes back with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from mmattn.errors import InputError
from mmattn.files import atomic_path
from mmattn.retrieval.checks import check_ids
from mmattn.retrieval.index import Index
from mmattn.retrieval.sharded import ShardedIndex

__all__ = ["VectorTable", "export_parquet", "join_parquet", "read_vectors", "to_arrow", "write_parquet"]

_PROVENANCE_KEY = b"mmattn.provenance"


@dataclass(frozen=True, eq=False)
class VectorTable:
    """Vectors with their ids, metadata and origin, the arguments of `Index.build` and `Index.add`."""

    vectors: np.ndarray
    ids: np.ndarray
    metadata: pd.DataFrame
    provenance: Mapping[str, str] | None = None

    @classmethod
    def from_index(cls, index: Index | ShardedIndex) -> VectorTable:
        """Everything that an index holds.

        Args:
            index: the index.
        """
        return cls(index.vectors(index.ids), index.ids, index.metadata, index.provenance)


def to_arrow(vectors: VectorTable) -> pa.Table:
    """The table of the vectors.

    Args:
        vectors: ids, vectors and columns.

    Example:
        >>> index = Index.build(np.eye(2), ["a", "b"], metadata={"year": [1995, 1999]})
        >>> to_arrow(VectorTable.from_index(index)).schema.names
        ['id', 'vector', 'year']
    """
    return _with_vectors(_without_vectors(vectors.ids, vectors.metadata, vectors.provenance), vectors.vectors)


def _without_vectors(
    ids: np.ndarray, metadata: pd.DataFrame, provenance: Mapping[str, str] | None
) -> pa.Table:
    """The table without the vectors."""
    columns = {"id": pa.array(ids.tolist(), pa.int64() if ids.dtype == np.int64 else pa.string())}
    for name in metadata.columns:
        if name == "vector":
            raise InputError("export: metadata column 'vector' has the name of the vectors, rename it")
        columns[name] = pa.array(metadata[name], from_pandas=True)
    origin = {} if provenance is None else {_PROVENANCE_KEY: json.dumps(dict(provenance))}
    return pa.table(columns).replace_schema_metadata(origin)


def _with_vectors(table: pa.Table, vectors: np.ndarray) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return table.add_column(1, "vector", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))


def write_parquet(vectors: VectorTable, path: str | Path) -> None:
    """Write the table of the vectors, atomically.

    Args:
        vectors: ids, vectors and columns.
        path: of the parquet file.
    """
    table = to_arrow(vectors)
    with atomic_path(path) as temporary:
        pa.parquet.write_table(table, temporary)


def export_parquet(index: Index | ShardedIndex, path: str | Path, *, batch_rows: int = 2**16) -> None:
    """Write everything that an index holds as a table of vectors, atomically.

    So many rows are in memory at a time: vectors that lie on the disk may be more than fit there.

    Args:
        index: the index.
        path: of the parquet file.
        batch_rows: rows in memory at a time.

    Raises:
        InputError: a metadata column has the name of the vectors.
    """
    ids = index.ids
    table = _without_vectors(ids, index.metadata, index.provenance)
    schema = _with_vectors(table.slice(0, 0), np.empty((0, index.dim))).schema
    with atomic_path(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(ids), batch_rows):
            part = table.slice(start, batch_rows)
            writer.write_table(_with_vectors(part, index.vectors(ids[start : start + batch_rows])))


def read_vectors(path: str | Path) -> VectorTable:
    """Read a table of vectors: a parquet file with `id`, `vector` and any other columns.

    Args:
        path: of the parquet file.

    Raises:
        InputError: no such file, no parquet, or columns that are not there or not of such kinds.
    """
    try:
        table = pa.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from error
    if not {"id", "vector"} <= set(table.column_names):
        raise InputError(f"{path}: got columns {table.column_names}, expected id, vector and any others")
    lists = table["vector"].combine_chunks()
    values = lists.flatten() if hasattr(lists, "flatten") else None
    if values is None or lists.null_count or len(values) == 0 or len(values) % len(table):
        raise InputError(f"{path}: column 'vector' holds {lists.type}, expected lists of one length")
    lengths = np.unique(pa.compute.list_value_length(lists).to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        raise InputError(f"{path}: vectors of {lengths[0]} to {lengths[-1]} numbers, expected one length")
    rows = values.to_numpy(zero_copy_only=False).reshape(len(table), -1)
    rest = table.drop_columns(["id", "vector"])
    metadata = rest.to_pandas() if rest.column_names else pd.DataFrame(index=range(len(table)))
    written = (table.schema.metadata or {}).get(_PROVENANCE_KEY)
    ids = check_ids(table["id"].to_pylist(), str(path))
    return VectorTable(rows, ids, metadata, None if written is None else json.loads(written))


def join_parquet(parts: Sequence[Path], path: str | Path) -> int:
    """Write the tables of several files as one, atomically, and return its number of rows.

    Args:
        parts: files with the same columns.
        path: of the result.

    Raises:
        InputError: a part that cannot be read, or nothing in any of them.
    """
    rows = 0
    try:
        filled = [part for part in parts if pa.parquet.read_metadata(part).num_rows]
        if not filled:
            raise InputError(f"{path}: no item has any content, so there is nothing to write")
        schema = pa.parquet.read_schema(filled[0])
        # One part in memory at a time: all of them together may be more than there is.
        with atomic_path(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
            for part in filled:
                table = pa.parquet.read_table(part)
                writer.write_table(table)
                rows += len(table)
    except pa.ArrowException as error:
        raise InputError(f"{path}: a part cannot be read ({' '.join(str(error).split())})") from error
    return rows
