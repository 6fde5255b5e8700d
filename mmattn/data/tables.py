"""Read Parquet, CSV and TSV files as columns, with the row number of each value."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mmattn.errors import InputError

__all__ = ["Table", "as_text", "column_types", "factorize_ids", "read_table"]

_SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a file.

    Args:
        columns: name -> pyarrow column of length R; columns of CSV files hold strings.
        rows: [R] int64 data row of each value, counted from 1 without the header.
        malformed: (data row, reason) of the rows that could not be split into the file's columns.
    """

    columns: dict[str, pa.ChunkedArray]
    rows: np.ndarray
    malformed: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        return self.columns[name]


def column_types(path: Path) -> dict[str, pa.DataType]:
    """Read the columns of a file from its header; every column of a CSV file is a string.

    Args:
        path: the file.

    Returns:
        name -> type.

    Raises:
        InputError: no such file, an ending other than .parquet, .csv or .tsv, an unreadable file, or a
            duplicate column name.
    """
    separator = _separator(path)
    try:
        if separator is None:
            schema = pa.parquet.read_schema(path)
            names, types = schema.names, [_value_type(kind) for kind in schema.types]
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                names = next(csv.reader(file, delimiter=separator), [])
            types = [pa.string()] * len(names)
    except (OSError, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    if not names:
        raise InputError(f"{path}: the file is empty, expected a header with the names of the columns")
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise InputError(f"{path}: column {duplicates[0]!r} comes twice, expected distinct names")
    return dict(zip(names, types, strict=True))


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Read columns of a file.

    Args:
        path: the file.
        columns: names of existing columns (see `column_types`).

    Raises:
        InputError: the file cannot be read.
    """
    separator = _separator(path)
    try:
        if separator is None:
            with pa.parquet.ParquetFile(path) as file:
                table = file.read(columns=list(columns))
            return Table(
                {name: _to_plain_type(table[name]) for name in columns}, np.arange(1, len(table) + 1)
            )
        return _read_csv(path, columns, separator)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _read_csv(path: Path, columns: Sequence[str], separator: str) -> Table:
    malformed: list[tuple[int, str]] = []

    def skip(bad: Any) -> str:
        # pyarrow counts records from 1 with the header; data rows start after it.
        reason = f"got {bad.actual_columns} columns, expected {bad.expected_columns}: {bad.text!r}"
        malformed.append((bad.number - 1, reason))
        return "skip"

    table = pa.csv.read_csv(
        path,
        read_options=pa.csv.ReadOptions(use_threads=False),  # with threads, bad rows have no number
        parse_options=pa.csv.ParseOptions(
            delimiter=separator, newlines_in_values=True, invalid_row_handler=skip
        ),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict.fromkeys(columns, pa.string()),
            strings_can_be_null=False,  # a film may be called "NA"
        ),
    )
    rows = np.arange(1, len(table) + len(malformed) + 1)
    good = np.setdiff1d(rows, [row for row, _ in malformed])
    return Table({name: table[name] for name in columns}, good, tuple(malformed))


def factorize_ids(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Convert a column of ids to codes.

    Args:
        column: R ids of any type.

    Returns:
        [R] int64 indices into the names, -1 where the cell is empty; and the distinct names as text, in order
        of first appearance.
    """
    encoded = column.combine_chunks().dictionary_encode()
    names: dict[str, int] = {}
    code_of = np.full(len(encoded.dictionary) + 1, -1, dtype=np.int64)  # the last entry is for null
    for index, value in enumerate(encoded.dictionary.to_pylist()):
        text = as_text(value)
        if text:
            code_of[index] = names.setdefault(text, len(names))
    indices = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return code_of[indices], list(names)


def as_text(value: Any) -> str:
    """Convert a cell to text independently of the file's type: 7 and 7.0 give "7", None gives "".

    Args:
        value: the cell.

    Example:
        >>> as_text(7.0), as_text(0.5), as_text(None), as_text(" ten "), as_text(float("nan"))
        ('7', '0.5', '', 'ten', '')
    """
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer():
            return str(int(value))
    return str(value).strip()


def _separator(path: Path) -> str | None:
    if path.suffix == ".parquet":
        return None
    if path.suffix not in _SEPARATORS:
        raise InputError(f"{path}: got a file ending in {path.suffix!r}, expected .parquet, .csv or .tsv")
    return _SEPARATORS[path.suffix]


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _to_plain_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast a column to the plain type among the several that writers use for the same values."""
    kind = _value_type(column.type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    return column.cast(kind)


def _unreadable(path: Path, error: Exception) -> InputError:
    kind = path.suffix.removeprefix(".")
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return InputError(
        f"{path}: cannot be read as {kind} ({reason}); expected a whole {kind} file, text in UTF-8"
    )
