"""Tables of items and of users: cells become the content of samples, each by its column's role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattn.data.card import Card, Column, UserTable
from mmattn.data.cell_parsing import BadCell, parse_number, parse_texts, parse_words, split_list
from mmattn.data.rejected import RejectionLog
from mmattn.data.tables import Table, as_text, factorize_ids, read_table
from mmattn.data.targets import parse_boxes, parse_labels, parse_tags
from mmattn.errors import InputError
from mmattn.types import Sample

__all__ = ["SPLITS", "ContentTable", "open_content_table"]

SPLITS = ("train", "validation", "test")


def open_content_table(
    card: Card, name: str, spec: UserTable, rejected: RejectionLog, reject_limit: float
) -> ContentTable:
    """Read a table of items or users; rows without an id are dropped.

    Args:
        card: for the folder that files are relative to.
        name: "items" or "users", for messages.
        spec: what the card says about the table.
        rejected: where complaints go.
        reject_limit: largest fraction of the rows that may be dropped.

    Raises:
        InputError: an unreadable file, ids that come twice, or more bad rows than the limit.
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
    kept = np.flatnonzero(codes >= 0)
    twice = np.flatnonzero(np.bincount(codes[kept], minlength=len(names)) > 1)
    if len(twice):
        shown = ", ".join(names[code] for code in twice[:5]) + (", ..." if len(twice) > 5 else "")
        raise InputError(
            f"{file}: the same id for several {name}, {len(twice)} times: {shown}; expected each id once"
        )
    return ContentTable(
        card, spec, table, kept, [names[code] for code in codes[kept]], rejected, reject_limit
    )


