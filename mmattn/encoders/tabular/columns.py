"""Columns of a table: their kinds, their specifications, and the parsing of cells."""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmattn.encoders.base import Unreadable
from mmattn.errors import InputError, did_you_mean

__all__ = ["KINDS", "as_row", "check_column", "check_kind", "count_values", "fit_columns", "parse_cell"]

KINDS = ("category", "categories", "number", "entity", "node")


def check_kind(name: str, kind: Any) -> str:
    """Check the kind of a column.

    Args:
        name: name of the column.
        kind: one of `KINDS`.

    Returns:
        The kind.

    Raises:
        InputError: an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"tabular: column {name!r} has kind {kind!r}.{did_you_mean(str(kind), KINDS)}")
    return str(kind)


def check_column(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Check the specification of a column.

    Args:
        name: name of the column.
        spec: kind and values, or kind, mean and std, as in `Tabular`.

    Returns:
        A copy of the specification.

    Raises:
        InputError: the specification does not fit its kind.
    """
    kind = check_kind(name, spec.get("kind"))
    expected = {"number": {"kind", "mean", "std"}, "node": {"kind"}}.get(kind, {"kind", "values"})
    if set(spec) != expected:
        raise InputError(
            f"tabular: column {name!r} has {sorted(spec)}, expected {sorted(expected)}; see Tabular.fit"
        )
    if kind == "number" and not (math.isfinite(spec["mean"]) and 0 < spec["std"] < math.inf):
        raise InputError(
            f"tabular: column {name!r} has mean {spec['mean']} and std {spec['std']}, expected numbers"
        )
    if "values" in expected and len(set(spec["values"])) != len(spec["values"]):
        raise InputError(f"tabular: column {name!r} names a value twice")
    return dict(spec)


def count_values(rows: Iterable[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, Counter[Any]]:
    """Count the values of each column.

    Args:
        rows: the training rows.
        kinds: column -> kind.

    Returns:
        column -> value -> count.

    Raises:
        Unreadable: a value is not of its column's kind.
    """
    counts: dict[str, Counter[Any]] = {name: Counter() for name in kinds}
    for row in rows:
        for name, kind in kinds.items():
            counts[name].update(parse_cell(name, kind, row.get(name)))
    return counts


def fit_columns(
    counts: Mapping[str, Counter[Any]], kinds: Mapping[str, str], min_count: int
) -> dict[str, dict[str, Any]]:
    """Derive the specifications of columns from the counts of their values.

    Args:
        counts: column -> value -> count, from `count_values`.
        kinds: column -> kind.
        min_count: minimum count of a value in a vocabulary.

    Returns:
        column -> specification, as in `Tabular`.
    """
    columns: dict[str, dict[str, Any]] = {}
    for name, kind in kinds.items():
        columns[name] = {"kind": kind}
        if kind == "number":
            numbers_seen = np.array(sorted(counts[name].elements()) or [0.0])
            columns[name] |= {"mean": float(numbers_seen.mean()), "std": float(numbers_seen.std()) or 1.0}
        elif kind != "node":
            vocabulary = sorted(value for value, count in counts[name].items() if count >= min_count)
            columns[name] |= {"values": vocabulary}
    return columns


def as_row(content: Any) -> Mapping[str, Any]:
    """Check that a content is a table row.

    Args:
        content: a mapping from column to value.

    Returns:
        The same content.

    Raises:
        Unreadable: it is no mapping.
    """
    if not isinstance(content, Mapping):
        raise Unreadable(f"got {type(content).__name__}, expected a mapping from column to value")
    return content


def parse_cell(name: str, kind: str, value: Any) -> list[Any]:
    """Parse a cell into its distinct values.

    Args:
        name: name of the column.
        kind: kind of the column.
        value: the cell; None, "" and NaN are absent.

    Returns:
        Strings, floats or integers by kind; empty where the cell is absent.

    Raises:
        Unreadable: a value is not of that kind.
    """
    is_list = kind in ("categories", "entity") and isinstance(
        value, (list, tuple, set, frozenset, np.ndarray)
    )
    elements: Sequence[Any] = list(value) if is_list else [value]
    values = [_parse_value(name, kind, element) for element in elements]
    return list(dict.fromkeys(element for element in values if element is not None))


def _parse_value(name: str, kind: str, value: Any) -> str | float | int | None:
    if value is None or value == "" or (isinstance(value, numbers.Real) and math.isnan(value)):
        return None
    if kind == "number" and isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    if kind in ("entity", "node") and isinstance(value, numbers.Integral) and int(value) >= 0:
        return int(value)
    if kind in ("category", "categories") and isinstance(value, (str, numbers.Integral)):
        return str(value)
    expected = {
        "number": "a finite number",
        "entity": "a whole number from 0",
        "node": "a whole number from 0",
    }.get(kind, "a string or a whole number")
    raise Unreadable(f"column {name!r}: got {value!r}, expected {expected}")
