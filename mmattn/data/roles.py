"""The tables of a card: their columns and the roles of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from mmattn.errors import InputError, did_you_mean
from mmattn.schema import from_mapping

__all__ = ["ROLES", "TARGET_ROLES", "Column", "GraphTable", "InteractionTable", "ItemTable", "UserTable"]

# Role -> default modality. Targets belong to no modality: they are used for training and evaluation and never
# become content.
ROLES: Mapping[str, str] = MappingProxyType(
    {
        "text": "text",
        "words": "text",
        "categories": "table",
        "category": "table",
        "number": "table",
        "entity": "table",
        "image": "image",
        "audio": "audio",
        "label": "",
        "labels": "",
        "tags": "",
        "transcript": "",
        "value": "",
        "boxes": "",
    }
)
TARGET_ROLES = tuple(role for role, modality in ROLES.items() if not modality)

_CONTENT_KINDS = {"words": "words"}  # role -> kind of content, where it differs from the default modality
_SEPARATORS = {"words": " ", "tags": " "}
_ANNOTATED_KIND = {"tags": "words", "boxes": "image"}  # role -> kind of the modality that it annotates


@dataclass(frozen=True)
class Column:
    """One use of a column.

    Args:
        role: for content: "text", "words" (a list of words, unchanged), "category" (one value), "categories"
            (a list), "number", "entity" (of the graph), "image" or "audio" (a path); for targets: "label" (a
            name), "labels" (a list of names, may be empty), "tags" (a list with one name per word),
            "transcript" (text), "boxes" (a list of {label, box}; a box is left, top, right, bottom in pixels
            of the upright image). In files that hold text only, a list is JSON or has separators; boxes are
            JSON.
        modality: modality of the content; by default that of the role ("text", "table", "image", "audio").
        separator: separator of lists given as text; by default "|", or white space for words and tags.
        annotates: the modality that tags or boxes refer to; by default the only one of words or images.

    Raises:
        InputError: an unknown role, or an option that does not fit the role.
    """

    role: str
    modality: str = ""
    separator: str = ""
    annotates: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"no role {self.role!r}.{did_you_mean(self.role, ROLES)}")
        if self.is_target and self.modality:
            raise InputError(f"got modality {self.modality!r} for a {self.role}, which belongs to none")
        if self.annotates and self.role not in _ANNOTATED_KIND:
            raise InputError(
                f"got annotates {self.annotates!r} for a {self.role}, expected it for tags and boxes only"
            )
        if not self.separator:
            object.__setattr__(self, "separator", _SEPARATORS.get(self.role, "|"))
        if not self.modality:
            object.__setattr__(self, "modality", ROLES[self.role])

    @property
    def is_target(self) -> bool:
        """Whether this is a target, which never becomes content."""
        return self.role in TARGET_ROLES

    @property
    def kind(self) -> str:
        """Kind of content: "text", "words", "table", "image" or "audio"; "" for a target."""
        return _CONTENT_KINDS.get(self.role, ROLES[self.role])


@dataclass(frozen=True)
class UserTable:
    """Users and their content.

    Args:
        file: path relative to the card.
        id: the column of ids.
        columns: column -> its use or several uses, each a `Column`, a mapping of its fields, or the name of a
            role. The order of the columns is that of the texts and of the modalities.

    Raises:
        InputError: uses that contradict each other.
    """

    file: str
    id: str
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {name: _columns(name, uses) for name, uses in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        owners: dict[str, tuple[str, str]] = {}  # modality -> kind, first column
        for name, column in self.uses():
            if column.is_target:
                continue
            kind, first = owners.get(column.modality, (column.kind, ""))
            if kind != column.kind:
                raise InputError(
                    f"columns.{name}: modality {column.modality!r} cannot be both {kind} and {column.kind}"
                )
            if first and (first == name or kind not in ("text", "table")):
                raise InputError(
                    f"columns.{name}: modality {column.modality!r} is given by column {first!r} already; "
                    "name another one: {role: " + column.role + ", modality: ...}"
                )
            owners[column.modality] = (kind, name)
        for name, uses in columns.items():
            targets = [column for column in uses if column.is_target]
            if len(targets) > 1:
                raise InputError(
                    f"columns.{name}: got the targets {' and '.join(column.role for column in targets)}, "
                    "expected one a column"
                )
            for column in targets:
                self.annotated_modality(name, column)

    def uses(self) -> Iterator[tuple[str, Column]]:
        """Yield (column name, use) of every use, in the card's order."""
        return ((name, column) for name, uses in self.columns.items() for column in uses)

    def annotated_modality(self, name: str, column: Column) -> str:
        """Return the modality that the tags or boxes of a column refer to; "" for other roles.

        Args:
            name: name of the column.
            column: its use.

        Raises:
            InputError: there is no such modality, or there are several and `annotates` is missing.
        """
        kind = _ANNOTATED_KIND.get(column.role)
        if kind is None:
            return ""
        known = [use.modality for _, use in self.uses() if use.kind == kind]
        if column.annotates and column.annotates not in known:
            raise InputError(
                f"columns.{name}: no modality {column.annotates!r} of {kind}."
                f"{did_you_mean(column.annotates, known)}"
            )
        if not column.annotates and len(known) != 1:
            raise InputError(
                f"columns.{name}: {column.role} refer to a modality of {kind}, and the card has "
                f"{len(known)} of these{', name one with `annotates`: ' + ', '.join(known) if known else ''}"
            )
        return column.annotates or known[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the columns, in the card's order."""
        return tuple(dict.fromkeys(column.modality for _, column in self.uses() if column.modality))

    @property
    def named_columns(self) -> dict[str, str]:
        """Key in the card -> column of the file, for all columns that the card names."""
        return {"id": self.id, **{f"columns.{name}": name for name in self.columns}}


@dataclass(frozen=True)
class ItemTable(UserTable):
    """Items and their content.

    Args:
        file: as in `UserTable`.
        id: as in `UserTable`.
        columns: as in `UserTable`.
        split: column with "train", "validation" or "test".
    """

    split: str | None = None

    @property
    def named_columns(self) -> dict[str, str]:
        return {**super().named_columns, **({"split": self.split} if self.split else {})}


@dataclass(frozen=True)
class InteractionTable:
    """Interactions of users with items.

    Args:
        file: path relative to the card.
        user: column of user ids.
        item: column of item ids.
        time: column of times, seconds since 1970 or ISO 8601.
        value: column of numbers, for example ratings.
        split: column with "train", "validation" or "test".
    """

    file: str
    user: str
    item: str
    time: str | None = None
    value: str | None = None
    split: str | None = None

    @property
    def named_columns(self) -> dict[str, str]:
        return _named_columns(self)


@dataclass(frozen=True)
class GraphTable:
    """Triples of a knowledge graph.

    Args:
        file: path relative to the card.
        head: column of head entities.
        relation: column of relations.
        tail: column of tail entities.
    """

    file: str
    head: str
    relation: str
    tail: str

    @property
    def named_columns(self) -> dict[str, str]:
        return _named_columns(self)


def _named_columns(table: InteractionTable | GraphTable) -> dict[str, str]:
    columns = {entry.name: getattr(table, entry.name) for entry in fields(table) if entry.name != "file"}
    return {key: column for key, column in columns.items() if column is not None}


def _columns(name: Any, uses: Any) -> tuple[Column, ...]:
    if not isinstance(name, str) or not name:
        raise InputError(f"columns: got column {name!r}, expected text (in quotes where YAML sees a number)")
    uses = tuple(uses) if isinstance(uses, (list, tuple)) else (uses,)
    if not uses:
        raise InputError(f"columns.{name}: got no use, expected a role or several")
    return tuple(_column(f"columns.{name}", use) for use in uses)


def _column(where: str, use: Any) -> Column:
    if isinstance(use, Column):
        return use
    return from_mapping(Column, use if isinstance(use, Mapping) else {"role": use}, where)
