"""Vectors as Arrow tables and parquet files: the output of `mmattn embed`, readable by vector databases.

The columns are `id`, `vector` (fixed-size lists of float32) and the metadata; the provenance is stored in the
schema metadata.
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
    """Vectors with ids, metadata and provenance; the fields are arguments of `Index.build` and `Index.add`.

    Args:
        vectors: [N, D] float32.
        ids: [N] int64, or objects that are all text.
        metadata: one row per vector; may have no columns.
        provenance: what made the vectors, part -> fingerprint; None if unknown.
    """

    vectors: np.ndarray
    ids: np.ndarray
    metadata: pd.DataFrame
    provenance: Mapping[str, str] | None = None

    @classmethod
    def from_index(cls, index: Index | ShardedIndex) -> VectorTable:
        """Take the complete content of an index.

        Args:
            index: its vectors are copied to memory.
        """
        return cls(index.vectors(index.ids), index.ids, index.metadata, index.provenance)


def to_arrow(vectors: VectorTable) -> pa.Table:
    """Convert vectors to an Arrow table with the columns id, vector and the metadata.

    Args:
        vectors: vectors with ids and metadata; no metadata column may be called "vector".

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
    """Write vectors to a parquet file, atomically.

    Args:
        vectors: vectors with ids and metadata.
        path: the file.
    """
    table = to_arrow(vectors)
    with atomic_path(path) as temporary:
        pa.parquet.write_table(table, temporary)


def export_parquet(index: Index | ShardedIndex, path: str | Path, *, batch_rows: int = 2**16) -> None:
    """Write the content of an index to a parquet file, atomically and in batches.

    Only one batch is in memory at a time, so the vectors may exceed the memory.

    Args:
        index: the index.
        path: the file.
        batch_rows: rows per batch.

    Raises:
        InputError: a metadata column is called "vector".
    """
    ids = index.ids
    table = _without_vectors(ids, index.metadata, index.provenance)
    schema = _with_vectors(table.slice(0, 0), np.empty((0, index.dim))).schema
    with atomic_path(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(ids), batch_rows):
            part = table.slice(start, batch_rows)
            writer.write_table(_with_vectors(part, index.vectors(ids[start : start + batch_rows])))


def read_vectors(path: str | Path) -> VectorTable:
    """Read vectors from a parquet file with the columns `id`, `vector` and any others (metadata).

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or not parquet, lacks a column, or has vectors of different lengths.
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
    """Concatenate parquet files into one, atomically.

    Args:
        parts: files with equal columns; files without rows are skipped.
        path: the file to write.

    Returns:
        Number of rows written.

    Raises:
        InputError: a part that cannot be read, or no rows in any part.
    """
    rows = 0
    try:
        filled = [part for part in parts if pa.parquet.read_metadata(part).num_rows]
        if not filled:
            raise InputError(f"{path}: no item has any content, so there is nothing to write")
        schema = pa.parquet.read_schema(filled[0])
        # One part in memory at a time: all parts together may exceed the memory.
        with atomic_path(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
            for part in filled:
                table = pa.parquet.read_table(part)
                writer.write_table(table)
                rows += len(table)
    except pa.ArrowException as error:
        raise InputError(f"{path}: a part cannot be read ({' '.join(str(error).split())})") from error
    return rows
