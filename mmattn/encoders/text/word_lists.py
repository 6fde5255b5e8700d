"""Texts that come as lists of words, of which each is to keep its place: what tagging works on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmattn.encoders.base import Unreadable

__all__ = ["as_words", "chunk_words"]


def as_words(content: Any) -> tuple[str, ...]:
    """The words of a content, as they are.

    Raises:
        Unreadable: it is no list of words, has none, or one is no text or nothing but white space.

    Example:
        >>> as_words(["New", "York"])
        ('New', 'York')
    """
    if not isinstance(content, (list, tuple)):
        raise Unreadable(f"got {type(content).__name__}, expected a list of words")
    if not content:
        raise Unreadable("got a list without words, expected at least one")
    for number, word in enumerate(content, start=1):
        if not isinstance(word, str) or not word.strip():
            raise Unreadable(f"word {number} of {len(content)} is {word!r}, expected text that is not empty")
    return tuple(content)


def chunk_words(sizes: Sequence[int], max_size: int) -> list[tuple[int, int]]:
    """Cut a text into runs of whole words that fit: (first word, behind the last) of each.

    Args:
        sizes: pieces of each word; a word that fits nowhere gets a run of its own.
        max_size: pieces that a run may have.

    Example:
        >>> chunk_words([2, 2, 1, 7, 1], max_size=4)
        [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    found, first, used = [], 0, 0
    for place, size in enumerate(sizes):
        if place > first and used + size > max_size:
            found.append((first, place))
            first, used = place, 0
        used += size
    return [*found, (first, len(sizes))] if sizes else []
