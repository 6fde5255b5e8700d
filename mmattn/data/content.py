"""Read tables of items and users: cells become the content of samples, by the roles of their columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattn.data.card import Card, Column, UserTable
from mmattn.data.cell_parsing import BadCell, parse_number, parse_texts, parse_words, split_list
from mmattn.data.rejected import RejectionLog
from mmattn.data.tables import Table, as_text, factorize_ids, read_table
from mmattn.data.targets import parse_boxes, parse_labels, parse_tags, parse_value
from mmattn.errors import InputError
from mmattn.types import Sample

__all__ = ["SPLITS", "ContentTable", "open_content_table"]

SPLITS = ("train", "validation", "test")


def open_content_table(
    card: Card, name: str, spec: UserTable, rejected: RejectionLog, reject_limit: float
) -> ContentTable:
    """Read a table of items or users; rows without an id are dropped.

    Args:
        card: the card, which resolves file names.
        name: "items" or "users", for messages.
        spec: the card's entry for the table.
        rejected: log of the rejections.
        reject_limit: maximum fraction of the rows that may be dropped.

    Returns:
        The valid rows.

    Raises:
        InputError: an unreadable file, duplicate ids, or more rejected rows than the limit.
    """
    file = card.resolve_path(spec.file)
    table = read_table(file, list(dict.fromkeys(spec.named_columns.values())))
    codes, names = factorize_ids(table[spec.id])
    bad = [*table.malformed, *((int(row), f"no {spec.id}") for row in table.rows[codes < 0])]
    for row, reason in sorted(bad):
        rejected.add(spec.file, row, "", "", "row dropped", reason)
    total = len(table) + len(table.malformed)
    if not total:
        raise InputError(f"{file}: the table of {name} has no rows")
    if bad:
        rejected.check_limit(f"{file}: rows", len(bad), total, reject_limit, f"row {bad[0][0]}: {bad[0][1]}")
    positions = np.flatnonzero(codes >= 0)
    duplicates = np.flatnonzero(np.bincount(codes[positions], minlength=len(names)) > 1)
    if len(duplicates):
        shown = ", ".join(names[code] for code in duplicates[:5]) + (", ..." if len(duplicates) > 5 else "")
        raise InputError(
            f"{file}: the same id for several {name}, {len(duplicates)} times: {shown}; expected each id once"
        )
    ids = [names[code] for code in codes[positions]]
    return ContentTable(card, spec, table, positions, ids, rejected, reject_limit)


@dataclass
class ContentTable:
    """The valid rows of a table of items or users.

    Args:
        card: the card, which resolves file names.
        spec: the card's entry for the table.
        table: the file's columns.
        row_positions: [I] indices of the valid rows in the table's columns.
        ids: I ids.
        rejected: log of the rejections.
        reject_limit: maximum fraction of the cells of a column that may be bad.
    """

    card: Card
    spec: UserTable
    table: Table
    row_positions: np.ndarray
    ids: list[str]
    rejected: RejectionLog
    reject_limit: float

    def samples(self, entities: Mapping[str, int]) -> tuple[Sample, ...]:
        """Build one sample per row; rows without any modality are logged and kept.

        Args:
            entities: id -> index of every entity.

        Returns:
            I samples.

        Raises:
            InputError: more bad cells in a column than the limit.
        """
        contents: list[dict[str, Any]] = [{} for _ in self.ids]
        for column, use in self.spec.uses():
            if not use.is_target:
                values = self._parse_column(column, self._cell_parser(use, entities))
                for content, value in zip(contents, values, strict=True):
                    _add_value(content, column, use, value)
        # A modality without any value is absent.
        contents = [
            {name: value for name, value in content.items() if _has_value(value)} for content in contents
        ]
        for position, content in enumerate(contents):
            if not content and self.spec.modalities:
                self._reject(position, "", "kept", "it has no modality at all, so no tokens")
        return tuple(Sample(id, content) for id, content in zip(self.ids, contents, strict=True))

    def _cell_parser(self, use: Column, entities: Mapping[str, int]) -> Callable[[Any, int], Any]:
        return lambda cell, _: _parse_cell(cell, use, entities, self.card)

    def labels(self) -> dict[str, np.ndarray]:
        """Map each label column to one text per row, "" where there is none."""
        return {
            column: np.array([", ".join(parse_texts(cell)) for cell in self._cells(column)], dtype=object)
            for column, use in self.spec.uses()
            if use.role == "label"
        }

    def targets(self, samples: Sequence[Sample]) -> dict[str, tuple[Any, ...]]:
        """Parse the target columns.

        Args:
            samples: I samples, with the words and images that tags and boxes annotate.

        Returns:
            target column -> one target per row: a name, a list of names, text or `Boxes`; None where missing.

        Raises:
            InputError: more bad cells or bad boxes in a column than the limit.
        """
        return {
            column: tuple(self._targets(column, use, samples))
            for column, use in self.spec.uses()
            if use.is_target
        }

    def _targets(self, column: str, use: Column, samples: Sequence[Sample]) -> list[Any]:
        modality = self.spec.annotated_modality(column, use)
        if use.role == "tags":
            return self._parse_column(
                column,
                lambda cell, position: parse_tags(
                    cell, use.separator, samples[position].content.get(modality)
                ),
            )
        if use.role == "boxes":
            return self._boxes(column, [sample.content.get(modality) for sample in samples])
        if use.role == "labels":
            return self._parse_column(column, lambda cell, _: parse_labels(cell, use.separator))
        if use.role == "value":
            return self._parse_column(column, lambda cell, _: parse_value(cell))
        return self._parse_column(column, lambda cell, _: ", ".join(parse_texts(cell)) or None)

    def _boxes(self, column: str, image_paths: list[Any]) -> list[Any]:
        """Parse the boxes of each row; bad ones are dropped, the others of the cell are kept."""
        dropped: list[str] = []

        def parse(cell: Any, position: int) -> Any:
            boxes, problems = parse_boxes(cell, image_paths[position])
            for effect, reason in problems:
                self._reject(position, column, effect, reason)
                if effect == "part dropped":
                    dropped.append(f"row {self.table.rows[self.row_positions[position]]}: {reason}")
            return boxes

        values = self._parse_column(column, parse)
        if dropped:
            where = f"{self.card.resolve_path(self.spec.file)}: boxes of column {column!r}"
            total = len(dropped) + sum(len(boxes) for boxes in values if boxes is not None)
            self.rejected.check_limit(where, len(dropped), total, self.reject_limit, dropped[0])
        return values

    def split(self) -> np.ndarray | None:
        """Return the split of each row [I], "" where missing or unknown; None without a split column."""
        column = getattr(self.spec, "split", None)
        if column is None:
            return None
        parts = [as_text(cell) for cell in self._cells(column)]
        for position, part in enumerate(parts):
            if part and part not in SPLITS:
                self._reject(position, column, "cell dropped", f"got {part!r}, expected {', '.join(SPLITS)}")
        return np.array([part if part in SPLITS else "" for part in parts], dtype=object)

    def entity_names(self) -> set[str]:
        """Return the names of all entities in the rows."""
        columns = [column for column, use in self.spec.uses() if use.role == "entity"]
        return {
            name
            for column in columns
            for name in factorize_ids(self.table[column].take(self.row_positions))[1]
        }

    def _cells(self, column: str) -> list[Any]:
        """The cells of the valid rows; categories are lists, for every use of their column."""
        cells = self.table[column].take(self.row_positions).to_pylist()
        for use in self.spec.columns.get(column, ()):
            if use.role == "categories":
                cells = [split_list(cell, use.separator) for cell in cells]
        return cells

    def _reject(self, position: int, column: str, effect: Any, reason: str) -> None:
        row = int(self.table.rows[self.row_positions[position]])
        self.rejected.add(self.spec.file, row, self.ids[position], column, effect, reason)

    def _parse_column(self, column: str, parse: Callable[[Any, int], Any]) -> list[Any]:
        """Parse the cells of a column; None where a cell is empty, or bad and therefore listed.

        Args:
            column: name of the column.
            parse: cell and position of its row -> value; raises `BadCell`.
        """
        values, num_good, num_bad, first_reason = [], 0, 0, ""
        for position, cell in enumerate(self._cells(column)):
            try:
                value = parse(cell, position)
            except BadCell as error:
                value = None
                num_bad += 1
                row = self.table.rows[self.row_positions[position]]
                first_reason = first_reason or f"row {row}: {error}"
                self._reject(position, column, "cell dropped", str(error))
            num_good += value is not None
            values.append(value)
        where = f"{self.card.resolve_path(self.spec.file)}: cells of column {column!r}"
        self.rejected.check_limit(where, num_bad, num_bad + num_good, self.reject_limit, first_reason)
        return values


def _parse_cell(cell: Any, use: Column, entities: Mapping[str, int], card: Card) -> Any:
    """Parse a cell by its role; None where it is empty.

    Raises:
        BadCell: the value does not fit the role.
    """
    if use.role == "words":
        return parse_words(cell, use.separator)
    parts = parse_texts(cell)
    if use.role == "categories":
        return parts or None
    text = ", ".join(parts)
    if not text:
        return None
    if use.role == "number":
        return parse_number(text)
    if use.role == "entity":
        return entities[text]
    if use.role in ("image", "audio"):
        path = card.resolve_path(text)
        if not path.is_file():
            raise BadCell(f"no file {path}")
        return path
    return text


def _add_value(content: dict[str, Any], column: str, use: Column, value: Any) -> None:
    if use.kind == "text":  # None for an absent field keeps the indices of the others
        content.setdefault(use.modality, []).append(value)
    elif use.kind == "table":
        content.setdefault(use.modality, {}).update({} if value is None else {column: value})
    else:
        content[use.modality] = value


def _has_value(value: Any) -> bool:
    return any(part is not None for part in value) if isinstance(value, (list, dict)) else value is not None
