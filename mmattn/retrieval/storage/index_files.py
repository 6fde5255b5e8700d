"""Storage of an index: its vectors, ids and metadata as the files of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from mmattn.errors import InputError
from mmattn.retrieval.checks import check_ids
from mmattn.retrieval.items import Items
from mmattn.retrieval.search.ann import AnnSearch, read_faiss
from mmattn.retrieval.search.engine import SearchEngine
from mmattn.retrieval.search.exact import METRICS, Metric
from mmattn.retrieval.search.plan import AnnSettings, SearchPlan
from mmattn.retrieval.storage.bundle import OpenedBundle, save_bundle

__all__ = ["load", "read_array", "read_items", "save", "write_array", "write_items"]


def save(
    folder: str | Path,
    items: Items,
    metric: Metric,
    provenance: Mapping[str, str] | None,
    engine: SearchEngine,
) -> None:
    """Write an index as a bundle.

    Args:
        folder: new, empty, or a bundle that is replaced.
        items: vectors, ids and metadata.
        metric: "ip", "l2" or "cosine".
        provenance: what made the vectors; None if unknown.
        engine: provides the search plan and the faiss index.

    Raises:
        InputError: the folder holds something else, or metadata that parquet cannot store.
    """
    ann = engine.ann
    facts = {
        "kind": "index",
        "count": len(items),
        "dim": items.dim,
        "metric": metric,
        "ids": "number" if items.ids.dtype == np.int64 else "text",
        "provenance": provenance,
        "plan": engine.selected_plan.to_dict(),
        "ann": None if ann is None else asdict(ann.settings),
    }
    writers: dict[str, Callable[[Path], None]] = {
        "vectors.npy": write_array(items.vectors),
        "items.parquet": write_items(items.ids, items.metadata),
    }
    if ann is not None:
        writers |= {"ann.faiss": ann.write, "places.npy": write_array(ann.faiss_to_row)}
    save_bundle(folder, facts, writers)


def load(opened: OpenedBundle, device: str) -> tuple[Items, Metric, Mapping[str, str] | None, SearchEngine]:
    """Read an index from a verified bundle.

    Args:
        opened: the bundle.
        device: as in `Index.build`.

    Returns:
        Items, metric, provenance and search engine: the arguments of `Index`.

    Raises:
        InputError: files that are inconsistent with each other or the manifest.
    """
    count, dim = check_attributes(opened)
    vectors = read_array(opened, "vectors", (count, dim), np.float32)
    items = Items(vectors, *read_items(opened, count))
    plan, ann = read_search_plan(opened)
    metric = opened.attributes["metric"]
    return items, metric, opened.attributes["provenance"], SearchEngine(vectors, metric, plan, ann, device)


def write_array(array: np.ndarray) -> Callable[[Path], None]:
    """Function that writes an array to a path as an .npy file.

    Args:
        array: of any shape; object arrays are not allowed.
    """

    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)

    return write


def write_items(ids: np.ndarray, metadata: pd.DataFrame) -> Callable[[Path], None]:
    """Function that writes ids and metadata to a path as a parquet file.

    Args:
        ids: [N] int64 or text.
        metadata: N rows.

    Raises:
        InputError: a column that parquet cannot store, for example text mixed with numbers.
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


def check_attributes(opened: OpenedBundle) -> tuple[int, int]:
    """Number of items and dimension according to the manifest.

    Args:
        opened: the bundle.

    Raises:
        InputError: the manifest does not describe an index.
        InputError: a value of another type.
    """
    opened.check_kind("index")
    facts = opened.attributes
    sizes = [facts.get(key) for key in ("count", "dim")]
    good = all(type(size) is int and size >= 0 for size in sizes) and facts.get("metric") in METRICS
    origin = facts.get("provenance")
    good &= origin is None or (
        isinstance(origin, dict) and all(isinstance(text, str) for text in origin.values())
    )
    if not good or not {"vectors", "items"} <= set(opened.files):
        raise InputError(f"{opened.folder}: manifest.json does not describe an index of this version")
    return facts["count"], facts["dim"]


def read_search_plan(opened: OpenedBundle) -> tuple[SearchPlan, AnnSearch | None]:
    """Search plan of the bundle, and its approximate search (None if the plan is exact).

    Args:
        opened: the bundle.

    Raises:
        InputError: files that are inconsistent with each other or the manifest.
    """
    count, dim = check_attributes(opened)
    facts = opened.attributes
    try:
        plan = SearchPlan.from_dict(facts["plan"])
        settings = None if facts["ann"] is None else AnnSettings(**facts["ann"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{opened.folder}: manifest.json does not describe how to search") from error
    if settings is None:
        return plan, None
    if not {"ann", "places"} <= set(opened.files):
        raise InputError(f"{opened.folder}: manifest.json names no file for the {settings.factory} index")
    positions = read_array(opened, "places", None, np.int64)
    if positions.ndim != 1 or not np.array_equal(np.sort(positions[positions >= 0]), np.arange(count)):
        raise InputError(f"{opened.files['places']}: does not name each of the {count} rows once")
    index = read_faiss(opened.files["ann"], len(positions), dim, facts["metric"])
    return plan, AnnSearch(index, settings, facts["metric"], np.array(positions), memory_mapped=True)


def read_array(opened: OpenedBundle, role: str, shape: tuple[int, ...] | None, dtype: Any) -> np.ndarray:
    """Map an .npy file of the bundle into memory; rows are read from disk when they are used.

    Args:
        opened: the bundle.
        role: name of the file in the manifest, for example "vectors".
        shape: expected shape; None means any.
        dtype: expected dtype.

    Raises:
        InputError: the file cannot be read, or has another shape or dtype.
    """
    path = opened.files[role]
    try:
        array = np.load(path, mmap_mode=None if shape and not shape[0] else "r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as {role} ({' '.join(str(error).split())})") from error
    if (shape and array.shape != shape) or array.dtype != dtype or not array.flags.c_contiguous:
        raise InputError(
            f"{path}: got {array.dtype} {list(array.shape)}, "
            f"the manifest says {np.dtype(dtype)} {list(shape or [])}"
        )
    result: np.ndarray = array
    return result


def read_items(opened: OpenedBundle, count: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Read ids and metadata.

    Args:
        opened: the bundle.
        count: expected number of items N.

    Returns:
        Ids [N] and the metadata, N rows.

    Raises:
        InputError: no ids, duplicate ids, or a number of rows other than `count`.
    """
    path = opened.files["items"]
    try:
        table: Any = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({' '.join(str(error).split())})") from error
    if len(table) != count or "id" not in table.column_names:
        raise InputError(f"{path}: got {len(table)} rows of ids and metadata, the manifest says {count}")
    names = table["id"].to_pylist()
    if not count:  # an empty list has no element type: take it from the schema
        kind: Any = np.int64 if pa.types.is_integer(table.schema.field("id").type) else object
        ids = np.array([], dtype=kind)
    else:
        ids = check_ids(names, str(path))
    metadata = table.drop_columns(["id"]).to_pandas()
    return ids, metadata if len(table.column_names) > 1 else pd.DataFrame(index=range(count))
