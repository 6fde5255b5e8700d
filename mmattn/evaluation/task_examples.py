"""Predictions to look at: what is wrong at the test, drawn at random; the worst transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.boxes import Boxes
from mmattn.evaluation.task_data import TaskData
from mmattn.evaluation.task_result import TaskResult
from mmattn.evaluation.transcripts import worst
from mmattn.types import Sample

__all__ = ["Box", "TaskExample", "Word", "examples_of"]

_MOST = 12
_SHOWN_SCORE = 0.5  # boxes below this confidence are not drawn


@dataclass(frozen=True)
class Word:
    """A word with the tag that is true and the one that was said."""

    text: str
    true: str
    said: str


@dataclass(frozen=True)
class Box:
    """A box on a picture, its sides in percent of it.

    Args:
        left, top, width, height: percent.
        label: of the box.
        said: it was predicted; otherwise it is true.
        score: confidence of a predicted one.
    """

    left: float
    top: float
    width: float
    height: float
    label: str
    said: bool
    score: float | None = None


@dataclass(frozen=True)
class TaskExample:
    """One item of the test part and what was said of it, in the first seed.

    Args:
        item: its id.
        picture: its picture, where it has one.
        text: its text, or its words' sentence.
        has: contents that the task could look at.
        true: the target in words; "" where words or boxes show it.
        said: the prediction in words.
        words: of tagged sentences.
        boxes: true and predicted ones.
    """

    item: str
    picture: Path | None
    text: str
    has: tuple[str, ...]
    true: str = ""
    said: str = ""
    words: tuple[Word, ...] = ()
    boxes: tuple[Box, ...] = ()


def examples_of(
    task: TaskData, result: TaskResult, samples: Sequence[Sample], sources: Mapping[str, str]
) -> tuple[TaskExample, ...]:
    """Up to twelve items: of transcripts those with most errors; otherwise wrong ones, or, of boxes, any.

    Args:
        task: what was to be learned.
        result: of one seed.
        samples: all items.
        sources: encoder -> key of `Sample.content` that it reads.
    """
    said, true = result.predictions[task.name], task.learned("test")
    if task.kind == "text":
        chosen = [mistake.row for mistake in worst(said, true, _MOST)]
    else:
        able = [row for row in range(len(true)) if task.kind == "boxes" or said[row] != true[row]]
        chosen = np.random.default_rng(0).permutation(able)[:_MOST].tolist()
    seen = {sources[name] for name in task.reads}
    return tuple(
        _example(samples[task.parts["test"][row]], true[row], said[row], task.kind, seen) for row in chosen
    )


def _example(sample: Sample, true: Any, said: Any, kind: str, seen: set[str]) -> TaskExample:
    contents = {name: content for name, content in sample.content.items() if name in seen}
    picture = next((content for content in contents.values() if _is_picture(content)), None)
    texts = [content for content in contents.values() if isinstance(content, (str, list))]
    example: dict[str, Any] = {
        "item": sample.id,
        "picture": picture,
        "text": " ".join(_words(texts[0])) if texts else "",
        "has": tuple(contents),
    }
    if kind == "tags":
        padded = [*said, *["O"] * (len(true) - len(said))]
        words = _words(texts[0]) if texts else [""] * len(true)
        example["words"] = tuple(Word(*each) for each in zip(words, true, padded, strict=False))
    elif kind == "boxes":
        example["boxes"] = (*_boxes(true, said=False), *_boxes(said, said=True))
    else:
        example |= {"true": _in_words(true), "said": _in_words(said)}
    return TaskExample(**example)


def _is_picture(content: Any) -> bool:
    return isinstance(content, Path) and content.suffix.lower() not in (".flac", ".wav", ".ogg", ".mp3")


def _words(content: str | list[Any]) -> list[str]:
    return [content] if isinstance(content, str) else [word for word in content if word]


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"


def _boxes(boxes: Boxes, said: bool) -> list[Box]:
    height, width = boxes.size
    scores = [None] * len(boxes) if boxes.scores is None else boxes.scores.tolist()
    return [
        Box(
            100 * left / width, 100 * top / height, 100 * (right - left) / width,
            100 * (bottom - top) / height, label, said, score,
        )
        for (left, top, right, bottom), label, score in zip(
            boxes.boxes.tolist(), boxes.labels, scores, strict=True
        )
        if score is None or score >= _SHOWN_SCORE
    ]  # fmt: skip
