"""How far transcripts are from what was said: word and character error rates, and where the errors are.

Texts are compared as they are, words between white space: bring both to one spelling (lower case, no
punctuation) before, where that is no error. An utterance in which nothing was said has no words to get
wrong: whatever is heard in it counts as insertions in the rate over all utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.statistics.bootstrap import Interval

__all__ = ["Edits", "Mistake", "count_edits", "error_rate", "transcription_metrics", "worst_predictions"]

TextUnit = Literal["word", "character"]

_AT_ONCE = 4_000_000  # resampled counts held at once


@dataclass(frozen=True, eq=False)
class Edits:
    """What it takes to turn predictions into what was said, one number an utterance, [U] each.

    Args:
        substitutions: units that are other ones.
        deletions: units that were said and not heard.
        insertions: units that were heard and not said.
        lengths: units that were said.
    """

    substitutions: NDArray[np.int64]
    deletions: NDArray[np.int64]
    insertions: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def errors(self) -> NDArray[np.int64]:
        """[U], the edit distance."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a unit that was said, over all utterances; may be above 1. NaN where nothing was said."""
        return float(self.errors.sum() / self.lengths.sum()) if self.lengths.any() else float("nan")


@dataclass(frozen=True)
class Mistake:
    """An utterance that was not understood.

    Args:
        row: its place among the targets.
        target: what was said.
        prediction: what was heard.
        errors: edits of words between the two.
    """

    row: int
    target: str
    prediction: str
    errors: int


def count_edits(predictions: Sequence[str], targets: Sequence[str], unit: TextUnit = "word") -> Edits:
    """The edits of every utterance.

    Args:
        predictions: [U] transcripts.
        targets: [U] what was said; may be "".
        unit: "word" or "character"; spaces between words are characters.

    Raises:
        InputError: as many predictions as targets are expected, all of them texts.
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
        heard, said = (" ".join(text.split()) if unit == "word" else text.strip() for text in pair)
        heard_count, said_count = (len(text.split() if unit == "word" else text) for text in (heard, said))
        if heard and said:
            found: Any = process([said], [heard])
            rows.append((found.substitutions, found.deletions, found.insertions, said_count))
        else:  # nothing to align, and jiwer takes no empty text
            rows.append((0, said_count, heard_count, said_count))
    return Edits(*np.array(rows, np.int64).reshape(-1, 4).T)


def transcription_metrics(predictions: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Word and character error rates, what the words' errors are, and the share of faultless utterances.

    Raises: as `count_edits`; InputError where nothing was said in any utterance.

    Example:
        >>> figures = transcription_metrics(["one too", "three"], ["one two", "three"])
        >>> round(figures["wer"], 3), round(figures["cer"], 3), figures["faultless"]
        (0.333, 0.083, 0.5)
    """
    words, characters = (count_edits(predictions, targets, unit) for unit in ("word", "character"))
    said = int(words.lengths.sum())
    if not said:
        raise InputError(f"transcripts: got {len(targets)} targets without a word, expected some words")
    return {
        "wer": words.rate,
        "cer": characters.rate,
        "substitutions": float(words.substitutions.sum() / said),
        "deletions": float(words.deletions.sum() / said),
        "insertions": float(words.insertions.sum() / said),
        "faultless": float((words.errors == 0).mean()),
    }


def error_rate(
    edits: Edits | Sequence[Edits], *, confidence_level: float = 0.95, n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """The error rate with its bootstrap interval over utterances.

    Args:
        edits: of one seed, or of several that heard the same utterances.
        confidence_level: coverage, between 0 and 1.
        n_resamples: how many times the utterances are drawn anew.
        seed: of the resampling.

    Raises:
        InputError: seeds with other utterances, or without a word that was said.

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
        raise InputError(f"error rate: nothing was said in any of {len(lengths_U)} utterances")
    errors_U = np.mean([run.errors for run in runs], axis=0)
    rng, rates = np.random.default_rng(seed), []
    for first in range(0, n_resamples, block := max(1, _AT_ONCE // len(lengths_U))):
        drawn_RU = rng.integers(len(lengths_U), size=(min(block, n_resamples - first), len(lengths_U)))
        said_R = lengths_U[drawn_RU].sum(1)
        rates.append(errors_U[drawn_RU].sum(1)[said_R > 0] / said_R[said_R > 0])
    low, high = np.quantile(np.concatenate(rates), [(1 - confidence_level) / 2, (1 + confidence_level) / 2])
    seeds = tuple(run.rate for run in runs)
    return Interval(float(np.mean(seeds)), float(low), float(high), seeds, confidence_level, len(lengths_U))


def worst_predictions(
    predictions: Sequence[str], targets: Sequence[str], max_results: int = 10
) -> list[Mistake]:
    """The utterances with the most errors, faultless ones left out; the earlier first among equals.

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
