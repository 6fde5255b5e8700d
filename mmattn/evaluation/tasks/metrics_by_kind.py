"""The default metrics of each kind of target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmattn.errors import InputError
from mmattn.evaluation.tasks.classification import ClassificationMetrics, MultilabelMetrics
from mmattn.evaluation.tasks.detection import DetectionMetrics
from mmattn.evaluation.tasks.entities import EntityMetrics
from mmattn.evaluation.tasks.error_rates import TranscriptMetrics
from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["metrics_for_kind"]


def metrics_for_kind(kind: str, targets: Sequence[Any]) -> TaskMetrics:
    """Return the default metrics for a kind of target.

    Args:
        kind: kind of a supervised head: "class", "labels", "tags", "text" or "boxes".
        targets: all known targets of training and test, None where unknown; class names come from them.

    Raises:
        InputError: no metrics exist for this kind.

    Example:
        >>> metrics_for_kind("class", ["cat", None, "ant"]).class_names
        ('ant', 'cat')
    """
    known = [target for target in targets if target is not None]
    if kind == "class":
        return ClassificationMetrics(tuple(sorted(set(known))))
    if kind == "labels":
        return MultilabelMetrics(tuple(sorted({name for labels in known for name in labels})))
    if kind == "tags":
        types = {tag.partition("-")[2] or tag for tags in known for tag in tags}
        return EntityMetrics(tuple(sorted(types - {"O"})))
    if kind == "text":
        return TranscriptMetrics()
    if kind == "boxes":
        return DetectionMetrics(tuple(sorted({name for boxes in known for name in boxes.labels})))
    raise InputError(
        f"got a head of kind {kind!r}, expected one that predicts targets: class, labels, tags, text or boxes"
    )
