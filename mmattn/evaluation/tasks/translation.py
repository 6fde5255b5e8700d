"""Metrics of generated text: BLEU and chrF through sacrebleu, with several references per sample.

Both are functions of counts that add up over samples (n-gram matches and lengths), so a bootstrap over
samples evaluates sacrebleu on resampled sums. Report sacrebleu's signature with every value.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mmattn.array_types import Floats
from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.evaluation.statistics.count_bootstrap import bootstrap_metrics, paired_bootstrap_metrics
from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["References", "TranslationMetrics", "translation_metrics"]

References = str | Sequence[str]  # one or several reference texts of a sample

_TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")


class TranslationMetrics(TaskMetrics):
    """BLEU (0 to 100), chrF (0 to 100) and the fraction of exact matches with a reference (0 to 1).

    Papers: Papineni et al., "BLEU", 2002; Popovic, "chrF", 2015; Post, "A Call for Clarity in Reporting BLEU
    Scores", 2018.

    Args:
        lowercase: compare in lower case.
        tokenize: sacrebleu tokenizer of BLEU; "char" for languages without spaces.
        effective_order: ignore n-gram orders without a match in BLEU; otherwise texts of fewer than four
            words have a BLEU of 0.

    Raises:
        InputError: unknown tokenizer.

    Example:
        >>> metrics = TranslationMetrics()
        >>> values = metrics.evaluate(["a dog runs here"], [["a dog runs here", "the dog is running"]])
        >>> round(values["bleu"], 1), round(values["chrf"], 1), values["exact"]
        (100.0, 100.0, 1.0)
        >>> metrics.signatures["chrf"]
        'nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:...'
    """

    primary_metric = "chrf"
    best_value = 100.0

    def __init__(
        self, *, lowercase: bool = False, tokenize: str = "13a", effective_order: bool = False
    ) -> None:
        if tokenize not in _TOKENIZERS:
            raise InputError(f"BLEU: got tokenize={tokenize!r}, expected one of {', '.join(_TOKENIZERS)}")
        self.lowercase, self.tokenize, self.effective_order = lowercase, tokenize, effective_order
        self.signatures: dict[str, str] = {}  # sacrebleu signatures of the last `counts`

    @cached_property
    def _sacrebleu_metrics(self) -> dict[str, Any]:
        metrics = _import_sacrebleu()
        return {
            "bleu": metrics.BLEU(
                lowercase=self.lowercase, tokenize=self.tokenize, effective_order=self.effective_order
            ),
            "chrf": metrics.CHRF(lowercase=self.lowercase),
        }

    def counts(self, predictions: Sequence[str], targets: Sequence[References]) -> Floats:
        """Count sacrebleu's statistics, exact matches and samples.

        Args:
            predictions: N texts.
            targets: one or several references of each sample.

        Returns:
            [N, K] counts.

        Raises:
            InputError: different numbers of samples, no sample, a sample without references, or no text.
            MissingDependency: sacrebleu is not installed.
        """
        references = _check_references(predictions, targets)
        # sacrebleu expects one list per reference index, not per sample; None marks a missing reference.
        by_reference = list(map(list, itertools.zip_longest(*references)))
        columns = []
        for name, metric in self._sacrebleu_metrics.items():
            columns.append(
                np.array(metric._extract_corpus_statistics(list(predictions), by_reference), np.float64)
            )
            self.signatures[name] = str(metric.get_signature())
        exact = [
            self._normalize(text) in map(self._normalize, texts)
            for text, texts in zip(predictions, references, strict=True)
        ]
        return np.hstack([*columns, np.array([[float(match), 1.0] for match in exact])])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        *parts, exact = np.split(sums, [_BLEU_COUNTS, sums.shape[-1] - 2], axis=-1)
        values = {
            name: np.apply_along_axis(_score_from_counts, -1, part, metric)
            for part, (name, metric) in zip(parts, self._sacrebleu_metrics.items(), strict=True)
        }
        return {**values, "exact": exact[..., 0] / np.maximum(exact[..., 1], 1)}

    def intervals(
        self, predictions: Sequence[Sequence[str]], targets: Sequence[References], **options: Any
    ) -> dict[str, Interval]:
        """Compute every metric with its bootstrap interval over samples.

        Args:
            predictions: N texts of each seed, on the same samples.
            targets: one or several references of each sample.
            **options: keyword arguments of `bootstrap_metrics`.

        Returns:
            Metric name -> interval.
        """
        return bootstrap_metrics(
            [self.counts(texts, targets) for texts in predictions], self.compute, **options
        )

    def difference(
        self,
        ours: Sequence[Sequence[str]],
        theirs: Sequence[Sequence[str]],
        targets: Sequence[References],
        **options: Any,
    ) -> dict[str, Interval]:
        """Compute the paired difference of two systems on every metric, ours minus theirs.

        Args:
            ours: N texts of each seed.
            theirs: N texts of each seed by the other system.
            targets: one or several references of each sample.
            **options: keyword arguments of `paired_bootstrap_metrics`.

        Returns:
            Metric name -> interval of the difference.
        """
        our_counts = [self.counts(texts, targets) for texts in ours]
        their_counts = [self.counts(texts, targets) for texts in theirs]
        return paired_bootstrap_metrics(our_counts, their_counts, self.compute, **options)

    def _normalize(self, text: str) -> str:
        text = " ".join(text.split())
        return text.lower() if self.lowercase else text


def translation_metrics(
    predictions: Sequence[str], targets: Sequence[References], **options: Any
) -> dict[str, float]:
    """Compute BLEU, chrF and the fraction of exact matches.

    Args:
        predictions: N texts.
        targets: one or several references of each sample.
        **options: arguments of `TranslationMetrics`.

    Returns:
        "bleu", "chrf" and "exact".

    Raises:
        InputError: unknown tokenizer, different numbers of samples, or a sample without references.
        MissingDependency: sacrebleu is not installed.

    Example:
        >>> metrics = translation_metrics(["ein roter hund"], ["ein roter hund"], effective_order=True)
        >>> {name: round(value, 6) for name, value in metrics.items()}
        {'bleu': 100.0, 'chrf': 100.0, 'exact': 1.0}
    """
    return TranslationMetrics(**options).evaluate(predictions, targets)


_BLEU_COUNTS = 10  # two lengths, matched and predicted n-grams of four orders


def _score_from_counts(counts: Floats, metric: Any) -> float:
    return float(metric._compute_score_from_stats([round(count) for count in counts]).score)


def _check_references(predictions: Sequence[str], targets: Sequence[References]) -> list[list[str]]:
    """Return the references of each sample as a list."""
    if len(predictions) != len(targets) or not len(predictions):
        raise InputError(
            f"translation: got {len(predictions)} texts and references of {len(targets)} samples, "
            "expected as many, and some"
        )
    references = [[target] if isinstance(target, str) else list(target) for target in targets]
    for row, (text, texts) in enumerate(zip(predictions, references, strict=True)):
        if not texts:
            raise InputError(f"translation: sample {row} has no reference, expected at least one")
        invalid = [value for value in (text, *texts) if not isinstance(value, str)]
        if invalid:
            raise InputError(f"translation: sample {row} has {invalid[0]!r}, expected texts")
    return references


def _import_sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise MissingDependency("BLEU and chrF need sacrebleu: pip install 'mmattn[generation]'") from error
    return sacrebleu.metrics
