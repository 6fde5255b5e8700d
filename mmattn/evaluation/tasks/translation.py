"""How close written texts are to what people wrote: BLEU and chrF by sacrebleu, several references a sample.

Both are functions of counts that add up over samples (n-grams that were written, that were right, lengths),
so a bootstrap over samples asks sacrebleu for the figure of each draw's sums. What was computed is said by
sacrebleu's signature, which belongs beside every figure.
"""

from __future__ import annotations

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

References = str | Sequence[str]  # what people wrote of one sample

_TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")


class TranslationMetrics(TaskMetrics):
    """BLEU, chrF, and the share of texts that are exactly a reference; 0 to 100, 0 to 100, and 0 to 1.

    Papers: Papineni et al., "BLEU", 2002; Popovic, "chrF", 2015; Post, "A Call for Clarity in Reporting BLEU
    Scores", 2018.

    Args:
        lowercase: compare in lower case.
        tokenize: how BLEU parts texts: one of sacrebleu's tokenizers, "char" for languages without spaces.
        effective_order: leave n-grams out of BLEU that are longer than every text; otherwise texts of less
            than four words have a BLEU of 0.

    Raises:
        InputError: no such tokenizer.
        MissingDependency: sacrebleu is not installed.

    Example:
        >>> measure = TranslationMetrics()
        >>> figures = measure.evaluate(["a dog runs here"], [["a dog runs here", "the dog is running"]])
        >>> round(figures["bleu"], 1), round(figures["chrf"], 1), figures["exact"]
        (100.0, 100.0, 1.0)
        >>> measure.signatures["chrf"]
        'nrefs:2|case:mixed|eff:yes|nc:6|nw:0|space:no|version:...'
    """

    primary_metric = "chrf"
    best_value = 100.0

    def __init__(self, *, lowercase: bool = False, tokenize: str = "13a", effective_order: bool = False):
        if tokenize not in _TOKENIZERS:
            raise InputError(f"BLEU: got tokenize={tokenize!r}, expected one of {', '.join(_TOKENIZERS)}")
        self.lowercase, self.tokenize, self.effective_order = lowercase, tokenize, effective_order
        self.signatures: dict[str, str] = {}  # of what was counted last

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
        """[N, K] of N samples: sacrebleu's statistics, then 1 where a text is one of its references, then 1.

        Args:
            predictions: N texts.
            targets: N references: a text, or several.

        Raises:
            InputError: other numbers of texts and references, a sample without references, no text.
        """
        references = _check_references(predictions, targets)
        widest = max(map(len, references), default=1)
        # sacrebleu wants a list a reference, not a sample; None is one that is not there.
        turned = [
            [each[place] if place < len(each) else None for each in references] for place in range(widest)
        ]
        columns = []
        for name, metric in self._sacrebleu_metrics.items():
            columns.append(np.array(metric._extract_corpus_statistics(list(predictions), turned), np.float64))
            self.signatures[name] = str(metric.get_signature())
        exact = [
            self._normalize(text) in map(self._normalize, own)
            for text, own in zip(predictions, references, strict=True)
        ]
        return np.hstack([*columns, np.array([[float(same), 1.0] for same in exact])])

    def compute(self, sums: Floats) -> dict[str, Floats]:
        """Figure -> [...] from sums [..., K] over samples."""
        *parts, exact = np.split(sums, [_BLEU_COUNTS, sums.shape[-1] - 2], axis=-1)
        found = {
            name: np.apply_along_axis(_score_from_counts, -1, part, metric)
            for part, (name, metric) in zip(parts, self._sacrebleu_metrics.items(), strict=True)
        }
        return {**found, "exact": exact[..., 0] / np.maximum(exact[..., 1], 1)}

    def intervals(
        self, predictions: Sequence[Sequence[str]], targets: Sequence[References], **options: Any
    ) -> dict[str, Interval]:
        """Every figure with its bootstrap interval over samples.

        Args:
            predictions: of each seed N texts, of the same samples.
            targets: N references.
            options: level, resamples, seed of `mmattn.evaluation.statistics.count_bootstrap.bootstrap_metrics`.
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
        """Every figure of ours minus that of theirs, on the same draws of samples; as `intervals`."""
        counts = [self.counts(texts, targets) for texts in ours]
        others = [self.counts(texts, targets) for texts in theirs]
        return paired_bootstrap_metrics(counts, others, self.compute, **options)

    def _normalize(self, text: str) -> str:
        text = " ".join(text.split())
        return text.lower() if self.lowercase else text


def translation_metrics(
    predictions: Sequence[str], targets: Sequence[References], **options: Any
) -> dict[str, float]:
    """BLEU, chrF and the share of exact texts.

    Args:
        predictions: N texts.
        targets: N references: a text, or several.
        options: of `TranslationMetrics`.

    Example:
        >>> figures = translation_metrics(["ein roter hund"], ["ein roter hund"], effective_order=True)
        >>> {name: round(value, 6) for name, value in figures.items()}
        {'bleu': 100.0, 'chrf': 100.0, 'exact': 1.0}
    """
    return TranslationMetrics(**options).evaluate(predictions, targets)


_BLEU_COUNTS = 10  # two lengths, right and written n-grams of four orders


def _score_from_counts(counts: Floats, metric: Any) -> float:
    return float(metric._compute_score_from_stats([round(count) for count in counts]).score)


def _check_references(predictions: Sequence[str], targets: Sequence[References]) -> list[list[str]]:
    """The references of each sample, as a list each."""
    if len(predictions) != len(targets) or not len(predictions):
        raise InputError(
            f"translation: got {len(predictions)} texts and references of {len(targets)} samples, "
            "expected as many, and some"
        )
    references = [[target] if isinstance(target, str) else list(target) for target in targets]
    for row, (text, own) in enumerate(zip(predictions, references, strict=True)):
        if not own:
            raise InputError(f"translation: sample {row} has no reference, expected at least one")
        wrong = [each for each in (text, *own) if not isinstance(each, str)]
        if wrong:
            raise InputError(f"translation: sample {row} has {wrong[0]!r}, expected texts")
    return references


def _import_sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError as error:
        raise MissingDependency("BLEU and chrF need sacrebleu: pip install 'mmattn[generation]'") from error
    return sacrebleu.metrics
