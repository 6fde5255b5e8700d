"""Write the files of a prepared MovieLens folder and its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmattn.data.card import Card
from mmattn.data.rejected import RejectionLog
from mmattn.files import atomic_path

__all__ = ["SPARSE_CARD", "Film", "PreparedTables", "write_folder"]

LICENCE = (
    "MovieLens: research use, no redistribution without permission of GroupLens; plots come from IMDb; "
    "posters are studio artwork for local research only; triples are MIT (hwwang55/MKR)"
)

# The order is that of the texts.
_ROLES: Mapping[str, Any] = {
    "title": ["text", "label"],
    "year": ["text", "number"],
    "genres": ["text", "categories"],
    "directors": ["text", "categories"],
    "actors": ["text", "categories"],
    "plot": "text",
    "writers": "categories",
    "mpaa": "category",
    "poster": "image",
    "entity": "entity",
    "movielens_id": "label",
}

# A second card over the same tables, with the columns of most catalogues.
SPARSE_CARD = "sparse.yaml"
_SPARSE_ROLES: Mapping[str, Any] = {"title": ["text", "label"], "genres": "categories", "poster": "image"}


@dataclass
class Film:
    """One row of items.parquet; unknown values are None or an empty list.

    Args:
        item: id of the item in the interactions.
        movielens_id: id of the film in the original files.
        title: title without the year.
        year: year of release.
        genres: names of the genres.
        directors: names.
        actors: names.
        plot: plot summary.
        writers: names.
        mpaa: MPAA rating.
        poster: path of the poster, absolute or relative to the card.
        entity: knowledge-graph entity.
    """

    item: int | str
    movielens_id: str
    title: str | None = None
    year: int | None = None
    genres: list[str] = field(default_factory=list)
    directors: list[str] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)
    plot: str | None = None
    writers: list[str] = field(default_factory=list)
    mpaa: str | None = None
    poster: str | None = None
    entity: int | None = None


@dataclass
class PreparedTables:
    """The tables read from a layout of raw files.

    Args:
        name: name of the dataset.
        description: description for the card.
        films: the items.
        interactions: columns user, item, and those of `interaction_columns`.
        interaction_columns: key in the card -> column, besides user and item.
        triples: columns head, relation, tail, or None.
        users: columns user, gender, age, occupation, or None.
    """

    name: str
    description: str
    films: list[Film]
    interactions: pd.DataFrame
    interaction_columns: dict[str, str]
    triples: pd.DataFrame | None = None
    users: pd.DataFrame | None = None


def write_folder(prepared: PreparedTables, out: Path, rejected: RejectionLog) -> Card:
    """Write the tables, rejected.csv, sparse.yaml, and last card.yaml: a folder with a card is complete.

    Args:
        prepared: the tables.
        out: the folder.
        rejected: log of the rejections.

    Returns:
        The card, loaded and checked.
    """
    films = pd.DataFrame([vars(film) for film in prepared.films])
    films = films.astype({"year": "Int64", "entity": "Int64"})
    # Columns without any value are left out of the table and of the card.
    roles = {
        name: role
        for name, role in _ROLES.items()
        if any(getattr(film, name) not in (None, []) for film in prepared.films)
    }
    raw: dict[str, Any] = {
        "name": prepared.name,
        "description": prepared.description,
        "licence": LICENCE,
        "items": {"file": "items.parquet", "id": "item", "columns": roles},
        "interactions": {
            "file": "interactions.parquet",
            "user": "user",
            "item": "item",
            **prepared.interaction_columns,
        },
    }
    _write(films[["item", *roles]], out / "items.parquet")
    _write(prepared.interactions, out / "interactions.parquet")
    if prepared.users is not None:
        _write(prepared.users, out / "users.parquet")
        roles = dict.fromkeys(("gender", "age", "occupation"), "category")
        raw["users"] = {"file": "users.parquet", "id": "user", "columns": roles}
    if prepared.triples is not None:
        _write(prepared.triples, out / "triples.parquet")
        raw["graph"] = {"file": "triples.parquet", "head": "head", "relation": "relation", "tail": "tail"}
    rejected.write(out / "rejected.csv")
    Card.parse(_sparse(raw)).save(out / SPARSE_CARD)
    return Card.load(Card.parse(raw).save(out))


def _sparse(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The card with title, genres and poster only: no people, plots, years, users or triples."""
    columns = {name: role for name, role in _SPARSE_ROLES.items() if name in raw["items"]["columns"]}
    shared = {name: raw[name] for name in ("description", "licence", "interactions")}
    return {"name": f"{raw['name']}-sparse", **shared, "items": {**raw["items"], "columns": columns}}


def _write(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)
