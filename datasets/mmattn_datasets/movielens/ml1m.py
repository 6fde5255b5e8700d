"""Read MovieLens-1M with extras: interactions/, metadata/, and if present posters/ and kg/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn_datasets.movielens.raw import (
    REPLACEMENT_CHARACTER,
    FilmDetails,
    clean_title,
    read_fields,
    read_film_details,
    require_files,
    split_title,
)
from mmattn_datasets.movielens.tables import Film, PreparedTables

__all__ = ["REQUIRED", "add_extras", "read_ml1m", "read_triples"]

_INTERACTIONS = {"train": "interactions/train.txt", "test": "interactions/test.txt"}
_ITEM_MAP, _USER_MAP = "interactions/item_map.txt", "interactions/user_map.txt"
_MOVIES, _EXTRAS, _USERS = "metadata/movies.dat", "metadata/movies_extrainfos.dat", "metadata/users.dat"
_POSTERS, _TRIPLES, _ENTITIES = "posters", "kg/kg.txt", "kg/item_index2entity_id.txt"

REQUIRED = (*_INTERACTIONS.values(), _ITEM_MAP, _USER_MAP, _MOVIES)


def read_ml1m(root: Path, out: Path, rejected: RejectionLog) -> PreparedTables:
    """Read MovieLens-1M.

    Args:
        root: the folder with the files of `REQUIRED`.
        out: folder of the card: posters inside it get relative paths.
        rejected: log of the rejections.

    Returns:
        The tables.

    Raises:
        InputError: a required file is missing, or has no valid rows.
    """
    require_files(root, REQUIRED, "MovieLens-1M as expected here")
    items = _read_map(root, _ITEM_MAP, rejected)
    users = _read_map(root, _USER_MAP, rejected)
    films = _read_films(root, items, rejected)
    add_extras(films, root, out, rejected)
    if any(film.poster for film in films):
        for film in films:
            if not film.poster:
                reason = f"no {film.movielens_id}.jpg"
                rejected.add(_POSTERS, 0, str(film.item), "poster", "kept", reason)
    return PreparedTables(
        name="ml1m",
        description="MovieLens-1M as implicit feedback: who rated which film, split into train and test.",
        films=films,
        interactions=_read_interactions(root, set(items.values()), set(users.values()), rejected),
        interaction_columns={"split": "split"},
        triples=read_triples(root, rejected),
        users=_read_users(root, users, rejected),
    )


def add_extras(films: list[Film], root: Path, out: Path, rejected: RejectionLog) -> None:
    """Fill in people, plots, MPAA ratings, posters and entities, by original film id.

    A missing file is one rejection; a film without an entry in a file is not listed.

    Args:
        films: the films to fill in.
        root: the ml1m folder.
        out: folder of the card: posters inside it get relative paths.
        rejected: log of the rejections.
    """
    extras: dict[str, FilmDetails] = {}
    if _exists(root, _EXTRAS, rejected):
        extras = read_film_details(root, _EXTRAS, rejected)
    posters: set[str] = set()
    if _exists(root, _POSTERS, rejected):
        posters = {path.stem for path in (root / _POSTERS).glob("*.jpg")}
    entities: dict[str, int] = {}
    if _exists(root, _ENTITIES, rejected):
        entities = _read_map(root, _ENTITIES, rejected)
    for film in films:
        details = extras.get(film.movielens_id)
        if details:
            if film.title and REPLACEMENT_CHARACTER in film.title:
                film.title = clean_title(details.title)
            film.directors, film.writers, film.actors = details.directors, details.writers, details.actors
            film.plot, film.mpaa = details.plot, details.mpaa
        if film.movielens_id in posters:
            film.poster = _card_path(root / _POSTERS / f"{film.movielens_id}.jpg", out)
        film.entity = entities.get(film.movielens_id)


def read_triples(root: Path, rejected: RejectionLog) -> pd.DataFrame | None:
    """Read the triples.

    Args:
        root: the ml1m folder.
        rejected: log of the rejections.

    Returns:
        Columns head, relation, tail; None without the file.
    """
    if not _exists(root, _TRIPLES, rejected):
        return None
    first_lines: dict[tuple[int, str, int], int] = {}
    for line, (head, relation, tail) in read_fields(root, _TRIPLES, 3, rejected, separator="\t"):
        if not (head.isdecimal() and tail.isdecimal() and relation):
            reason = f"got {head!r}, {relation!r}, {tail!r}, expected entity, relation, entity"
            rejected.add(_TRIPLES, line, "", "", "row dropped", reason)
            continue
        first = first_lines.setdefault((int(head), relation, int(tail)), line)
        if first != line:
            rejected.add(_TRIPLES, line, "", "", "row dropped", f"the same triple as in line {first}")
    return pd.DataFrame(list(first_lines), columns=["head", "relation", "tail"])


def _exists(root: Path, name: str, rejected: RejectionLog) -> bool:
    if (root / name).exists():
        return True
    rejected.add(name, 0, "", "", "kept", "no such file; the films lack its data")
    return False


def _card_path(path: Path, out: Path) -> str:
    path, folder = path.resolve(), out.resolve()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _read_map(root: Path, name: str, rejected: RejectionLog) -> dict[str, int]:
    """Read lines of two distinct numbers, the original and the new id."""
    new_ids: dict[str, int] = {}
    used: set[int] = set()
    for line, (original, new) in read_fields(root, name, 2, rejected, separator=None):
        if not (original.isdecimal() and new.isdecimal()):
            reason = f"got {original!r} {new!r}, expected two numbers"
        elif original in new_ids or int(new) in used:
            reason = f"number {original} or {new} has come before"
        else:
            new_ids[original] = int(new)
            used.add(int(new))
            continue
        rejected.add(name, line, original, "", "row dropped", reason)
    if not new_ids:
        raise InputError(f"{root / name}: no good line, expected two numbers a line")
    return new_ids


def _read_films(root: Path, items: dict[str, int], rejected: RejectionLog) -> list[Film]:
    films = {original: Film(item=new, movielens_id=original) for original, new in items.items()}
    for line, (original, title, genres) in read_fields(root, _MOVIES, 3, rejected):
        if not original.isdecimal():
            rejected.add(
                _MOVIES, line, original, "", "row dropped", f"got id {original!r}, expected a number"
            )
            continue
        film = films.get(original)
        if film is None:
            continue  # films without interactions are not in the map
        if film.title is not None:
            rejected.add(_MOVIES, line, original, "", "row dropped", "the film has come before")
            continue
        film.title, film.year = split_title(title)
        film.genres = [genre for genre in genres.split("|") if genre]
        if film.year is None:
            rejected.add(_MOVIES, line, original, "year", "cell dropped", f"no year at the end of {title!r}")
    for film in films.values():
        if film.title is None:
            reason = f"film {film.movielens_id} is not in {_MOVIES}"
            rejected.add(_ITEM_MAP, 0, str(film.item), "title", "kept", reason)
    return [films[original] for original in sorted(items, key=items.__getitem__)]


def _read_users(root: Path, users: dict[str, int], rejected: RejectionLog) -> pd.DataFrame | None:
    """Read the attributes of the users in the map; None without the file."""
    if not _exists(root, _USERS, rejected):
        return None
    known = {original: fields for _, (original, *fields, _) in read_fields(root, _USERS, 5, rejected)}
    rows = [(new, *known.get(original, (None, None, None))) for original, new in users.items()]
    return pd.DataFrame(rows, columns=["user", "gender", "age", "occupation"]).sort_values("user")


def _read_interactions(root: Path, items: set[int], users: set[int], rejected: RejectionLog) -> pd.DataFrame:
    """Read lines `user item item ...`; train comes first, so that a pair in both files is training."""
    columns: dict[str, list[int]] = {"user": [], "item": [], "line": []}
    splits: list[str] = []
    for split, name in _INTERACTIONS.items():
        for line, text in enumerate((root / name).read_bytes().splitlines(), start=1):
            user, *user_items = _numbers(text, name, line, rejected) or [0]
            columns["user"] += [user] * len(user_items)
            columns["item"] += user_items
            columns["line"] += [line] * len(user_items)
            splits += [split] * len(user_items)
    pairs = pd.DataFrame({**columns, "split": splits}).astype(dict.fromkeys(columns, np.int64))
    unknown_user = ~pairs["user"].isin(users)
    unknown_item = ~pairs["item"].isin(items) & ~unknown_user
    repeated = pairs.duplicated(["user", "item"]) & ~unknown_user & ~unknown_item
    reasons = {
        "the user is not in user_map.txt": unknown_user,
        "not in item_map.txt": unknown_item,
        "the user has had it before": repeated,
    }
    for reason, bad in reasons.items():
        for user, item, line, split in pairs[bad].itertuples(index=False):
            rejected.add(_INTERACTIONS[split], line, str(user), "", "row dropped", f"item {item}: {reason}")
    good = pairs[~(unknown_user | unknown_item | repeated)]
    if len(good) < len(pairs) / 2 or good.empty:
        raise InputError(
            f"{root / 'interactions'}: {len(pairs) - len(good)} of {len(pairs)} interactions are bad, "
            "expected the users and items of user_map.txt and item_map.txt"
        )
    return good.drop(columns="line")


def _numbers(text: bytes, name: str, line: int, rejected: RejectionLog) -> list[int]:
    """Parse the numbers of a line; empty where the first one, the user, is invalid."""
    tokens = text.split()
    try:
        return [int(token) for token in tokens]
    except ValueError:
        good = [token for token in tokens if token.isdigit()]
        for token in tokens:
            if not token.isdigit():
                reason = f"got {token.decode('utf-8', 'replace')!r}, expected a number"
                rejected.add(name, line, "", "", "row dropped", reason)
        return [int(token) for token in good] if tokens[0].isdigit() else []
