"""Entities in tagged words, as seqeval counts them: strictly or as forgivingly as the shared tasks did.

Intervals over sentences come from `mmattn.evaluation.tasks.task_metrics.EntityMetrics`, which is forgiving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmattn.errors import InputError, MissingDependency

__all__ = ["entity_metrics", "pad_tags"]


def entity_metrics(
    predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]], *, strict: bool = False
) -> dict[str, float]:
    """Precision, recall and F1 of entities: kind, beginning and end have to be right.

    Paper: Tjong Kim Sang and De Meulder, "Introduction to the CoNLL-2003 Shared Task", 2003.

    Args:
        predictions: BIO tags of each sentence; words that are missing at the end are "O".
        targets: the true ones.
        strict: an entity begins with a B-kind, as IOB2 has it, and what does not is none; otherwise an
            I-kind that continues nothing begins one, as in conlleval.

    Returns:
        "f1", "precision", "recall" over all entities, "macro f1" over kinds, and "f1 KIND" of each kind that
        is true or said.

    Raises:
        InputError: other sentences, or more tags than words.
        MissingDependency: seqeval is not installed.

    Example:
        >>> said, true = [["B-place", "O", "I-work"]], [["B-place", "O", "B-work"]]
        >>> entity_metrics(said, true)["f1"], round(entity_metrics(said, true, strict=True)["f1"], 3)
        (1.0, 0.667)
    """
    try:
        from seqeval.metrics import classification_report
        from seqeval.scheme import IOB2
    except ImportError as error:
        raise MissingDependency("seqeval is not installed: pip install 'mmattn[tagging]'") from error
    true, said = [list(one) for one in targets], pad_tags(predictions, targets)
    _check_bio([*true, *said])
    none = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0}
    there = any(tag != "O" for one in (*true, *said) for tag in one)
    options: dict[str, Any] = {"mode": "strict", "scheme": IOB2} if strict else {}
    report = classification_report(true, said, output_dict=True, zero_division=0, **options) if there else {}
    kinds = {name: row for name, row in report.items() if not name.endswith(" avg")}
    micro = report.get("micro avg", none)
    return {
        "f1": float(micro["f1-score"]),
        "precision": float(micro["precision"]),
        "recall": float(micro["recall"]),
        "macro f1": float(report.get("macro avg", none)["f1-score"]),
        **{f"f1 {name}": float(row["f1-score"]) for name, row in sorted(kinds.items())},
    }


def pad_tags(predictions: Sequence[Sequence[str]], targets: Sequence[Sequence[str]]) -> list[list[str]]:
    """Predictions with "O" for the words at the end that an encoder has cut off.

    Example:
        >>> pad_tags([["B-place"]], [["B-place", "I-place", "O"]])
        [['B-place', 'O', 'O']]
    """
    if len(predictions) != len(targets):
        raise InputError(
            f"tagging: got {len(predictions)} predictions, expected {len(targets)}, one a sentence"
        )
    found = []
    for row, (said, true) in enumerate(zip(predictions, targets, strict=True)):
        if len(said) > len(true):
            raise InputError(f"tagging: sentence {row} has {len(true)} words, got {len(said)} tags")
        found.append([*said, *["O"] * (len(true) - len(said))])
    return found


def _check_bio(sentences: Sequence[Sequence[str]]) -> None:
    """Seqeval would take any other tag for an entity, with a warning."""
    for tag in {tag for sentence in sentences for tag in sentence}:
        if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
            raise InputError(f"tagging: got the tag {tag!r}, expected O, B-kind or I-kind")
