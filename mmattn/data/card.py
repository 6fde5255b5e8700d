"""The card of a dataset: its files and the meaning of their columns.

    format: 1
    name: films
    items:
      file: items.parquet
      id: item
      columns:
        title: text
        plot: text
        genres: [categories, text]                       # one column, two uses
        year: number
        poster: image
        cover: {role: image, modality: back}             # a second image needs a modality of its own
        mood: labels                                     # targets are never content
    interactions: {file: interactions.parquet, user: user, item: item, time: time}
    graph: {file: triples.parquet, head: head, relation: relation, tail: tail}

Paths are relative to the card. A card is checked when it is loaded, including the files, so that a mistyped
key or a missing column is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from mmattn.data.roles import Column, GraphTable, InteractionTable, ItemTable, UserTable
from mmattn.data.tables import column_types
from mmattn.errors import InputError
from mmattn.files import write_text
from mmattn.schema import from_mapping, read_yaml

__all__ = ["Card", "Column", "GraphTable", "InteractionTable", "ItemTable", "UserTable"]

FORMAT = 1


@dataclass(frozen=True)
class Card:
    """The description of a dataset.

    Args:
        name: name of the dataset.
        items: the table of items.
        interactions: the table of interactions, if any.
        users: the table of users, if any.
        graph: the table of triples, if any.
        description: description for readers.
        licence: licence of the data.
        made_by: the command that wrote the folder, if any.
        format: version of this format.

    Raises:
        InputError: another version of the format.

    Example:
        >>> card = Card.parse({"name": "films", "items": {"file": "items.csv", "id": "id",
        ...                    "columns": {"title": "text", "poster": "image"}}})
        >>> card.items.modalities
        ('text', 'image')
    """

    name: str
    items: ItemTable
    interactions: InteractionTable | None = None
    users: UserTable | None = None
    graph: GraphTable | None = None
    description: str = ""
    licence: str = ""
    made_by: str = ""
    format: int = FORMAT
    path: Path | None = field(default=None, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise InputError(f"format: got {self.format}, expected {FORMAT}, the one this version reads")

    # --- reading and writing --------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Card:
        """Load and check a card, with the files that it names.

        Args:
            path: the YAML file, or a folder with card.yaml.

        Raises:
            InputError: in one line, the card's path, the key and what was expected.
        """
        card = cls.read(path)
        card.check_files()
        return card

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Card:
        """Load a card without checking the files that it names.

        Args:
            path: as in `load`.

        Raises:
            InputError: no such file, no YAML, or a wrong key or value.
        """
        path = card_path(path)
        card = cls.parse(read_yaml(path), where=str(path))
        object.__setattr__(card, "path", path)
        return card

    @classmethod
    def parse(cls, raw: Mapping[str, Any], where: str = "the card") -> Card:
        """Parse the mapping of a YAML file.

        Args:
            raw: the mapping.
            where: prefix of the error messages.

        Raises:
            InputError: a wrong key or value.
        """
        return from_mapping(cls, raw, where)

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping of the YAML file: `Card.parse(card.to_dict()) == card`."""
        texts = {name: getattr(self, name) for name in ("description", "licence", "made_by")}
        tables = {name: table for name in _TABLES if (table := getattr(self, name)) is not None}
        return {
            "format": self.format,
            "name": self.name,
            **{name: text for name, text in texts.items() if text},
            **{name: _table_to_dict(table) for name, table in tables.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the card atomically.

        Args:
            path: the YAML file, or the folder for card.yaml.

        Returns:
            The path of the file.
        """
        path = card_path(path)
        text = yaml.safe_dump(
            self.to_dict(), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
        )
        write_text(path, text)
        return path

    # --- the files ------------------------------------------------------------------------------

    def resolve_path(self, name: str) -> Path:
        """Resolve a file name of the card.

        Args:
            name: path relative to the card's folder, or an absolute path.
        """
        return (self.path.parent if self.path else Path()) / name

    def check_files(self) -> None:
        """Compare the card with the files.

        Raises:
            InputError: a missing file or column, or a role that does not fit the column's type.
        """
        for name in _TABLES:
            table = getattr(self, name)
            if table is None:
                continue
            file = self.resolve_path(table.file)
            if not file.is_file():
                raise InputError(f"{self._where}{name}.file: no file {file}")
            types = column_types(file)
            for key, column in table.named_columns.items():
                if column not in types:
                    raise InputError(
                        f"{self._where}{name}.{key}: no column {column!r} in {table.file}, "
                        f"which has {', '.join(types)}"
                    )
                uses = table.columns[column] if key.startswith("columns.") else (None,)
                for use in uses:
                    _check_type(f"{self._where}{name}.{key}", column, types[column], use)

    @property
    def _where(self) -> str:
        return f"{self.path}: " if self.path else ""


_TABLES = ("items", "interactions", "users", "graph")


def card_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a card's file.

    Args:
        path: the YAML file, or a folder with card.yaml.
    """
    path = Path(path)
    return path if path.suffix in (".yaml", ".yml") else path / "card.yaml"


def _check_type(where: str, column: str, column_type: pa.DataType, use: Column | None) -> None:
    """Refuse lists for single values and numbers for paths: a mistake in the card, not in single rows."""
    is_list = pa.types.is_list(column_type) or pa.types.is_large_list(column_type)
    role = use.role if use else "id"
    if is_list and role in ("id", "category", "number", "entity", "image", "audio", "transcript", "value"):
        raise InputError(
            f"{where}: column {column!r} holds {column_type}, expected single values for the role {role}"
        )
    is_number = pa.types.is_integer(column_type) or pa.types.is_floating(column_type)
    if is_number and role in ("image", "audio"):
        raise InputError(
            f"{where}: column {column!r} holds {column_type}, expected paths for the role {role}"
        )


def _table_to_dict(table: Any) -> dict[str, Any]:
    values = {field.name: getattr(table, field.name) for field in fields(table)}
    if "columns" in values:
        values["columns"] = {name: _uses_to_yaml(uses) for name, uses in table.columns.items()}
    return {name: value for name, value in values.items() if value not in (None, {})}


def _uses_to_yaml(uses: tuple[Column, ...]) -> Any:
    values = [_use_to_yaml(use) for use in uses]
    return values[0] if len(values) == 1 else values


def _use_to_yaml(use: Column) -> Any:
    default = Column(use.role)
    options = {
        name: value
        for name in ("modality", "separator", "annotates")
        if (value := getattr(use, name)) != getattr(default, name)
    }
    return {"role": use.role, **options} if options else use.role
