"""The raw files of MovieLens as they really are: odd encodings, lost letters, lines that do not fit."""

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

# What stands where a letter was lost before we got the file.
REPLACEMENT_CHARACTER = "\ufffd"

_ARTICLES = "The|A|An|La|Le|Les|L'|Il|I|El|Los|Las|Das|Der|Die|Det|O"
_INVERTED = re.compile(rf"(^|\()([^()]*), ({_ARTICLES})\s*(?=\(|\)|$)")
_YEAR = re.compile(r"\s*\((\d{4})(?:\s*[–-]\s*\d{0,4})?\s*\)\s*$")


@dataclass(frozen=True)
class FilmDetails:
    """What movies_extrainfos.dat knows of a film beyond title and genres."""

    title: str
    mpaa: str | None
    directors: list[str]
    writers: list[str]
    actors: list[str]
    plot: str | None


def require_files(root: Path, files: Sequence[str], what: str) -> None:
    """Check that the raw files are there.

    Raises:
        InputError: one line that names each missing file.
    """
    missing = [name for name in files if not (root / name).exists()]
    if missing:
        raise InputError(f"{root}: not {what}, which has {', '.join(files)}; missing: {', '.join(missing)}")


def read_fields(
    root: Path, name: str, count: int, rejected: RejectionLog, separator: str | None = "::"
) -> list[tuple[int, list[str]]]:
    """Lines of `count` fields, with their line numbers; other lines are listed as rejected.

    The files were written in Latin-1; copies in circulation are UTF-8, some with lost letters. So a
    line is read as UTF-8 where it is UTF-8, and as Latin-1 otherwise.
    """
    found = []
    for line, raw in enumerate((root / name).read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        fields = [field.strip() for field in text.strip().split(separator)]
        if len(fields) == count:
            found.append((line, fields))
        else:
            reason = f"got {len(fields)} fields, expected {count}"
            rejected.add(name, line, fields[0], "", "row dropped", reason)
    return found


def read_film_details(root: Path, name: str, rejected: RejectionLog) -> dict[str, FilmDetails]:
    """movies_extrainfos.dat: original film id -> what it knows. "N/A" is absent."""
    found: dict[str, FilmDetails] = {}
    for line, fields in read_fields(root, name, 11, rejected):
        film, title, _, mpaa, _, _, directors, writers, actors, plot, _ = fields
        if film in found:
            rejected.add(name, line, film, "", "row dropped", "the film has come before")
            continue
        found[film] = FilmDetails(
            title=title,
            mpaa=_none_if_missing(mpaa),
            directors=parse_people(directors),
            writers=parse_people(writers),
            actors=parse_people(actors),
            plot=_none_if_missing(plot),
        )
    return found


def parse_people(text: str) -> list[str]:
    """Names, each once, without what they did.

    Example:
        >>> parse_people("Joss Whedon (screenplay by), Pete Docter, Joss Whedon (story, with others)")
        ['Joss Whedon', 'Pete Docter']
    """
    bare = re.sub(r"\([^()]*\)", "", text)
    return [
        name for name in dict.fromkeys(part.strip() for part in bare.split(",")) if _none_if_missing(name)
    ]


def split_title(text: str) -> tuple[str, int | None]:
    """Title and year.

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
    """A title with its article where one says it: MovieLens sorts "Usual Suspects, The"."""

    def turn(found: re.Match[str]) -> str:
        opening, rest, article = found.groups()
        between = "" if article.endswith("'") else " "
        return f"{opening}{article}{between}{rest.strip()} "

    turned = _INVERTED.sub(turn, title.strip())
    return turned.replace(" )", ")").strip()


def _none_if_missing(text: str) -> str | None:
    return text if text and text != "N/A" else None
