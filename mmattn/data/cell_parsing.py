"""Parse table cells; raise BadCell with the reason."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

from mmattn.data.tables import as_text

__all__ = [
    "BadCell",
    "is_empty",
    "parse_json_list",
    "parse_list",
    "parse_number",
    "parse_texts",
    "parse_words",
    "split_list",
]


class BadCell(ValueError):
    """A cell whose value does not fit its role. The message is the reason."""


def parse_texts(cell: Any) -> list[str]:
    """Parse a cell into texts, without empty ones.

    Args:
        cell: a value, or a list of values.

    Returns:
        One text per value.

    Example:
        >>> parse_texts([7.0, None, "a"]), parse_texts(" b "), parse_texts(None)
        (['7', 'a'], ['b'], [])
    """
    return [text for part in (cell if isinstance(cell, list) else [cell]) if (text := as_text(part))]


def is_empty(cell: Any) -> bool:
    """Return whether a cell is empty. An empty list is a value, not an empty cell.

    Args:
        cell: the cell.
    """
    return not isinstance(cell, list) and not as_text(cell)


def split_list(cell: Any, separator: str) -> list[Any]:
    """Return a list unchanged, or split text at each separator.

    Args:
        cell: a list or text.
        separator: the separator; " " for any white space.

    Example:
        >>> split_list("a|b", "|"), split_list(["a|b"], "|"), split_list("so  it is ", " ")
        (['a', 'b'], ['a|b'], ['so', 'it', 'is'])
    """
    return cell if isinstance(cell, list) else as_text(cell).split(None if separator == " " else separator)


def parse_words(cell: Any, separator: str) -> list[str] | None:
    """Parse a cell into words, unchanged.

    Args:
        cell: a list, JSON, or text with separators.
        separator: separator of text.

    Returns:
        The words; None where there is none.

    Raises:
        BadCell: a word is no text, or empty; dropping it would shift the tags of the words after it.

    Example:
        >>> parse_words(["New", "York"], " "), parse_words("New York", " "), parse_words([], " ")
        (['New', 'York'], ['New', 'York'], None)
    """
    words = parse_list(cell, separator)
    for number, word in enumerate(words, start=1):
        if not isinstance(word, str) or not word.strip():
            raise BadCell(f"word {number} of {len(words)} is {word!r}, expected text")
    return words or None


def parse_list(cell: Any, separator: str) -> list[Any]:
    """Parse a list, a JSON list, or text with separators.

    Args:
        cell: the cell.
        separator: separator of text.

    Raises:
        BadCell: anything else.
    """
    if is_empty(cell):
        return []
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        with suppress(json.JSONDecodeError):  # words may begin with a bracket, too
            cell = json.loads(cell)
    if not isinstance(cell, (list, str, int, float)):
        raise BadCell(f"got {type(cell).__name__} {cell!r}, expected a list or text")
    return split_list(cell, separator)


def parse_json_list(cell: Any) -> list[Any]:
    """Parse a list or a JSON list.

    Args:
        cell: the cell.

    Raises:
        BadCell: anything else.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except json.JSONDecodeError as error:
            raise BadCell(f"got {_truncated_repr(cell)}, expected a list, or JSON ({error.msg})") from error
    if not isinstance(cell, list):
        raise BadCell(f"got {_truncated_repr(cell)}, expected a list")
    return cell


def parse_number(text: str) -> float:
    """Parse a finite number.

    Args:
        text: the number as text.

    Raises:
        BadCell: anything else.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadCell(f"got {text!r}, expected a finite number")
    return number


def _truncated_repr(cell: Any, max_length: int = 60) -> str:
    text = repr(cell)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
