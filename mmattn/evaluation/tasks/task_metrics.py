"""How each kind of target is measured: counts of every sample, and the figures that follow from their sums.

Everything that a report says of a task, means, intervals, classes, differences, comes from these counts:
see `mmattn.evaluation.statistics.count_bootstrap`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mmattn.array_types import Floats
from mmattn.boxes import Boxes
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.tasks.detection import detection_metrics
from mmattn.evaluation.tasks.entities import pad_tags
from mmattn.evaluation.tasks.error_rates import count_edits

__all__ = [
    "ClassificationMetrics",
    "DetectionMetrics",
    "EntityMetrics",
    "MultilabelMetrics",
    "TaskMetrics",
    "TranscriptMetrics",
    "metrics_for_kind",
]


class TaskMetrics(ABC):
    """Figures of one task.

    Attributes:
        primary_metric: the figure that choices are made by.
        lower_is_better: figures of which less is better.
        best_value: the best that the primary figure can be, where more is better.
        class_names: of the classes, one row of the report each; none for text.
    """

    primary_metric: ClassVar[str]
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    best_value: ClassVar[float] = 1.0
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        """[N, K] of N samples whose target is known."""

    @abstractmethod
    def compute(self, sums: Floats) -> dict[str, Floats]:
        """Figure -> [...] from sums [..., K] over samples."""

    def per_class(self, sums: Floats) -> dict[str, dict[str, Floats]]:
        """Class -> its figures, from sums [..., K]: precision, recall, f1, and how many there truly are."""
        return {}

    def evaluate(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        """Figure -> value over all samples."""
        sums = self.counts(predictions, targets).sum(0)
        return {name: float(value) for name, value in self.compute(sums).items()}

    def selection_score(self, metrics: Mapping[str, float]) -> float:
        """The primary figure so that 1 is best: what an epoch is chosen by."""
        value = metrics[self.primary_metric]
        return 1.0 - value if self.primary_metric in self.lower_is_better else value / self.best_value


@dataclass(frozen=True)
class _PerClassMetrics(TaskMetrics):
    """Found, said and true, of each name.

    Args:
        class_names: of the classes C.
    """

    class_names: tuple[str, ...]

    def _count_columns(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        """[N, 3C] for samples that each are a collection of names (or several times one name)."""
        place = {name: number for number, name in enumerate(self.class_names)}
        counts_N3C = np.zeros((len(targets), 3, len(self.class_names)))
        for row, (said, true) in enumerate(zip(predictions, targets, strict=True)):
            for name in said:
                counts_N3C[row, 1, place[name]] += 1
            for name in true:
                counts_N3C[row, 2, place[name]] += 1
            for name in said & true:
                counts_N3C[row, 0, place[name]] += 1
        return counts_N3C.reshape(len(targets), -1)

    def per_class(self, sums: Floats) -> dict[str, dict[str, Floats]]:
        found, said, true = self._split_counts(sums)
        scores = _precision_recall_f1(found, said, true)
        columns = {**scores, "true": true}
        return {
            name: {figure: values[..., place] for figure, values in columns.items()}
            for place, name in enumerate(self.class_names)
        }

    def _split_counts(self, sums: Floats) -> tuple[Floats, Floats, Floats]:
        count = len(self.class_names)
        return sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count : 3 * count]

    def _macro(self, sums: Floats) -> dict[str, Floats]:
        """Means over the classes that there truly are."""
        found, said, true = self._split_counts(sums)
        there = true > 0
        return {
            f"macro {name}": _ratio(np.where(there, value, 0.0).sum(-1), there.sum(-1))
            for name, value in _precision_recall_f1(found, said, true).items()
        }


class ClassificationMetrics(_PerClassMetrics):
    """One class a sample: accuracy, and precision, recall and F1 as means over the classes.

    Example:
        >>> ClassificationMetrics(("a", "b")).evaluate(["a", "a", "b"], ["a", "b", "b"])["accuracy"]
        0.6666666666666666
    """

    primary_metric = "accuracy"

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        return self._count_columns([{said} for said in predictions], [{true} for true in targets])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        found, _, true = self._split_counts(sums)
        return {"accuracy": _ratio(found.sum(-1), true.sum(-1)), **self._macro(sums)}


class MultilabelMetrics(_PerClassMetrics):
    """Several labels a sample: F1 of all decisions together, means over the labels, samples that are right.

    Example:
        >>> MultilabelMetrics(("a", "b")).evaluate([["a"], []], [["a", "b"], []])["exact"]
        0.5
    """

    primary_metric = "f1"

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        said, true = [set(one) for one in predictions], [set(one) for one in targets]
        right_N2 = np.array([[one == other, 1.0] for one, other in zip(said, true, strict=True)])
        return np.hstack([self._count_columns(said, true), right_N2.reshape(len(true), 2)])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        totals = [part.sum(-1) for part in self._split_counts(sums)]
        scores = _precision_recall_f1(*totals)
        return {
            "f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"],
            "macro f1": self._macro(sums)["macro f1"], "exact": _ratio(sums[..., -2], sums[..., -1]),
        }  # fmt: skip


class EntityMetrics(_PerClassMetrics):
    """Entities in tagged words (BIO, as seqeval reads them): F1, precision, recall; and words that are right.

    Args:
        names: of the entities' types.

    Example:
        >>> tags = EntityMetrics(("place",))
        >>> tags.evaluate([["B-place", "O"]], [["B-place", "I-place"]])["f1"]
        0.0
    """

    primary_metric = "f1"

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        entities = _load_seqeval()
        counts_N3T = np.zeros((len(targets), 3, len(self.class_names)))
        words_N2 = np.zeros((len(targets), 2))
        place = {name: number for number, name in enumerate(self.class_names)}
        whole = pad_tags(predictions, targets)
        for row, (said, true) in enumerate(zip(whole, targets, strict=True)):
            spans, wanted = set(entities(said)), set(entities(list(true)))
            for column, chosen in enumerate((spans & wanted, spans, wanted)):
                for name, *_ in chosen:
                    counts_N3T[row, column, place[name]] += 1
            words_N2[row] = sum(map(str.__eq__, said, true)), len(true)
        return np.hstack([counts_N3T.reshape(len(targets), -1), words_N2])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        scores = _precision_recall_f1(*(part.sum(-1) for part in self._split_counts(sums)))
        return {
            "f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"],
            "word accuracy": _ratio(sums[..., -2], sums[..., -1]),
        }  # fmt: skip


class TranscriptMetrics(TaskMetrics):
    """Transcripts: errors in words and in characters, and the share without any.

    Example:
        >>> TranscriptMetrics().evaluate(["one two"], ["one too"])["wer"]
        0.5
    """

    primary_metric = "wer"
    lower_is_better = frozenset({"wer", "cer"})

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        words, characters = (count_edits(predictions, targets, unit) for unit in ("word", "character"))
        columns = [
            words.errors, words.lengths, characters.errors, characters.lengths,
            words.errors == 0, np.ones(len(targets)),
        ]  # fmt: skip
        return np.stack(columns, axis=1).astype(np.float64)

    def compute(self, sums: Floats) -> dict[str, Floats]:
        return {
            name: _ratio(sums[..., 2 * place], sums[..., 2 * place + 1])
            for place, name in enumerate(("wer", "cer", "faultless"))
        }


@dataclass(frozen=True)
class DetectionMetrics(_PerClassMetrics):
    """Boxes that are found: each said box takes the truest free one of its label with an overlap of a half.

    Average precision, by which epochs are chosen, is no function of sums: `mmattn.evaluation.tasks.detection`'s.

    Args:
        names: of the labels.
        iou_threshold: intersection over union from which on a box is found.
        score_threshold: confidence from which on a predicted box counts.
    """

    iou_threshold: float = 0.5
    score_threshold: float = 0.5

    primary_metric = "f1"

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        place = {name: number for number, name in enumerate(self.class_names)}
        counts_N3C = np.zeros((len(targets), 3, len(self.class_names)))
        for row, (said, true) in enumerate(zip(predictions, targets, strict=True)):
            kept = _above_threshold(said, self.score_threshold)
            for name in true.labels:
                counts_N3C[row, 2, place[name]] += 1
            for name in kept.labels:
                counts_N3C[row, 1, place[name]] += 1
            for name in _matched_labels(kept, true, self.iou_threshold):
                counts_N3C[row, 0, place[name]] += 1
        return counts_N3C.reshape(len(targets), -1)

    def compute(self, sums: Floats) -> dict[str, Floats]:
        scores = _precision_recall_f1(*(part.sum(-1) for part in self._split_counts(sums)))
        return {"f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"]}

    def evaluate(self, predictions: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
        found = detection_metrics(predictions, targets)
        return {**super().evaluate(predictions, targets), "ap50": found["ap50"], "map": found["map"]}

    def selection_score(self, metrics: Mapping[str, float]) -> float:
        return metrics["ap50"]


def metrics_for_kind(kind: str, targets: Sequence[Any]) -> TaskMetrics:
    """The measure of a head's kind.

    Args:
        kind: of `SupervisedHead`: "class", "labels", "tags", "text" or "boxes".
        targets: all that are known, of training and test: names come from them.

    Raises:
        InputError: a kind whose predictions are not measured against targets.
    """
    known = [target for target in targets if target is not None]
    if kind == "class":
        return ClassificationMetrics(tuple(sorted(set(known))))
    if kind == "labels":
        return MultilabelMetrics(tuple(sorted({name for target in known for name in target})))
    if kind == "tags":
        return EntityMetrics(
            tuple(sorted({tag.partition("-")[2] or tag for one in known for tag in one} - {"O"}))
        )
    if kind == "text":
        return TranscriptMetrics()
    if kind == "boxes":
        return DetectionMetrics(tuple(sorted({name for target in known for name in target.labels})))
    raise InputError(
        f"got a head of kind {kind!r}, expected one that predicts targets: class, labels, tags, text or boxes"
    )


def _precision_recall_f1(true_positives: Floats, predicted: Floats, actual: Floats) -> dict[str, Floats]:
    return {
        "precision": _ratio(true_positives, predicted),
        "recall": _ratio(true_positives, actual),
        "f1": _ratio(2 * true_positives, predicted + actual),
    }


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """part / whole, and 0 where there is nothing."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def _load_seqeval() -> Any:
    try:
        from seqeval.metrics.sequence_labeling import get_entities
    except ImportError as error:
        raise MissingDependency("seqeval is not installed: pip install 'mmattn[tagging]'") from error
    return get_entities


def _above_threshold(boxes: Boxes, threshold: float) -> Boxes:
    if boxes.scores is None:
        return boxes
    order = [
        int(place) for place in boxes.scores.argsort(descending=True) if boxes.scores[place] >= threshold
    ]
    return Boxes(boxes.boxes[order], [boxes.labels[place] for place in order], boxes.size)


def _matched_labels(predicted: Boxes, actual: Boxes, iou_threshold: float) -> list[str]:
    """Labels of the said boxes that find a true one, the most confident first."""
    from torchvision.ops import box_iou

    free = set(range(len(actual)))
    found = []
    iou_KT = (
        box_iou(predicted.boxes.float(), actual.boxes.float()).tolist()
        if len(predicted) and len(actual)
        else []
    )
    for label, row in zip(predicted.labels, iou_KT, strict=False):
        able = [place for place in free if actual.labels[place] == label and row[place] >= iou_threshold]
        if able:
            free.remove(max(able, key=row.__getitem__))
            found.append(label)
    return found
