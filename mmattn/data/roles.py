"""What a card may say about each table: the columns and the roles that they play."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from mmattn.errors import InputError, did_you_mean
from mmattn.schema import from_mapping

__all__ = ["ROLES", "TARGET_ROLES", "Column", "GraphTable", "InteractionTable", "ItemTable", "UserTable"]

# Role -> the modality it belongs to where the card names none. Targets belong to none: they are kept beside
# the items, to learn from and to measure with, and never become content.
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
        "boxes": "",
    }
)
TARGET_ROLES = tuple(role for role, modality in ROLES.items() if not modality)

_CONTENT_KINDS = {"words": "words"}  # of content, where it is not called as the role's own modality
_SEPARATORS = {"words": " ", "tags": " "}
_ANNOTATED_KIND = {"tags": "words", "boxes": "image"}  # role -> the kind of modality that its cells speak of


@dataclass(frozen=True)
class Column:
    """One use of a column.

    Args:
        role: of content: "text", "words" (a list of words, taken as they are), "category" (one value),
            "categories" (a list), "number", "entity" (of the graph), "image" or "audio" (a path); of
            targets, which never are content: "label" (a name), "labels" (a list of names, which may be
            empty), "tags" (a list with a name for each of the words), "transcript" (text), "boxes" (a list
            of {label, box}, box being left, top, right and bottom in pixels of the upright picture).
            Where a file can hold text only, a list is JSON or has a separator; boxes are JSON.
        modality: the modality it belongs to; left out, the role's own ("text", "table", "image",
            "audio").
        separator: what stands between the parts of a list where the cell is text: "|", and white space
            for words and tags.
        annotates: the modality that tags or boxes speak of; left out, the only one of words or pictures.
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
        """Is it to be learned, and never content?"""
        return self.role in TARGET_ROLES

    @property
    def kind(self) -> str:
        """What the modality's content looks like: "text", "words", "table", "image", "audio", or "" for a
        target."""
        return _CONTENT_KINDS.get(self.role, ROLES[self.role])


@dataclass(frozen=True)
class UserTable:
    """Users and their content.

    Args:
        file: relative to the card.
        id: the column of ids.
        columns: column -> its use, or several: a `Column`, its mapping, or the bare name of a role.
            The order is that of the texts and of the modalities.
    """

    file: str
    id: str
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {name: _columns(name, uses) for name, uses in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        owner: dict[str, tuple[str, str]] = {}
        for name, column in self.uses():
            if column.is_target:
                continue
            kind, first = owner.get(column.modality, (column.kind, ""))
            if kind != column.kind:
                raise InputError(
                    f"columns.{name}: modality {column.modality!r} cannot be both {kind} and {column.kind}"
                )
            if first and (first == name or kind not in ("text", "table")):
                raise InputError(
                    f"columns.{name}: modality {column.modality!r} is given by column {first!r} already; "
                    "name another one: {role: " + column.role + ", modality: ...}"
                )
            owner[column.modality] = (kind, name)
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
        """(column name, use) of every use, in the card's order."""
        return ((name, column) for name, uses in self.columns.items() for column in uses)

    def annotated_modality(self, name: str, column: Column) -> str:
        """The modality that the tags or boxes of a column speak of; "" for other targets.

        Raises:
            InputError: there is no such modality, or there are several and the card does not say which.
        """
        kind = _ANNOTATED_KIND.get(column.role)
        if kind is None:
            return ""
        known = [use.modality for _, use in self.uses() if use.kind == kind]
        if column.annotates and column.annotates not in known:
            raise InputError(
                f"columns.{name}: no modality {column.annotates!r} of {kind}.{did_you_mean(column.annotates, known)}"
            )
        if not column.annotates and len(known) != 1:
            raise InputError(
                f"columns.{name}: {column.role} speak of a modality of {kind}, and the card has "
                f"{len(known)} of these{', name one with `annotates`: ' + ', '.join(known) if known else ''}"
            )
        return column.annotates or known[0]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the columns give, in the card's order."""
        return tuple(dict.fromkeys(column.modality for _, column in self.uses() if column.modality))

    @property
    def named_columns(self) -> dict[str, str]:
        """Place in the card -> column of the file, for everything the card names."""
        return {"id": self.id, **{f"columns.{name}": name for name in self.columns}}


@dataclass(frozen=True)
class ItemTable(UserTable):
    """Items and their content, as `UserTable`; `split` is a column of train, validation, test."""

    split: str | None = None

    @property
    def named_columns(self) -> dict[str, str]:
        return {**super().named_columns, **({"split": self.split} if self.split else {})}


@dataclass(frozen=True)
class InteractionTable:
    """Who met what: the columns of user and item; optionally of time (seconds since 1970, or ISO 8601),
    value (a number) and split (train, validation, test)."""

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
    """Triples: the columns of head, relation and tail. Heads and tails are entities."""

    file: str
    head: str
    relation: str
    tail: str

    @property
    def named_columns(self) -> dict[str, str]:
        return _named_columns(self)


def _named_columns(table: InteractionTable | GraphTable) -> dict[str, str]:
    columns = {each.name: getattr(table, each.name) for each in fields(table) if each.name != "file"}
    return {place: column for place, column in columns.items() if column is not None}


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
