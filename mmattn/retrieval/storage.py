"""An index on the disk: its vectors, ids and metadata as the files of a bundle, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from mmattn.errors import InputError
from mmattn.retrieval.bundle import Opened
from mmattn.retrieval.exact import METRICS

__all__ = ["check_facts", "read_items", "read_vectors", "write_items", "write_vectors"]


def write_vectors(vectors: np.ndarray) -> Callable[[Path], None]:
    """What writes vectors as an .npy file."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)

    return write


def write_items(ids: np.ndarray, metadata: pd.DataFrame) -> Callable[[Path], None]:
    """What writes ids and metadata as a parquet file.

    Raises:
        InputError: a column that parquet cannot hold, text and numbers together for example.
    """
    kind = pa.int64() if ids.dtype == np.int64 else pa.string()
    try:
        table = pa.table({"id": pa.array(ids.tolist(), kind)})
        for name in metadata.columns:
            table = table.append_column(name, pa.array(metadata[name], from_pandas=True))
    except (pa.ArrowException, UnicodeEncodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"index: ids or metadata cannot be written as parquet ({reason})") from error
    return lambda path: pa.parquet.write_table(table, path)


def check_facts(opened: Opened) -> tuple[int, int]:
    """Count and dimension, as the manifest has them.

    Raises:
        InputError: the manifest does not describe an index.
    """
    facts = opened.facts
    sizes = [facts.get(key) for key in ("count", "dim")]
    good = all(type(size) is int and size >= 0 for size in sizes) and facts.get("metric") in METRICS
    origin = facts.get("provenance")
    good &= origin is None or (
        isinstance(origin, dict) and all(isinstance(text, str) for text in origin.values())
    )
    if not good or not {"vectors", "items"} <= set(opened.files):
        raise InputError(f"{opened.folder}: manifest.json does not describe an index of this version")
    return facts["count"], facts["dim"]


def read_vectors(opened: Opened) -> np.ndarray:
    """[N, D] float32, mapped into memory: rows come from the disk when they are used.

    Raises:
        InputError: the file is not of the size that the manifest says.
    """
    count, dim = check_facts(opened)
    path = opened.files["vectors"]
    try:
        vectors = np.load(path, mmap_mode="r" if count else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as vectors ({' '.join(str(error).split())})") from error
    if vectors.shape != (count, dim) or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise InputError(
            f"{path}: got {vectors.dtype} {list(vectors.shape)}, the manifest says float32 [{count}, {dim}]"
        )
    return vectors


def read_items(opened: Opened) -> tuple[np.ndarray, pd.DataFrame]:
    """Ids [N] and metadata.

    Raises:
        InputError: the file has no ids, or not as many as the manifest says.
    """
    count, _ = check_facts(opened)
    path = opened.files["items"]
    try:
        table: Any = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from error
    if len(table) != count or "id" not in table.column_names:
        raise InputError(f"{path}: got {len(table)} rows of ids and metadata, the manifest says {count}")
    names = table["id"].to_pylist()
    kind: Any = np.int64 if pa.types.is_integer(table.schema.field("id").type) else object
    metadata = table.drop_columns(["id"]).to_pandas()
    return np.array(names, dtype=kind), metadata if len(table.column_names) > 1 else pd.DataFrame(
        index=range(count)
    )