@dataclass
class ContentTable:
    """The good rows of a table of items or users.

    Args:
        card, spec: what the card says.
        table: the file's columns.
        row_positions: [I] places of the good rows in the table's columns.
        ids: [I] their ids.
        rejected, reject_limit: as in `open_content_table`.
    """

    card: Card
    spec: UserTable
    table: Table
    row_positions: np.ndarray
    ids: list[str]
    rejected: RejectionLog
    reject_limit: float

    def samples(self, entities: Mapping[str, int]) -> tuple[Sample, ...]:
        """One sample a row; things without any modality are listed and kept.

        Args:
            entities: id -> index of every entity.

        Raises:
            InputError: more bad cells in a column than the limit.
        """
        contents: list[dict[str, Any]] = [{} for _ in self.ids]
        for column, use in self.spec.uses():
            if not use.is_target:
                values = self._parse_column(column, self._cell_parser(use, entities))
                for content, value in zip(contents, values, strict=True):
                    _add_value(content, column, use, value)
        # A list of texts, or a table, without anything in it is an absent modality.
        contents = [
            {name: each for name, each in content.items() if _has_value(each)} for content in contents
        ]
        for place, content in enumerate(contents):
            if not content and self.spec.modalities:
                self._reject(place, "", "kept", "it has no modality at all, so no tokens")
        return tuple(Sample(id, content) for id, content in zip(self.ids, contents, strict=True))

    def _cell_parser(self, use: Column, entities: Mapping[str, int]) -> Callable[[Any, int], Any]:
        return lambda cell, _: _parse_cell(cell, use, entities, self.card)

    def labels(self) -> dict[str, np.ndarray]:
        """Label column -> one text a row, "" where there is none."""
        return {
            column: np.array([", ".join(parse_texts(cell)) for cell in self._cells(column)], dtype=object)
            for column, use in self.spec.uses()
            if use.role == "label"
        }

    def targets(self, samples: Sequence[Sample]) -> dict[str, tuple[Any, ...]]:
        """Target column -> one target a row: a name, a list of names, text or `Boxes`, None where not said.

        Args:
            samples: the rows' content, whose words and pictures tags and boxes speak of.

        Raises:
            InputError: more bad cells in a column than the limit, or more bad boxes.
        """
        return {
            column: tuple(self._targets(column, use, samples))
            for column, use in self.spec.uses()
            if use.is_target
        }

    def _targets(self, column: str, use: Column, samples: Sequence[Sample]) -> list[Any]:
        about = self.spec.annotated_modality(column, use)
        if use.role == "tags":
            return self._parse_column(
                column, lambda cell, place: parse_tags(cell, use.separator, samples[place].content.get(about))
            )
        if use.role == "boxes":
            return self._boxes(column, [sample.content.get(about) for sample in samples])
        if use.role == "labels":
            return self._parse_column(column, lambda cell, _: parse_labels(cell, use.separator))
        return self._parse_column(column, lambda cell, _: ", ".join(parse_texts(cell)) or None)

    def _boxes(self, column: str, image_paths: list[Any]) -> list[Any]:
        """Boxes of each row; the good ones of a cell stay where single ones are bad."""
        complaints: list[str] = []

        def read(cell: Any, place: int) -> Any:
            found, problems = parse_boxes(cell, image_paths[place])
            for effect, reason in problems:
                self._reject(place, column, effect, reason)
                if effect == "part dropped":
                    complaints.append(f"row {self.table.rows[self.row_positions[place]]}: {reason}")
            return found

        values = self._parse_column(column, read)
        good = sum(len(value) for value in values if value is not None)
        if complaints:
            where = f"{self.card.resolve_path(self.spec.file)}: boxes of column {column!r}"
            total = len(complaints) + good
            self.rejected.check_limit(where, len(complaints), total, self.reject_limit, complaints[0])
        return values

    def split(self) -> np.ndarray | None:
        """The part that each row belongs to, "" where it is not said or not known."""
        column = getattr(self.spec, "split", None)
        if column is None:
            return None
        parts = [as_text(cell) for cell in self._cells(column)]
        for place, part in enumerate(parts):
            if part and part not in SPLITS:
                self._reject(place, column, "cell dropped", f"got {part!r}, expected {', '.join(SPLITS)}")
        return np.array([part if part in SPLITS else "" for part in parts], dtype=object)

    def entity_names(self) -> set[str]:
        """Every entity that the rows name."""
        columns = [column for column, use in self.spec.uses() if use.role == "entity"]
        return {
            name
            for column in columns
            for name in factorize_ids(self.table[column].take(self.row_positions))[1]
        }

    def _cells(self, column: str) -> list[Any]:
        """The good rows' cells; categories are lists, for every use of their column."""
        cells = self.table[column].take(self.row_positions).to_pylist()
        for use in self.spec.columns.get(column, ()):
            if use.role == "categories":
                cells = [split_list(cell, use.separator) for cell in cells]
        return cells

    def _reject(self, position: int, column: str, effect: Any, reason: str) -> None:
        row = int(self.table.rows[self.row_positions[position]])
        self.rejected.add(self.spec.file, row, self.ids[position], column, effect, reason)

    def _parse_column(self, column: str, read: Callable[[Any, int], Any]) -> list[Any]:
        """What each cell of a column means; None where it is empty, or bad and therefore listed.

        Args:
            column: its name.
            read: the cell and the place of its row to a value; raises `BadCell`.
        """
        values, there, bad, first = [], 0, 0, ""
        for place, cell in enumerate(self._cells(column)):
            try:
                value = read(cell, place)
            except BadCell as error:
                value = None
                bad += 1
                first = first or f"row {self.table.rows[self.row_positions[place]]}: {error}"
                self._reject(place, column, "cell dropped", str(error))
            there += value is not None
            values.append(value)
        where = f"{self.card.resolve_path(self.spec.file)}: cells of column {column!r}"
        self.rejected.check_limit(where, bad, bad + there, self.reject_limit, first)
        return values


def _parse_cell(cell: Any, use: Column, entities: Mapping[str, int], card: Card) -> Any:
    """The cell as its role wants it, None where it is empty.

    Raises:
        BadCell: it is there and does not fit.
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
    if use.kind == "text":  # with None for a field that is not there: its place says which field it is
        content.setdefault(use.modality, []).append(value)
    elif use.kind == "table":
        content.setdefault(use.modality, {}).update({} if value is None else {column: value})
    else:
        content[use.modality] = value


def _has_value(value: Any) -> bool:
    return any(part is not None for part in value) if isinstance(value, (list, dict)) else value is not None
