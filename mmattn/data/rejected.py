"""The log of rejected rows and cells, with their reasons."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Literal

from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["Rejection", "RejectionLog"]

Effect = Literal["row dropped", "cell dropped", "part dropped", "kept"]


@dataclass(frozen=True)
class Rejection:
    """One rejected row, cell or part of a cell.

    Args:
        table: the file.
        row: the data row, counted from 1 without the header (of a raw file without header: the line); 0 for
            the whole file or a folder.
        id: id of the item or user, "" where unknown.
        column: the column or field, "" for the whole row.
        effect: "row dropped"; "cell dropped" (the rest of the row is used); "part dropped" (one box, for
            example: the rest of the cell is used); "kept" (a warning).
        reason: the value and what was expected.
    """

    table: str
    row: int
    id: str
    column: str
    effect: Effect
    reason: str


class RejectionLog:
    """The rejections of one dataset, in the order in which they were found.

    Example:
        >>> rejected = RejectionLog()
        >>> rejected.add("items.csv", 3, "17", "year", "cell dropped", "'MCMXCV' is not a number")
        >>> len(rejected), rejected.counts()
        (1, {'cell dropped': 1})
    """

    def __init__(self) -> None:
        self.rows: list[Rejection] = []

    def add(self, table: str, row: int, id: str, column: str, effect: Effect, reason: str) -> None:
        """Add one rejection.

        Args:
            table: the file.
            row: the data row, counted from 1.
            id: id of the item or user, or "".
            column: the column or field, or "".
            effect: as in `Rejection`.
            reason: the value and what was expected.
        """
        self.rows.append(Rejection(table, row, id, column, effect, reason))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Rejection]:
        return iter(self.rows)

    def counts(self) -> dict[str, int]:
        """Return the number of rejections of each effect."""
        return dict(Counter(row.effect for row in self.rows))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all rejections as CSV (UTF-8, with a header even if there are none), atomically.

        Args:
            path: the file.
        """
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Rejection)])
            writer.writerows(astuple(row) for row in self.rows)

    def check_limit(
        self, where: str, num_bad: int, total: int, max_fraction: float, first_reason: str
    ) -> None:
        """Refuse data that is mostly bad: the card or the files are then wrong, not single rows.

        Args:
            where: file and kind of the rows or cells, for the message.
            num_bad: number of dropped rows or cells.
            total: number of all rows or cells.
            max_fraction: maximum fraction that may be bad; it is always an error if all are.
            first_reason: the first reason, for the message.

        Raises:
            InputError: more than `max_fraction` are bad, or all are.
        """
        if num_bad and (num_bad == total or num_bad > max_fraction * total):
            raise InputError(
                f"{where}: {num_bad} of {total} are bad, expected at most {max_fraction:.0%}; "
                f"the first: {first_reason}"
            )
