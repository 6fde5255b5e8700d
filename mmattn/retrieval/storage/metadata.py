"""Columns for filters from a table beside the vectors: whose rows are found by id, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmattn.data.tables import as_text, column_types, read_table
from mmattn.errors import InputError, did_you_mean

__all__ = ["read_metadata"]


def read_metadata(path: str | Path, ids: np.ndarray, id_column: str = "id") -> pd.DataFrame:
    """The rows of a table for the given ids, in their order; rows of other items are left out.

    A parquet file keeps its types. In a CSV or TSV file a column whose every value is a number holds
    numbers, and an empty cell is missing.

    Args:
        path: a .parquet, .csv or .tsv file.
        ids: [N] of the vectors.
        id_column: the column with the ids.

    Raises:
        InputError: a file that cannot be read, no such column, an id twice, or an item without a row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "films.csv"
        >>> _ = path.write_text("id,year\\nb,1999\\na,1995\\n")
        >>> read_metadata(path, np.array(["a", "b"], dtype=object))["year"].tolist()
        [1995, 1999]
    """
    path = Path(path)
    columns = list(column_types(path))
    if id_column not in columns:
        raise InputError(f"{path}: no column {id_column!r} for the ids.{did_you_mean(id_column, columns)}")
    table = read_table(path, columns)
    if table.malformed:
        row, reason = table.malformed[0]
        raise InputError(f"{path}: row {row}: {reason}")
    names = pd.Index([as_text(value) for value in table[id_column].to_pylist()])
    if not names.is_unique:
        raise InputError(f"{path}: id {names[names.duplicated()][0]!r} comes twice, expected each id once")
    rows = names.get_indexer(pd.Index([as_text(name) for name in ids.tolist()], dtype=names.dtype))
    absent = np.flatnonzero(rows < 0)
    if len(absent):
        raise InputError(f"{path}: no row for {len(absent)} ids, the first is {ids[absent[0]]!r}")
    found = pd.DataFrame({name: table[name].to_pandas() for name in columns if name != id_column})
    if path.suffix != ".parquet":
        found = found.apply(_infer_numbers)
    return found.iloc[rows].reset_index(drop=True)


def _infer_numbers(column: pd.Series) -> pd.Series:
    """A column of a CSV file, as numbers where it holds nothing else."""
    cells = column.replace("", None)
    try:
        return pd.to_numeric(cells)
    except (ValueError, TypeError):
        return cells
