"""Read tables of interactions between users and items, and of the triples of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from mmattn.data.card import Card
from mmattn.data.content import SPLITS
from mmattn.data.dataset import Graph, Interactions
from mmattn.data.rejected import RejectionLog
from mmattn.data.tables import Table, as_text, factorize_ids, read_table

__all__ = ["natural_sort", "read_graph", "read_interactions"]


def read_interactions(
    card: Card,
    item_ids: Sequence[str],
    user_ids: Sequence[str] | None,
    rejected: RejectionLog,
    reject_limit: float,
) -> tuple[Interactions, tuple[str, ...]]:
    """Read the valid interactions as index arrays.

    Args:
        card: the card; without a table of interactions the result is empty.
        item_ids: ids of all items; rows with other items are dropped.
        user_ids: ids of all users, or None to take them from the valid rows in natural order.
        rejected: log of the rejections.
        reject_limit: maximum fraction of the rows that may be dropped.

    Returns:
        The interactions, and the ids of the users that they index.

    Raises:
        InputError: an unreadable file, or more rejected rows than the limit.
    """
    spec = card.interactions
    if spec is None:
        empty = np.zeros(0, dtype=np.int64)
        return Interactions(empty, empty), tuple(user_ids or ())
    table = read_table(card.resolve_path(spec.file), list(dict.fromkeys(spec.named_columns.values())))
    check = _RowFilter(table)
    user_codes, user_names = factorize_ids(table[spec.user])
    item_codes, item_names = factorize_ids(table[spec.item])
    items = _vocabulary_index(item_codes, item_names, item_ids)
    check.drop(user_codes < 0, "no user")
    check.drop(item_codes < 0, "no item")
    check.drop(items < 0, lambda row: f"unknown item {item_names[item_codes[row]]!r}")
    if user_ids is not None:
        known = _vocabulary_index(user_codes, user_names, user_ids)
        check.drop(known < 0, lambda row: f"unknown user {user_names[user_codes[row]]!r}")
    time = value = split = None
    if spec.time:
        time = _parse_times(table[spec.time])
        check.drop(np.isnan(time), _unexpected_value(table[spec.time], "seconds since 1970 or ISO 8601"))
    if spec.value:
        value = _parse_numbers(table[spec.value])
        check.drop(np.isnan(value), _unexpected_value(table[spec.value], "a finite number"))
    if spec.split:
        split = np.array([as_text(cell) for cell in table[spec.split].to_pylist()], dtype=object)
        check.drop(~np.isin(split, SPLITS), _unexpected_value(table[spec.split], ", ".join(SPLITS)))
    same = "the same user, item and time" if spec.time else "the same user and item"
    check.drop_duplicates([user_codes, items] + ([time] if time is not None else []), same)
    check.report(card, spec.file, rejected, reject_limit)

    good = check.good
    names = user_ids if user_ids is not None else natural_sort(user_names[c] for c in set(user_codes[good]))
    users = _vocabulary_index(user_codes, user_names, names)
    return Interactions(users, items, time, value, split).select(good), tuple(names)


def read_graph(card: Card, entities: Iterable[str], rejected: RejectionLog, reject_limit: float) -> Graph:
    """Read the valid triples as index arrays.

    Args:
        card: the card; without a table of triples the result has none.
        entities: entities of items and users, which are added to those of the triples.
        rejected: log of the rejections.
        reject_limit: maximum fraction of the rows that may be dropped.

    Returns:
        The graph.

    Raises:
        InputError: an unreadable file, or more rejected rows than the limit.
    """
    spec = card.graph
    if spec is None:
        empty = np.zeros(0, dtype=np.int64)
        return Graph(empty, empty, empty, tuple(natural_sort(entities)), ())
    table = read_table(card.resolve_path(spec.file), list(dict.fromkeys(spec.named_columns.values())))
    check = _RowFilter(table)
    columns = [factorize_ids(table[column]) for column in (spec.head, spec.relation, spec.tail)]
    for (codes, _), what in zip(columns, ("head", "relation", "tail"), strict=True):
        check.drop(codes < 0, f"no {what}")
    (heads, head_names), (relations, relation_names), (tails, tail_names) = columns
    check.drop_duplicates([heads, relations, tails], "the same triple")
    check.report(card, spec.file, rejected, reject_limit)

    good = check.good
    used = {head_names[code] for code in set(heads[good])} | {tail_names[code] for code in set(tails[good])}
    vocabulary = natural_sort(used.union(entities))
    kinds = natural_sort(relation_names[code] for code in set(relations[good]))
    return Graph(
        heads=_vocabulary_index(heads, head_names, vocabulary)[good],
        relations=_vocabulary_index(relations, relation_names, kinds)[good],
        tails=_vocabulary_index(tails, tail_names, vocabulary)[good],
        entities=tuple(vocabulary),
        relation_names=tuple(kinds),
    )


def natural_sort(names: Iterable[str]) -> list[str]:
    """Sort names: numbers by value, then everything else as text.

    Args:
        names: the names.

    Example:
        >>> natural_sort({"10", "9", "b", "a1"})
        ['9', '10', 'a1', 'b']
    """
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))


class _RowFilter:
    """The valid rows of a table, and the first reason for dropping each of the others."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.good = np.ones(len(table), dtype=bool)
        self.reasons: dict[int, str] = {}

    def drop(self, bad: np.ndarray, reason: str | Callable[[int], str]) -> None:
        """Drop the rows where `bad` [R] is True; `reason` is a text, or a function of the row index."""
        for row in np.flatnonzero(bad & self.good).tolist():
            self.reasons[row] = reason if isinstance(reason, str) else reason(row)
        self.good &= ~bad

    def drop_duplicates(self, keys: Sequence[np.ndarray], what: str) -> None:
        """Drop valid rows whose keys all equal those of an earlier valid row."""
        rows = np.flatnonzero(self.good)
        frame = pd.DataFrame({number: key[rows] for number, key in enumerate(keys)})
        repeated = frame.duplicated().to_numpy()
        if not repeated.any():
            return
        groups = frame.groupby(list(frame.columns), sort=False).ngroup().to_numpy()
        first_row = self.table.rows[rows[~repeated]]  # of each group, as rows of the file
        group_of_row = dict(zip(rows.tolist(), groups.tolist(), strict=True))
        bad = np.zeros_like(self.good)
        bad[rows[repeated]] = True
        self.drop(bad, lambda row: f"{what} as in row {first_row[group_of_row[row]]}")

    def report(self, card: Card, file: str, rejected: RejectionLog, reject_limit: float) -> None:
        """Log the dropped rows in the order of the file, and refuse the table if they are too many."""
        dropped = [(int(self.table.rows[row]), reason) for row, reason in self.reasons.items()]
        dropped = sorted([*dropped, *self.table.malformed])
        for row, reason in dropped:
            rejected.add(file, row, "", "", "row dropped", reason)
        if dropped:
            total = len(self.table) + len(self.table.malformed)
            first = f"row {dropped[0][0]}: {dropped[0][1]}"
            rejected.check_limit(f"{card.resolve_path(file)}: rows", len(dropped), total, reject_limit, first)


