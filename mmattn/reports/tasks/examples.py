"""Predictions to look at: what is wrong at the test, drawn at random; the worst transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.boxes import Boxes
from mmattn.encoders.base import Unreadable
from mmattn.evaluation.tasks.entities import with_all_words
from mmattn.evaluation.tasks.error_rates import worst
from mmattn.experiments.tasks.data import TaskData
from mmattn.experiments.tasks.seed import TaskResult
from mmattn.reports.box_overlay import draw_boxes
from mmattn.types import Sample

__all__ = ["TaskExample", "Word", "examples_of"]

_MOST = 12
_SIDE = 480  # pixels of a picture with boxes


@dataclass(frozen=True)
class Word:
    """A word with the tag that is true and the one that was said."""

    text: str
    true: str
    said: str


@dataclass(frozen=True)
class TaskExample:
    """One item of the test part and what was said of it, in the first seed.

    Args:
        item: its id.
        picture: its picture, where it has one; of boxes, with the true and the predicted ones drawn on it.
        text: its text, or its words' sentence.
        has: contents that the task could look at.
        true: the target in words; "" where words or the picture show it.
        said: the prediction in words.
        words: of tagged sentences.
    """

    item: str
    picture: Path | bytes | None
    text: str
    has: tuple[str, ...]
    true: str = ""
    said: str = ""
    words: tuple[Word, ...] = ()


def examples_of(
    task: TaskData, result: TaskResult, samples: Sequence[Sample], sources: Mapping[str, str]
) -> tuple[TaskExample, ...]:
    """Up to twelve items: of transcripts those with most errors; otherwise wrong ones, or, of boxes, any.

    A vector says nothing by itself: none of these.

    Args:
        task: what was to be learned.
        result: of one seed.
        samples: all items.
        sources: encoder -> key of `Sample.content` that it reads.
    """
    said, true = result.predictions[task.name], task.learned("test")
    if task.kind == "vector":
        return ()
    if task.kind == "text":
        chosen = [mistake.row for mistake in worst(said, true, _MOST)]
    else:
        able = [row for row in range(len(true)) if task.kind == "boxes" or said[row] != true[row]]
        chosen = np.random.default_rng(0).permutation(able)[:_MOST].tolist()
    seen = {sources[name] for name in task.reads}
    return tuple(
        _example(samples[task.parts["test"][row]], true[row], said[row], task, seen) for row in chosen
    )


def _example(sample: Sample, true: Any, said: Any, task: TaskData, seen: set[str]) -> TaskExample:
    contents = {name: content for name, content in sample.content.items() if name in seen}
    picture = next((content for content in contents.values() if _is_picture(content)), None)
    texts = [content for content in contents.values() if isinstance(content, (str, list))]
    example: dict[str, Any] = {
        "item": sample.id,
        "picture": picture,
        "text": " ".join(_words(texts[0])) if texts else "",
        "has": tuple(contents),
    }
    if task.kind == "tags":
        words = _words(texts[0]) if texts else [""] * len(true)
        (tags,) = with_all_words([said], [true])
        example["words"] = tuple(Word(*each) for each in zip(words, true, tags, strict=False))
    elif task.kind == "boxes":
        example["picture"] = _drawn(picture, true, said, task.measure.names)
    else:
        example |= {"true": _in_words(true), "said": _in_words(said)}
    return TaskExample(**example)


def _drawn(picture: Path | None, true: Boxes, said: Boxes, names: Sequence[str]) -> bytes | None:
    try:
        return (
            None
            if picture is None
            else draw_boxes(picture, true, said, labels=names, side=_SIDE, legend=False)
        )
    except Unreadable:
        return None


def _is_picture(content: Any) -> bool:
    return isinstance(content, Path) and content.suffix.lower() not in (".flac", ".wav", ".ogg", ".mp3")


def _words(content: str | list[Any]) -> list[str]:
    return [content] if isinstance(content, str) else [word for word in content if word]


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"
