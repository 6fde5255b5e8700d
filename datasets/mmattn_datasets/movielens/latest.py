"""Read ml-latest-small: ratings with timestamps, from the zip of GroupLens or its unpacked folder."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from mmattn.data.card import Card
from mmattn.data.reader import read_dataset
from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError
from mmattn_datasets.movielens.ml1m import add_extras, read_triples
from mmattn_datasets.movielens.raw import require_files, split_title
from mmattn_datasets.movielens.tables import Film, PreparedTables

__all__ = ["REQUIRED", "find_latest_small", "read_latest_small"]

REQUIRED = ("movies.csv", "ratings.csv")


def find_latest_small(root: Path) -> Path | None:
    """Find the zip or the folder with the CSV files.

    Args:
        root: the zip, the folder, or the parent of either.

    Returns:
        Its path, or None where there is none.
    """
    if root.suffix == ".zip":
        return root if root.is_file() else None
    candidates = [root, root / "ml-latest-small", root / "ml-latest-small.zip"]
    return next((path for path in candidates if path.is_file() or (path / REQUIRED[0]).is_file()), None)


def read_latest_small(source: Path, extras: Path | None, out: Path, rejected: RejectionLog) -> PreparedTables:
    """Read ml-latest-small.

    Args:
        source: the zip or folder, from `find_latest_small`.
        extras: an ml1m folder whose people, plots, posters and triples are joined by film id, or None.
        out: folder of the card: posters inside it get relative paths.
        rejected: log of the rejections.

    Returns:
        The tables.

    Raises:
        InputError: missing or damaged files, or mostly bad rows.
    """
    if source.is_dir():
        return _read_folder(source, extras, out, rejected)
    with tempfile.TemporaryDirectory() as folder:
        _extract_files(source, Path(folder))
        try:
            return _read_folder(Path(folder), extras, out, rejected)
        except InputError as error:
            raise InputError(str(error).replace(folder, str(source))) from error


def _extract_files(archive: Path, folder: Path) -> None:
    """Extract only the required files, under fixed names: a path in a zip may point anywhere."""
    try:
        with zipfile.ZipFile(archive) as contents:
            members = {PurePosixPath(name).name: name for name in contents.namelist()}
            missing = [name for name in REQUIRED if name not in members]
            if missing:
                raise InputError(f"{archive}: not ml-latest-small, missing in it: {', '.join(missing)}")
            for name in REQUIRED:
                (folder / name).write_bytes(contents.read(members[name]))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(f"{archive}: not a whole zip ({error}), expected ml-latest-small.zip") from error


def _read_folder(folder: Path, extras: Path | None, out: Path, rejected: RejectionLog) -> PreparedTables:
    require_files(folder, REQUIRED, "ml-latest-small")
    columns = {"title": "label", "genres": "label"}
    raw = Card.parse(
        {
            "name": "raw",
            "items": {"file": str(folder / "movies.csv"), "id": "movieId", "columns": columns},
            "interactions": {
                "file": str(folder / "ratings.csv"),
                "user": "userId",
                "item": "movieId",
                "time": "timestamp",
                "value": "rating",
            },
        }
    )
    raw.check_files()
    dataset = read_dataset(raw)
    for row in dataset.rejected:
        rejected.add(Path(row.table).name, row.row, row.id, row.column, row.effect, row.reason)
    films = _films(dataset.item_ids, dataset.labels["title"], dataset.labels["genres"], rejected)
    if extras is not None:
        require_files(extras, ("metadata/movies_extrainfos.dat",), "the extras of MovieLens-1M")
        add_extras(films, extras, out, rejected)
    ratings = dataset.interactions
    return PreparedTables(
        name="ml-latest-small",
        description="MovieLens ml-latest-small: ratings from half a star to five, with their times.",
        films=films,
        interactions=pd.DataFrame(
            {
                "user": [dataset.user_ids[user] for user in ratings.users],
                "item": [films[item].item for item in ratings.items],
                "time": ratings.time,
                "rating": ratings.value,
            }
        ),
        interaction_columns={"time": "time", "value": "rating"},
        triples=None if extras is None else read_triples(extras, rejected),
    )


def _films(ids: Sequence[str], titles: np.ndarray, genres: np.ndarray, rejected: RejectionLog) -> list[Film]:
    films = []
    for row, (id, title, genre_list) in enumerate(zip(ids, titles, genres, strict=True), start=1):
        film = Film(item=id, movielens_id=id)
        film.title, film.year = split_title(title)
        if film.year is None:
            reason = f"no year at the end of {title!r}"
            rejected.add("movies.csv", row, id, "year", "cell dropped", reason)
        if genre_list != "(no genres listed)":
            film.genres = [genre for genre in genre_list.split("|") if genre]
        films.append(film)
    return films
