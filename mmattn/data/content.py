"""Tables of items and of users: cells become the content of samples, each by its column's role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmattn.data.card import Card, Column, UserTable
from mmattn.data.cell_parsing import BadCell, number_in, parts_in, texts_in, words_in
from mmattn.data.rejected import Rejected
from mmattn.data.tables import Table, as_text, factor, read_table
from mmattn.data.targets import boxes_in, labels_in, tags_in
from mmattn.errors import InputError
from mmattn.types import Sample

__all__ = ["SPLITS", "Things", "open_things"]

SPLITS = ("train", "validation", "test")


def open_things(card: Card, name: str, spec: UserTable, rejected: Rejected, limit: float) -> Things:
    """Read a table of items or users; rows without an id are dropped.

    Args:
        card: for the folder that files are relative to.
        name: "items" or "users", for messages.
        spec: what the card says about the table.
        rejected: where complaints go.
        limit: largest fraction of the rows that may be dropped.

    Raises:
        InputError: an unreadable file, ids that come twice, or more bad rows than the limit.
    """
    file = card.file(spec.file)
    table = read_table(file, list(dict.fromkeys(spec.named.values())))
    codes, names = factor(table[spec.id])
    bad = [*table.malformed, *((int(row), f"no {spec.id}") for row in table.rows[codes < 0])]
    for row, reason in sorted(bad):
        rejected.add(spec.file, row, "", "", "row dropped", reason)
    total = len(table) + len(table.malformed)
    if not total:
        raise InputError(f"{file}: the table of {name} has no rows")
    if bad:
        rejected.check_limit(f"{file}: rows", len(bad), total, limit, f"row {bad[0][0]}: {bad[0][1]}")
    kept = np.flatnonzero(codes >= 0)
    twice = np.flatnonzero(np.bincount(codes[kept], minlength=len(names)) > 1)
    if len(twice):
        shown = ", ".join(names[code] for code in twice[:5]) + (", ..." if len(twice) > 5 else "")
        raise InputError(
            f"{file}: the same id for several {name}, {len(twice)} times: {shown}; expected each id once"
        )
    return Things(card, spec, table, kept, [names[code] for code in codes[kept]], rejected, limit)


@dataclass
class Things:
    """The good rows of a table of items or users.

    Args:
        card, spec: what the card says.
        table: the file's columns.
        kept: [I] places of the good rows in the table's columns.
        ids: [I] their ids.
        rejected, limit: as in `open_things`.
    """

    card: Card
    spec: UserTable
    table: Table
    kept: np.ndarray
    ids: list[str]
    rejected: Rejected
    limit: float

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
                values = self._values(column, self._content_of(use, entities))
                for content, value in zip(contents, values, strict=True):
                    _add(content, column, use, value)
        # A list of texts, or a table, without anything in it is an absent modality.
        contents = [
            {name: each for name, each in content.items() if _any_there(each)} for content in contents
        ]
        for place, content in enumerate(contents):
            if not content and self.spec.modalities:
                self._complain(place, "", "kept", "it has no modality at all, so no tokens")
        return tuple(Sample(id, content) for id, content in zip(self.ids, contents, strict=True))

    def _content_of(self, use: Column, entities: Mapping[str, int]) -> Callable[[Any, int], Any]:
        return lambda cell, _: _value(cell, use, entities, self.card)

    def labels(self) -> dict[str, np.ndarray]:
        """Label column -> one text a row, "" where there is none."""
        return {
            column: np.array([", ".join(texts_in(cell)) for cell in self._cells(column)], dtype=object)
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
        about = self.spec.about(column, use)
        if use.role == "tags":
            return self._values(
                column, lambda cell, place: tags_in(cell, use.separator, samples[place].content.get(about))
            )
        if use.role == "boxes":
            return self._boxes(column, [sample.content.get(about) for sample in samples])
        if use.role == "labels":
            return self._values(column, lambda cell, _: labels_in(cell, use.separator))
        return self._values(column, lambda cell, _: ", ".join(texts_in(cell)) or None)

    def _boxes(self, column: str, pictures: list[Any]) -> list[Any]:
        """Boxes of each row; the good ones of a cell stay where single ones are bad."""
        complaints: list[str] = []

        def read(cell: Any, place: int) -> Any:
            found, problems = boxes_in(cell, pictures[place])
            for effect, reason in problems:
                self._complain(place, column, effect, reason)
                if effect == "part dropped":
                    complaints.append(f"row {self.table.rows[self.kept[place]]}: {reason}")
            return found

        values = self._values(column, read)
        good = sum(len(value) for value in values if value is not None)
        if complaints:
            where = f"{self.card.file(self.spec.file)}: boxes of column {column!r}"
            total = len(complaints) + good
            self.rejected.check_limit(where, len(complaints), total, self.limit, complaints[0])
        return values

    def split(self) -> np.ndarray | None:
        """The part that each row belongs to, "" where it is not said or not known."""
        column = getattr(self.spec, "split", None)
        if column is None:
            return None
        parts = [as_text(cell) for cell in self._cells(column)]
        for place, part in enumerate(parts):
            if part and part not in SPLITS:
                self._complain(place, column, "cell dropped", f"got {part!r}, expected {', '.join(SPLITS)}")
        return np.array([part if part in SPLITS else "" for part in parts], dtype=object)

    def entity_names(self) -> set[str]:
        """Every entity that the rows name."""
        columns = [column for column, use in self.spec.uses() if use.role == "entity"]
        return {name for column in columns for name in factor(self.table[column].take(self.kept))[1]}

    def _cells(self, column: str) -> list[Any]:
        """The good rows' cells; categories are lists, for every use of their column."""
        cells = self.table[column].take(self.kept).to_pylist()
        for use in self.spec.columns.get(column, ()):
            if use.role == "categories":
                cells = [parts_in(cell, use.separator) for cell in cells]
        return cells

    def _complain(self, place: int, column: str, effect: Any, reason: str) -> None:
        row = int(self.table.rows[self.kept[place]])
        self.rejected.add(self.spec.file, row, self.ids[place], column, effect, reason)

    def _values(self, column: str, read: Callable[[Any, int], Any]) -> list[Any]:
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
                first = first or f"row {self.table.rows[self.kept[place]]}: {error}"
                self._complain(place, column, "cell dropped", str(error))
            there += value is not None
            values.append(value)
        where = f"{self.card.file(self.spec.file)}: cells of column {column!r}"
        self.rejected.check_limit(where, bad, bad + there, self.limit, first)
        return values


def _value(cell: Any, use: Column, entities: Mapping[str, int], card: Card) -> Any:
    """The cell as its role wants it, None where it is empty.

    Raises:
        BadCell: it is there and does not fit.
    """
    if use.role == "words":
        return words_in(cell, use.separator)
    parts = texts_in(cell)
    if use.role == "categories":
        return parts or None
    text = ", ".join(parts)
    if not text:
        return None
    if use.role == "number":
        return number_in(text)
    if use.role == "entity":
        return entities[text]
    if use.role in ("image", "audio"):
        path = card.file(text)
        if not path.is_file():
            raise BadCell(f"no file {path}")
        return path
    return text


def _add(content: dict[str, Any], column: str, use: Column, value: Any) -> None:
    if use.kind == "text":  # with None for a field that is not there: its place says which field it is
        content.setdefault(use.modality, []).append(value)
    elif use.kind == "table":
        content.setdefault(use.modality, {}).update({} if value is None else {column: value})
    else:
        content[use.modality] = value


def _any_there(value: Any) -> bool:
    return any(part is not None for part in value) if isinstance(value, (list, dict)) else value is not None
