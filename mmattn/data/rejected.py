"""What could not be used, row by row, with the reason: nothing is dropped in silence."""

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
    """One complaint.

    Args:
        table: the file it stands in.
        row: the data row, counted from 1 without the header (of a raw file without header: the line);
            0 where the complaint is about the file as a whole, or about a folder.
        id: the item or user concerned, "" where it is not known.
        column: the column or field concerned, "" for the row as a whole.
        effect: "row dropped"; "cell dropped" (the rest of the row is used); "part dropped" (one box, say: the
            rest of the cell is used); "kept" (a warning).
        reason: what came and what was expected.
    """

    table: str
    row: int
    id: str
    column: str
    effect: Effect
    reason: str


class RejectionLog:
    """The list of complaints about one data set, in the order they were found.

    Example:
        >>> rejected = RejectionLog()
        >>> rejected.add("items.csv", 3, "17", "year", "cell dropped", "'MCMXCV' is not a number")
        >>> len(rejected), rejected.counts()
        (1, {'cell dropped': 1})
    """

    def __init__(self) -> None:
        self.rows: list[Rejection] = []

    def add(self, table: str, row: int, id: str, column: str, effect: Effect, reason: str) -> None:
        """Note one complaint; see `Rejection` for the arguments."""
        self.rows.append(Rejection(table, row, id, column, effect, reason))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Rejection]:
        return iter(self.rows)

    def counts(self) -> dict[str, int]:
        """How many complaints had each effect."""
        return dict(Counter(row.effect for row in self.rows))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all as CSV (UTF-8, with a header even when there is nothing to list), atomically."""
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([field.name for field in fields(Rejection)])
            writer.writerows(astuple(row) for row in self.rows)

    def check_limit(
        self, where: str, num_bad: int, total: int, max_fraction: float, first_reason: str
    ) -> None:
        """Refuse data that is mostly bad: then the card or the files are wrong, not single rows.

        Args:
            where: what the rows belong to, for the message.
            num_bad: rows (or cells) that were dropped.
            total: rows (or cells) in all.
            max_fraction: largest fraction that may be bad; with nothing good left it is always an error.
            first_reason: the first complaint, for the message.

        Raises:
            InputError: more than `max_fraction` of them are bad, or all are.
        """
        if num_bad and (num_bad == total or num_bad > max_fraction * total):
            raise InputError(
                f"{where}: {num_bad} of {total} are bad, expected at most {max_fraction:.0%}; the first: {first_reason}"
            )
