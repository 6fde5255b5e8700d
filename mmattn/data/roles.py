"""What a card may say about each table: the columns and the roles that they play."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any

from mmattn.errors import InputError, nearest
from mmattn.schema import from_mapping

__all__ = ["ROLES", "Column", "GraphTable", "InteractionTable", "ItemTable", "UserTable"]

# Role -> the kind of modality it gives, which is also the modality's name where the card names none.
# A label is kept beside the items for evaluation and never becomes content.
ROLES: Mapping[str, str] = MappingProxyType(
    {
        "text": "text",
        "categories": "table",
        "category": "table",
        "number": "table",
        "entity": "table",
        "image": "image",
        "audio": "audio",
        "label": "",
    }
)


@dataclass(frozen=True)
class Column:
    """One use of a column.

    Args:
        role: "text", "category" (one value), "categories" (a list, or text with a separator),
            "number", "entity" (of the graph), "image" or "audio" (a path), or "label" (for
            evaluation only, never content).
        modality: the modality it belongs to; left out, the role's own ("text", "table", "image",
            "audio").
        separator: what stands between the categories where the cell is text.
    """

    role: str
    modality: str = ""
    separator: str = "|"

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"no role {self.role!r}.{nearest(self.role, ROLES)}")
        if self.role == "label" and self.modality:
            raise InputError(f"got modality {self.modality!r} for a label, which belongs to none")
        if not self.separator:
            raise InputError("got an empty separator, expected at least one character")
        if not self.modality:
            object.__setattr__(self, "modality", ROLES[self.role])

    @property
    def kind(self) -> str:
        """What the modality's content looks like: "text", "table", "image", "audio", or "" for a label."""
        return ROLES[self.role]


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
            if column.role == "label":
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

    def uses(self) -> Iterator[tuple[str, Column]]:
        """(column name, use) of every use, in the card's order."""
        return ((name, column) for name, uses in self.columns.items() for column in uses)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the columns give, in the card's order."""
        return tuple(dict.fromkeys(column.modality for _, column in self.uses() if column.modality))

    @property
    def named(self) -> dict[str, str]:
        """Place in the card -> column of the file, for everything the card names."""
        return {"id": self.id, **{f"columns.{name}": name for name in self.columns}}


@dataclass(frozen=True)
class ItemTable(UserTable):
    """Items and their content, as `UserTable`; `split` is a column of train, validation, test."""

    split: str | None = None

    @property
    def named(self) -> dict[str, str]:
        return {**super().named, **({"split": self.split} if self.split else {})}


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
    def named(self) -> dict[str, str]:
        return _named(self)


@dataclass(frozen=True)
class GraphTable:
    """Triples: the columns of head, relation and tail. Heads and tails are entities."""

    file: str
    head: str
    relation: str
    tail: str

    @property
    def named(self) -> dict[str, str]:
        return _named(self)


def _named(table: InteractionTable | GraphTable) -> dict[str, str]:
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
