"""Entity metrics of BIO-tagged words, as seqeval counts them: strict (IOB2) or lenient (conlleval)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmattn.array_types import Floats
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.tasks.task_metrics import PerClassMetrics, safe_divide

__all__ = ["EntityMetrics", "entity_metrics", "pad_tags"]


class EntityMetrics(PerClassMetrics):
    """Entity F1, precision and recall, and accuracy per word, from counts per sentence.

    Entities are read leniently, as conlleval does: an orphan I- tag begins an entity.

    Paper: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003.

    Args:
        class_names: names of the entity types.

    Example:
        >>> EntityMetrics(("place",)).evaluate([["B-place", "O"]], [["B-place", "I-place"]])["f1"]
        0.0
    """

    primary_metric = "f1"

    @classmethod
    def from_targets(cls, targets: Sequence[Sequence[str] | None]) -> EntityMetrics:
        """Create the metrics for the entity types that occur.

        Args:
            targets: tags of each sentence; None where unknown.

        Example:
            >>> EntityMetrics.from_targets([["B-place", "I-place", "O"], None]).class_names
            ('place',)
        """
        types = {tag.partition("-")[2] or tag for tags in targets if tags is not None for tag in tags}
        return cls(tuple(sorted(types - {"O"})))

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        get_entities = _load_get_entities()
        counts_N3C = np.zeros((len(targets), 3, len(self.class_names)))
        words_N2 = np.zeros((len(targets), 2))
        for row, (tags, target) in enumerate(zip(pad_tags(predictions, targets), targets, strict=True)):
            predicted, actual = set(get_entities(tags)), set(get_entities(list(target)))
            groups = (predicted & actual, predicted, actual)
            self.add_counts(counts_N3C[row], *([name for name, *_ in group] for group in groups))
            words_N2[row] = sum(map(str.__eq__, tags, target)), len(target)
        return np.hstack([counts_N3C.reshape(len(targets), -1), words_N2])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        scores = self.micro_average(sums)
        return {
            "f1": scores["f1"], "precision": scores["precision"], "recall": scores["recall"],
            "word accuracy": safe_divide(sums[..., -2], sums[..., -1]),
        }  # fmt: skip


def entity_metrics(
    predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]], *, strict: bool = False
) -> dict[str, float]:
    """Compute precision, recall and F1 of entities; type, start and end must match.

    Paper: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003.

    Args:
        predictions: BIO tags of each sentence; missing tags at the end count as "O".
        targets: BIO tags of the same sentences.
        strict: read tags as IOB2, where an entity must begin with a B- tag; otherwise an orphan I- tag begins
            an entity, as in conlleval.

    Returns:
        "f1", "precision" and "recall" over all entities, "macro f1" over types, and "f1 TYPE" of each type in
        the predictions or targets.

    Raises:
        InputError: different numbers of sentences, more tags than words, or a tag that is not BIO.
        MissingDependency: seqeval is not installed.

    Example:
        >>> predictions, targets = [["B-place", "O", "I-work"]], [["B-place", "O", "B-work"]]
        >>> lenient, strict = (entity_metrics(predictions, targets, strict=flag) for flag in (False, True))
        >>> lenient["f1"], round(strict["f1"], 3)
        (1.0, 0.667)
    """
    try:
        from seqeval.metrics import classification_report
        from seqeval.scheme import IOB2
    except ImportError as error:
        raise MissingDependency("seqeval is not installed: pip install 'mmattn[tagging]'") from error
    actual, predicted = [list(tags) for tags in targets], pad_tags(predictions, targets)
    _check_bio([*actual, *predicted])
    zeros = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0}
    report: dict[str, Any] = {}
    if any(tag != "O" for tags in (*actual, *predicted) for tag in tags):
        options: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if strict else {}
        report = classification_report(actual, predicted, output_dict=True, zero_division=0, **options)
    types = {name: row for name, row in report.items() if not name.endswith(" avg")}
    micro = report.get("micro avg", zeros)
    return {
        "f1": float(micro["f1-score"]),
        "precision": float(micro["precision"]),
        "recall": float(micro["recall"]),
        "macro f1": float(report.get("macro avg", zeros)["f1-score"]),
        **{f"f1 {name}": float(row["f1-score"]) for name, row in sorted(types.items())},
    }


def pad_tags(predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> list[list[str]]:
    """Pad predictions with "O" for words at the end that an encoder truncated.

    Args:
        predictions: tags of each sentence, at most one per word.
        targets: tags of each word.

    Returns:
        One tag per word.

    Raises:
        InputError: different numbers of sentences, or more tags than words.

    Example:
        >>> pad_tags([["B-place"]], [["B-place", "I-place", "O"]])
        [['B-place', 'O', 'O']]
    """
    if len(predictions) != len(targets):
        raise InputError(
            f"tagging: got {len(predictions)} predictions, expected {len(targets)}, one a sentence"
        )
    padded = []
    for row, (tags, target) in enumerate(zip(predictions, targets, strict=True)):
        if len(tags) > len(target):
            raise InputError(f"tagging: sentence {row} has {len(target)} words, got {len(tags)} tags")
        padded.append([*tags, *["O"] * (len(target) - len(tags))])
    return padded


def _check_bio(sentences: Sequence[Sequence[str]]) -> None:
    """Refuse other tags; seqeval would read them as entities with a warning."""
    for tag in {tag for sentence in sentences for tag in sentence}:
        if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
            raise InputError(f"tagging: got the tag {tag!r}, expected O, B-kind or I-kind")


def _load_get_entities() -> Any:
    try:
        from seqeval.metrics.sequence_labeling import get_entities
    except ImportError as error:
        raise MissingDependency("seqeval is not installed: pip install 'mmattn[tagging]'") from error
    return get_entities
