"""Predictions beside their targets, as a report shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["TaggedWord", "TaskExample"]


@dataclass(frozen=True)
class TaggedWord:
    """A word with its target tag and its predicted tag.

    Args:
        text: the word.
        target: target tag.
        prediction: predicted tag.
    """

    text: str
    target: str
    prediction: str


@dataclass(frozen=True)
class TaskExample:
    """One test item and its prediction, in the first seed.

    Args:
        item: its id.
        image: image of the item, where it has one; for boxes, with target and predicted boxes drawn.
        text: text of the item, or the sentence of its words.
        contents: contents that the task may read.
        target: target as text; "" where `words` or `image` show it.
        prediction: prediction as text.
        words: words of a tagged sentence.
    """

    item: str
    image: Path | bytes | None
    text: str
    contents: tuple[str, ...]
    target: str = ""
    prediction: str = ""
    words: tuple[TaggedWord, ...] = ()