def _vocabulary_index(codes: np.ndarray, names: Sequence[str], vocabulary: Sequence[str]) -> np.ndarray:
    """Map codes [R] into `names` to indices into the vocabulary, -1 where a name is not in it."""
    index = {name: number for number, name in enumerate(vocabulary)}
    index_of_code = np.array([index.get(name, -1) for name in names] + [-1], dtype=np.int64)
    return index_of_code[codes]


def _unexpected_value(column: pa.ChunkedArray, expected: str) -> Callable[[int], str]:
    return lambda row: f"got {as_text(column[row].as_py())!r}, expected {expected}"


def _parse_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Parse numbers [R] as float64, NaN where there is no finite number."""
    numbers = pd.to_numeric(column.to_pandas(), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _parse_times(column: pa.ChunkedArray) -> np.ndarray:
    """Parse numbers, timestamps or ISO 8601 as seconds [R] since 1970 (UTC), NaN where it is none."""
    if not (pa.types.is_temporal(column.type) or pa.types.is_string(column.type)):
        return _parse_numbers(column)
    is_text = pa.types.is_string(column.type)
    seconds = _parse_numbers(column) if is_text else np.full(len(column), np.nan)
    undated = np.isnan(seconds)
    dates = pd.to_datetime(column.to_pandas()[undated], errors="coerce", utc=True, format="ISO8601")
    stamps = dates.dt.tz_localize(None).to_numpy("datetime64[us]")
    seconds[undated] = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / 1e6)
    return seconds
