"""Predictions to look at: what is wrong at the test, drawn at random; the worst transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmattn.boxes import Boxes
from mmattn.encoders.base import Unreadable
from mmattn.evaluation.tasks.entities import pad_tags
from mmattn.evaluation.tasks.error_rates import worst_predictions
from mmattn.evaluation.tasks.examples import TaggedWord, TaskExample
from mmattn.experiments.tasks.data import TaskData
from mmattn.experiments.tasks.seed import TaskSeedResult
from mmattn.reports.box_overlay import draw_boxes
from mmattn.types import Sample

__all__ = ["examples_of"]

_MAX_EXAMPLES = 12
_IMAGE_SIDE = 480  # pixels of a picture with boxes


def examples_of(
    task: TaskData, result: TaskSeedResult, samples: Sequence[Sample], sources: Mapping[str, str]
) -> tuple[TaskExample, ...]:
    """Up to twelve items: of transcripts those with most errors; otherwise wrong ones, or, of boxes, any.

    A vector says nothing by itself: none of these.

    Args:
        task: what was to be learned.
        result: of one seed.
        samples: all items.
        sources: encoder -> key of `Sample.content` that it reads.
    """
    said, true = result.predictions[task.name], task.part_targets("test")
    if task.kind == "vector":
        return ()
    if task.kind == "text":
        chosen = [mistake.row for mistake in worst_predictions(said, true, _MAX_EXAMPLES)]
    else:
        able = [row for row in range(len(true)) if task.kind == "boxes" or said[row] != true[row]]
        chosen = np.random.default_rng(0).permutation(able)[:_MAX_EXAMPLES].tolist()
    seen = {sources[name] for name in task.inputs}
    return tuple(
        _example(samples[task.parts["test"][row]], true[row], said[row], task, seen) for row in chosen
    )


def _example(sample: Sample, target: Any, prediction: Any, task: TaskData, sources: set[str]) -> TaskExample:
    contents = {name: content for name, content in sample.content.items() if name in sources}
    picture = next((content for content in contents.values() if _is_image(content)), None)
    texts = [content for content in contents.values() if isinstance(content, (str, list))]
    example: dict[str, Any] = {
        "item": sample.id,
        "image": picture,
        "text": " ".join(_word_list(texts[0])) if texts else "",
        "contents": tuple(contents),
    }
    if task.kind == "tags":
        words = _word_list(texts[0]) if texts else [""] * len(target)
        (tags,) = pad_tags([prediction], [target])
        example["words"] = tuple(TaggedWord(*each) for each in zip(words, target, tags, strict=False))
    elif task.kind == "boxes":
        example["image"] = _image_with_boxes(picture, target, prediction, task.metrics.class_names)
    else:
        example |= {"target": _as_text(target), "prediction": _as_text(prediction)}
    return TaskExample(**example)


def _image_with_boxes(
    image: Path | None, target: Boxes, prediction: Boxes, names: Sequence[str]
) -> bytes | None:
    try:
        return (
            None
            if image is None
            else draw_boxes(image, target, prediction, labels=names, long_side=_IMAGE_SIDE, legend=False)
        )
    except Unreadable:
        return None


def _is_image(content: Any) -> bool:
    return isinstance(content, Path) and content.suffix.lower() not in (".flac", ".wav", ".ogg", ".mp3")


def _word_list(content: str | list[Any]) -> list[str]:
    return [content] if isinstance(content, str) else [word for word in content if word]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value) or "none"
