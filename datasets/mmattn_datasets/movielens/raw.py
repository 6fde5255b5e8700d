"""Read the raw files of MovieLens: mixed encodings, lost letters, malformed lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmattn.data.rejected import RejectionLog
from mmattn.errors import InputError

__all__ = [
    "REPLACEMENT_CHARACTER",
    "FilmDetails",
    "clean_title",
    "parse_people",
    "read_fields",
    "read_film_details",
    "require_files",
    "split_title",
]

# Stands for a letter that was lost in the published copies.
REPLACEMENT_CHARACTER = "\ufffd"

_ARTICLES = "The|A|An|La|Le|Les|L'|Il|I|El|Los|Las|Das|Der|Die|Det|O"
_INVERTED = re.compile(rf"(^|\()([^()]*), ({_ARTICLES})\s*(?=\(|\)|$)")
_YEAR = re.compile(r"\s*\((\d{4})(?:\s*[–-]\s*\d{0,4})?\s*\)\s*$")


@dataclass(frozen=True)
class FilmDetails:
    """Details of a film in movies_extrainfos.dat.

    Args:
        title: title with its letters intact.
        mpaa: MPAA rating.
        directors: names.
        writers: names.
        actors: names.
        plot: plot summary.
    """

    title: str
    mpaa: str | None
    directors: list[str]
    writers: list[str]
    actors: list[str]
    plot: str | None


def require_files(root: Path, files: Sequence[str], what: str) -> None:
    """Check that the raw files exist.

    Args:
        root: the folder.
        files: names of the files.
        what: name of the layout, for the message.

    Raises:
        InputError: a file is missing; the message names all of them.
    """
    missing = [name for name in files if not (root / name).exists()]
    if missing:
        raise InputError(f"{root}: not {what}, which has {', '.join(files)}; missing: {', '.join(missing)}")


def read_fields(
    root: Path, name: str, count: int, rejected: RejectionLog, separator: str | None = "::"
) -> list[tuple[int, list[str]]]:
    """Read the lines with a given number of fields; other lines are rejected.

    The original files are Latin-1; many copies are UTF-8, some with lost letters. A line is decoded as UTF-8
    if that is valid, otherwise as Latin-1.

    Args:
        root: the folder.
        name: name of the file.
        count: expected number of fields.
        rejected: log of the rejections.
        separator: separator of the fields; None for white space.

    Returns:
        Line number and fields of each valid line.
    """
    rows = []
    for line, raw in enumerate((root / name).read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        fields = [field.strip() for field in text.strip().split(separator)]
        if len(fields) == count:
            rows.append((line, fields))
        else:
            reason = f"got {len(fields)} fields, expected {count}"
            rejected.add(name, line, fields[0], "", "row dropped", reason)
    return rows


def read_film_details(root: Path, name: str, rejected: RejectionLog) -> dict[str, FilmDetails]:
    """Read movies_extrainfos.dat; "N/A" is a missing value.

    Args:
        root: the folder.
        name: name of the file.
        rejected: log of the rejections.

    Returns:
        original film id -> details.
    """
    details: dict[str, FilmDetails] = {}
    for line, fields in read_fields(root, name, 11, rejected):
        film, title, _, mpaa, _, _, directors, writers, actors, plot, _ = fields
        if film in details:
            rejected.add(name, line, film, "", "row dropped", "the film has come before")
            continue
        details[film] = FilmDetails(
            title=title,
            mpaa=_none_if_missing(mpaa),
            directors=parse_people(directors),
            writers=parse_people(writers),
            actors=parse_people(actors),
            plot=_none_if_missing(plot),
        )
    return details


def parse_people(text: str) -> list[str]:
    """Parse a list of people into distinct names, without the roles in brackets.

    Args:
        text: names separated by commas.

    Example:
        >>> parse_people("Joss Whedon (screenplay by), Pete Docter, Joss Whedon (story, with others)")
        ['Joss Whedon', 'Pete Docter']
    """
    names = [part.strip() for part in re.sub(r"\([^()]*\)", "", text).split(",")]
    return [name for name in dict.fromkeys(names) if _none_if_missing(name)]


def split_title(text: str) -> tuple[str, int | None]:
    """Split a title and its year.

    Args:
        text: a title, perhaps with a year in brackets at the end.

    Returns:
        The cleaned title, and the year or None.

    Example:
        >>> split_title("City of Lost Children, The (Cité des enfants perdus, La) (1995)")
        ('The City of Lost Children (La Cité des enfants perdus)', 1995)
        >>> split_title("Babylon 5")
        ('Babylon 5', None)
    """
    year = _YEAR.search(text)
    title = text[: year.start()] if year else text
    return clean_title(title), int(year[1]) if year else None


def clean_title(title: str) -> str:
    """Move the article to the front of a title: MovieLens has "Usual Suspects, The".

    Args:
        title: the title, without its year.
    """

    def article_first(match: re.Match[str]) -> str:
        opening, rest, article = match.groups()
        between = "" if article.endswith("'") else " "
        return f"{opening}{article}{between}{rest.strip()} "

    cleaned = _INVERTED.sub(article_first, title.strip())
    return cleaned.replace(" )", ")").strip()


def _none_if_missing(text: str) -> str | None:
    return text if text and text != "N/A" else None
