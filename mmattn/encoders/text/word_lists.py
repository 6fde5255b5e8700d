"""Texts as lists of words, as in tagging, where every word keeps its index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmattn.encoders.base import Unreadable

__all__ = ["as_words", "chunk_words"]


def as_words(content: Any) -> tuple[str, ...]:
    """Check that a content is a list of words.

    Args:
        content: a list or tuple of words.

    Returns:
        The words, unchanged.

    Raises:
        Unreadable: no list, an empty one, or a word that is not text or only white space.

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
    """Divide a text into chunks of whole words.

    Args:
        sizes: word pieces of each word; a word above `max_size` gets a chunk of its own.
        max_size: maximum word pieces per chunk.

    Returns:
        (start, end) word indices of each chunk.

    Example:
        >>> chunk_words([2, 2, 1, 7, 1], max_size=4)
        [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    chunks, start, chunk_size = [], 0, 0
    for index, size in enumerate(sizes):
        if index > start and chunk_size + size > max_size:
            chunks.append((start, index))
            start, chunk_size = index, 0
        chunk_size += size
    return [*chunks, (start, len(sizes))] if sizes else []
