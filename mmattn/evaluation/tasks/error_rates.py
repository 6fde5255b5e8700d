"""Word and character error rates of transcripts, and the utterances with the most errors.

Texts are compared as they are, split at white space; normalize case and punctuation first if they should not
count. The target of a silent utterance is empty: every predicted word counts as an insertion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from mmattn.array_types import Floats, Ints
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.tasks.task_metrics import TaskMetrics, safe_divide

__all__ = [
    "Edits",
    "Mistake",
    "TranscriptMetrics",
    "count_edits",
    "error_rate",
    "transcription_metrics",
    "worst_predictions",
]

TextUnit = Literal["word", "character"]

_TEXT_UNITS: tuple[TextUnit, ...] = get_args(TextUnit)

_MAX_COUNTS = 4_000_000  # resampled counts in memory at once


@dataclass(frozen=True, eq=False)
class Edits:
    """Edits between targets and predictions, per utterance.

    Args:
        substitutions: [U] replaced units.
        deletions: [U] units of the target that the prediction lacks.
        insertions: [U] units that only the prediction has.
        lengths: [U] units of the target.
    """

    substitutions: Ints
    deletions: Ints
    insertions: Ints
    lengths: Ints

    @property
    def errors(self) -> Ints:
        """Edit distance of each utterance, [U]."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors / target units over all utterances; can exceed 1, NaN without target units."""
        return float(self.errors.sum() / self.lengths.sum()) if self.lengths.any() else float("nan")


@dataclass(frozen=True)
class Mistake:
    """An utterance with errors.

    Args:
        row: index of the utterance.
        target: reference transcript.
        prediction: predicted transcript.
        errors: word-level edit distance.
    """

    row: int
    target: str
    prediction: str
    errors: int


class TranscriptMetrics(TaskMetrics):
    """Word error rate, character error rate and the fraction of faultless transcripts.

    Example:
        >>> TranscriptMetrics().evaluate(["one two"], ["one too"])["wer"]
        0.5
    """

    primary_metric = "wer"
    lower_is_better = frozenset({"wer", "cer"})

    def counts(self, predictions: Sequence[Any], targets: Sequence[Any]) -> Floats:
        words, characters = (count_edits(predictions, targets, unit) for unit in _TEXT_UNITS)
        columns = [
            words.errors, words.lengths, characters.errors, characters.lengths,
            words.errors == 0, np.ones(len(targets)),
        ]  # fmt: skip
        return np.stack(columns, axis=1).astype(np.float64)

    def compute(self, sums: Floats) -> dict[str, Floats]:
        return {
            name: safe_divide(sums[..., 2 * index], sums[..., 2 * index + 1])
            for index, name in enumerate(("wer", "cer", "faultless"))
        }


def count_edits(predictions: Sequence[str], targets: Sequence[str], unit: TextUnit = "word") -> Edits:
    """Count substitutions, deletions and insertions per utterance, through jiwer.

    Paper: Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals", 1966.

    Args:
        predictions: U transcripts.
        targets: U reference transcripts; may be empty strings.
        unit: "word" or "character"; spaces between words count as characters.

    Raises:
        InputError: the lengths differ, or an element is not a string.
        MissingDependency: jiwer is not installed.

    Example:
        >>> edits = count_edits(["one too", "three"], ["one two three", ""])
        >>> edits.substitutions.tolist(), edits.deletions.tolist(), edits.insertions.tolist()
        ([1, 0], [1, 0], [0, 1])
    """
    _check_texts(predictions, targets)
    jiwer = _import_jiwer()
    process = {"word": jiwer.process_words, "character": jiwer.process_characters}[unit]
    rows = []
    for pair in zip(predictions, targets, strict=True):
        prediction, target = (" ".join(text.split()) if unit == "word" else text.strip() for text in pair)
        predicted_count, target_count = (
            len(text.split() if unit == "word" else text) for text in (prediction, target)
        )
        if prediction and target:
            edits: Any = process([target], [prediction])
            rows.append((edits.substitutions, edits.deletions, edits.insertions, target_count))
        else:  # jiwer accepts no empty text
            rows.append((0, target_count, predicted_count, target_count))
    return Edits(*np.array(rows, np.int64).reshape(-1, 4).T)


