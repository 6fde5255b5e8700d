"""Cells of a table as the values that they stand for, or the reason why they are none."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from mmattn.data.tables import as_text

__all__ = ["BadCell", "is_empty", "json_in", "listed", "number_in", "parts_in", "texts_in", "words_in"]


class BadCell(ValueError):
    """A cell that is there and cannot be what its role says. The message is the reason."""


def texts_in(cell: Any) -> list[str]:
    """What stands in a cell, without empty parts: a list has several.

    Example:
        >>> texts_in([7.0, None, "a"]), texts_in(" b "), texts_in(None)
        (['7', 'a'], ['b'], [])
    """
    return [text for part in (cell if isinstance(cell, list) else [cell]) if (text := as_text(part))]


def is_empty(cell: Any) -> bool:
    """Does the cell say nothing? An empty list says that there is none of something."""
    return not isinstance(cell, list) and not as_text(cell)


def parts_in(cell: Any, separator: str) -> list[Any]:
    """A list as it stands, or text cut at each separator; a blank one stands for any white space.

    Example:
        >>> parts_in("a|b", "|"), parts_in(["a|b"], "|"), parts_in("so  it is ", " ")
        (['a', 'b'], ['a|b'], ['so', 'it', 'is'])
    """
    return cell if isinstance(cell, list) else as_text(cell).split(None if separator == " " else separator)


def words_in(cell: Any, separator: str) -> list[str] | None:
    """The words of a cell as they are; None where there is none.

    Raises:
        BadCell: one of them is no text, or empty: what is said of the words after it would move.

    Example:
        >>> words_in(["New", "York"], " "), words_in("New York", " "), words_in([], " ")
        (['New', 'York'], ['New', 'York'], None)
    """
    words = listed(cell, separator)
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str) or not word.strip():
            raise BadCell(f"word {number} of {len(words)} is {word!r}, expected text")
    return words or None


def listed(cell: Any, separator: str) -> list[Any]:
    """A list, text that is a JSON list, or text with a separator.

    Raises:
        BadCell: something else.
    """
    if is_empty(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with suppress(json.JSONDecodeError):  # words may begin with a bracket, too
            cell = json.loads(cell)
    if not isinstance(cell, (list, str, int, float)):
        raise BadCell(f"got {type(cell).__name__} {cell!r}, expected a list or text")
    return parts_in(cell, separator)


def json_in(cell: Any) -> list[Any]:
    """A list, or text that is a JSON list.

    Raises:
        BadCell: something else.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError as error:
            raise BadCell(f"got {_short(cell)}, expected a list, or JSON ({error.msg})") from error
    if not isinstance(cell, list):
        raise BadCell(f"got {_short(cell)}, expected a list")
    return cell


def number_in(text: str) -> float:
    """A finite number.

    Raises:
        BadCell: it is none.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadCell(f"got {text!r}, expected a finite number")
    return number


def _short(cell: Any, most: int = 60) -> str:
    text = repr(cell)
    return text if len(text) <= most else text[: most - 3] + "..."
