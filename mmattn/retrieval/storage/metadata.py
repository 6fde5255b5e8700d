"""Metadata columns for filters, read from a table beside the vectors and matched by id."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmattn.data.tables import as_text, column_types, read_table
from mmattn.errors import InputError, did_you_mean

__all__ = ["read_metadata"]


def read_metadata(path: str | Path, ids: np.ndarray, id_column: str = "id") -> pd.DataFrame:
    """Read the rows of a table for the given ids, in their order; other rows are ignored.

    A parquet file keeps its types. In a CSV or TSV file, a column of numbers only is read as numbers, and an
    empty cell is a missing value.

    Args:
        path: a .parquet, .csv or .tsv file.
        ids: [N] ids of the vectors.
        id_column: name of the column with the ids.

    Raises:
        InputError: a file that cannot be read, an unknown column, a duplicate id, or an id without a row.

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
    table_values = pd.DataFrame({name: table[name].to_pandas() for name in columns if name != id_column})
    if path.suffix != ".parquet":
        table_values = table_values.apply(_infer_numbers)
    return table_values.iloc[rows].reset_index(drop=True)


def _infer_numbers(column: pd.Series) -> pd.Series:
    """A CSV column as numbers if every non-empty cell is a number, otherwise as text."""
    cells = column.replace("", None)
    try:
        return pd.to_numeric(cells)
    except (ValueError, TypeError):
        return cells