def transcription_metrics(predictions: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Compute word and character error rates, the kinds of word errors, and the faultless fraction.

    Args:
        predictions: U transcripts.
        targets: U reference transcripts.

    Returns:
        "wer", "cer", "substitutions", "deletions", "insertions" (each per target word) and "faultless".

    Raises:
        InputError: the lengths differ, an element is not a string, or no target has a word.
        MissingDependency: jiwer is not installed.

    Example:
        >>> metrics = transcription_metrics(["one too", "three"], ["one two", "three"])
        >>> round(metrics["wer"], 3), round(metrics["cer"], 3), metrics["faultless"]
        (0.333, 0.083, 0.5)
    """
    words, characters = (count_edits(predictions, targets, unit) for unit in _TEXT_UNITS)
    total = int(words.lengths.sum())
    if not total:
        raise InputError(f"transcripts: got {len(targets)} targets without a word, expected some words")
    return {
        "wer": words.rate,
        "cer": characters.rate,
        "substitutions": float(words.substitutions.sum() / total),
        "deletions": float(words.deletions.sum() / total),
        "insertions": float(words.insertions.sum() / total),
        "faultless": float((words.errors == 0).mean()),
    }


def error_rate(
    edits: Edits | Sequence[Edits], *, confidence_level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Compute the error rate with its percentile bootstrap interval over utterances.

    Args:
        edits: edits of one seed, or of several seeds on the same utterances.
        confidence_level: coverage, between 0 and 1.
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Raises:
        InputError: no seed, seeds on different utterances, or no target unit.

    Example:
        >>> interval = error_rate(count_edits(["one"] * 9 + ["two"], ["one"] * 10))
        >>> interval.mean, interval.low <= 0.1 <= interval.high
        (0.1, True)
    """
    runs = [edits] if isinstance(edits, Edits) else list(edits)
    if not runs or any(not np.array_equal(run.lengths, runs[0].lengths) for run in runs):
        raise InputError(
            f"error rate: got {len(runs)} runs, expected at least one, all of the same utterances"
        )
    lengths_U = runs[0].lengths
    if not lengths_U.any():
        raise InputError(f"error rate: none of {len(lengths_U)} targets has a word")
    errors_U = np.mean([run.errors for run in runs], axis=0)
    rng, rates = np.random.default_rng(seed), []
    for first in range(0, n_resamples, block := max(1, _MAX_COUNTS // len(lengths_U))):
        sample_RU = rng.integers(len(lengths_U), size=(min(block, n_resamples - first), len(lengths_U)))
        lengths_R = lengths_U[sample_RU].sum(1)
        rates.append(errors_U[sample_RU].sum(1)[lengths_R > 0] / lengths_R[lengths_R > 0])
    low, high = np.quantile(np.concatenate(rates), [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    seeds = tuple(run.rate for run in runs)
    return Interval(float(np.mean(seeds)), float(low), float(high), seeds, confidence_level, len(lengths_U))


def worst_predictions(
    predictions: Sequence[str], targets: Sequence[str], max_results: int = 10
) -> list[Mistake]:
    """Return the utterances with the most word errors, most errors first, ties in input order.

    Args:
        predictions: U transcripts.
        targets: U reference transcripts.
        max_results: maximum number of utterances; faultless ones are never returned.

    Raises:
        InputError: the lengths differ, or an element is not a string.

    Example:
        >>> [mistake.row for mistake in worst_predictions(["a", "b c", "d"], ["a", "x y", "e"])]
        [1, 2]
    """
    errors_U = count_edits(predictions, targets).errors
    rows = [int(row) for row in np.argsort(-errors_U, kind="stable")[:max_results] if errors_U[row]]
    return [Mistake(row, targets[row], predictions[row], int(errors_U[row])) for row in rows]


def _check_texts(predictions: Sequence[str], targets: Sequence[str]) -> None:
    if len(predictions) != len(targets):
        raise InputError(f"transcripts: got {len(predictions)} predictions, expected {len(targets)}")
    for texts in (predictions, targets):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"transcripts: row {row} is {type(text).__name__}, expected a text")


def _import_jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise MissingDependency("error rates need jiwer: pip install 'mmattn[speech]'") from error
    return jiwer
