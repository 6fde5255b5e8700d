"""Metrics of predicted texts, by name, and the texts with most errors."""

from __future__ import annotations

from collections.abc import Sequence

from mmattn.errors import InputError, did_you_mean
from mmattn.evaluation.tasks.error_rates import TranscriptMetrics, worst_predictions
from mmattn.evaluation.tasks.examples import MAX_EXAMPLES, PredictedItem, TaskExamples, make_example
from mmattn.evaluation.tasks.task_metrics import TaskMetrics
from mmattn.evaluation.tasks.translation import TranslationMetrics

__all__ = ["TEXT_METRICS", "text_examples", "text_metrics"]

TEXT_METRICS: dict[str, type[TaskMetrics]] = {
    "transcript": TranscriptMetrics,
    "translation": TranslationMetrics,
}


def text_metrics(name: str = "") -> TaskMetrics:
    """Create the metrics of predicted texts.

    Args:
        name: "transcript" (word and character error rates: what was said) or "translation" (BLEU and chrF:
            what might as well be said; captions too); "" takes the first.

    Raises:
        InputError: another name.

    Example:
        >>> text_metrics("transcript").evaluate(["a b"], ["a c"])["wer"]
        0.5
    """
    if (name or "transcript") not in TEXT_METRICS:
        raise InputError(
            f"metric: got {name!r}, expected one of {list(TEXT_METRICS)}.{did_you_mean(name, TEXT_METRICS)}"
        )
    return TEXT_METRICS[name or "transcript"]()


def text_examples(items: Sequence[PredictedItem]) -> TaskExamples:
    """Choose the texts with the most word errors.

    Args:
        items: test items whose targets and predictions are texts.
    """
    mistakes = worst_predictions(
        [item.prediction for item in items], [item.target for item in items], MAX_EXAMPLES
    )
    cases = tuple(make_example(items[mistake.row]) for mistake in mistakes)
    title, note = "Transcripts with the most errors", "Test items of the first seed."
    return TaskExamples(title, note, cases, one_per_row=True)
