"""Predictions beside their targets: which a report shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.boxes import Boxes

__all__ = [
    "MAX_EXAMPLES",
    "PredictedItem",
    "TaggedWord",
    "TaskExample",
    "TaskExamples",
    "format_value",
    "make_example",
    "sample_items",
    "word_list",
]

MAX_EXAMPLES = 12
_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".mp3")


@dataclass(frozen=True)
class PredictedItem:
    """A test item with its target and its prediction.

    Args:
        id: of the item.
        contents: what the task may read of it, by source: a text or list of words, a path, a mapping.
        target: its target.
        prediction: its prediction.
    """

    id: str
    contents: Mapping[str, Any]
    target: Any
    prediction: Any


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
        image: image of the item, if it has one.
        text: text of the item, or the sentence of its words.
        contents: contents that the task may read.
        target: target as text; "" if words or boxes show it.
        prediction: prediction as text.
        words: words of a tagged sentence.
        target_boxes: boxes to draw on the image.
        predicted_boxes: predicted boxes to draw on the image.
    """

    item: str
    image: Path | bytes | None = None
    text: str = ""
    contents: tuple[str, ...] = ()
    target: str = ""
    prediction: str = ""
    words: tuple[TaggedWord, ...] = ()
    target_boxes: Boxes | None = None
    predicted_boxes: Boxes | None = None


@dataclass(frozen=True)
class TaskExamples:
    """The examples of a task.

    Args:
        title: heading above them.
        note: how they were chosen and how they are drawn.
        cases: the examples.
        one_per_row: show a long text or sentence in each row, not several examples side by side.
    """

    title: str = "Examples of errors"
    note: str = "Test items of the first seed, sampled at random."
    cases: tuple[TaskExample, ...] = ()
    one_per_row: bool = False


def sample_items(items: Sequence[PredictedItem], max_items: int = MAX_EXAMPLES) -> list[PredictedItem]:
    """Sample items at random, always the same ones.

    Args:
        items: items to choose from.
        max_items: number of items, at most.

    Example:
        >>> items = [PredictedItem(str(number), {}, 1, 2) for number in range(30)]
        >>> [item.id for item in sample_items(items, 2)]
        ['2', '11']
    """
    return [items[row] for row in np.random.default_rng(0).permutation(len(items))[:max_items]]


def make_example(item: PredictedItem, **fields: Any) -> TaskExample:
    """Create an example with the item's first image and first text.

    Args:
        item: a test item.
        **fields: further fields of `TaskExample`, in place of target and prediction as text.
    """
    contents = item.contents.values()
    texts = [content for content in contents if isinstance(content, (str, list))]
    shown = fields or {"target": format_value(item.target), "prediction": format_value(item.prediction)}
    return TaskExample(
        item=item.id,
        image=next((content for content in contents if _is_image(content)), None),
        text=" ".join(word_list(texts[0])) if texts else "",
        contents=tuple(item.contents),
        **shown,
    )


def word_list(content: str | list[Any]) -> list[str]:
    """Return the words or fields of a text content that are not empty.

    Args:
        content: a text, or a list of words or fields.
    """
    return [content] if isinstance(content, str) else [word for word in content if word]


def format_value(value: Any) -> str:
    """Format a target or prediction.

    Args:
        value: text, number, list, or anything with a `str`.

    Example:
        >>> format_value(["b", "a"]), format_value([]), format_value(0.123456), format_value("cat")
        ('b, a', 'none', '0.1235', 'cat')
    """
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_image(content: Any) -> bool:
    return isinstance(content, Path) and content.suffix.lower() not in _AUDIO_SUFFIXES
