"""BLEU and chrF: sacrebleu's own numbers, several references, intervals, and what is refused."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest
import sacrebleu

from mmattn.errors import InputError, MissingDependency
from mmattn.evaluation.tasks.translation import TranslationMetrics, translation_metrics

SAID = ["a dog runs on the grass .", "two men stand", "a red bus", "the cat sat on a mat today"]
WRITTEN = [
    ["a dog runs in the grass .", "the dog is running on the grass ."],
    ["two men stand by a bus"],
    ["a bus"],
    ["the cat sat on the mat", "a cat is on a mat", "the cat sat on a mat today"],
]


def test_the_figures_are_those_of_sacrebleu() -> None:
    measure = TranslationMetrics()
    figures = measure.evaluate(SAID, WRITTEN)
    turned = [[group[index] if index < len(group) else None for group in WRITTEN] for index in range(3)]
    bleu, chrf = sacrebleu.BLEU(), sacrebleu.CHRF()
    assert figures["bleu"] == pytest.approx(bleu.corpus_score(SAID, turned).score)  # type: ignore[arg-type]
    assert figures["chrf"] == pytest.approx(chrf.corpus_score(SAID, turned).score)  # type: ignore[arg-type]
    assert figures["exact"] == 0.25
    assert measure.signatures == {"bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature())}


def test_bleu_by_hand() -> None:
    """One text: 5 of 6 words, 3 of 5 pairs, 2 of 4 threes, 1 of 3 fours; as long as its reference."""
    figures = translation_metrics(["a b c d x e"], ["a b c d y e"], tokenize="none")
    assert figures["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    counts = TranslationMetrics(tokenize="none").counts(["a b c d x e"], ["a b c d y e"])
    assert counts[0, :10].tolist() == [6, 6, 5, 3, 2, 1, 6, 5, 4, 3]


def test_brevity_by_hand() -> None:
    """A text of four of the reference's eight words: all right, and punished by e to the power 1 - 8 / 4."""
    figures = translation_metrics(["a b c d"], ["a b c d e f g h"], tokenize="none")
    assert figures["bleu"] == pytest.approx(100 * np.exp(1 - 8 / 4))


def test_chrf_by_hand() -> None:
    """One character of two is right; no longer n-gram is: order 2 counts, as both texts have one."""
    precision = recall = (1 / 2 + 0 / 1) / 2
    figures = translation_metrics(["ab"], ["ac"])
    expected = (1 + 2**2) * precision * recall / (2**2 * precision + recall)
    assert figures["chrf"] == pytest.approx(100 * expected)


def test_short_texts_need_the_effective_order() -> None:
    assert translation_metrics(["zwei hunde"], ["zwei hunde"])["bleu"] == 0.0
    assert translation_metrics(["zwei hunde"], ["zwei hunde"], effective_order=True)["bleu"] == pytest.approx(
        100
    )
    assert "eff:yes" in signature(effective_order=True)


def signature(**options: bool | str) -> str:
    measure = TranslationMetrics(**options)  # type: ignore[arg-type]
    measure.counts(["a"], ["a"])
    return measure.signatures["bleu"]


def test_case_and_tokens_are_said_in_the_signature() -> None:
    assert translation_metrics(["A dog"], ["a  DOG"], lowercase=True)["exact"] == 1.0
    assert "case:lc" in signature(lowercase=True)
    assert "tok:char" in signature(tokenize="char")


def test_intervals_hold_the_figure_and_narrow_with_samples() -> None:
    measure = TranslationMetrics()
    few = measure.intervals([SAID], WRITTEN, n_resamples=300)
    many = measure.intervals([SAID * 25, SAID * 25], WRITTEN * 25, n_resamples=300)
    for name in ("bleu", "chrf", "exact"):
        assert few[name].low <= few[name].mean <= few[name].high
        assert many[name].mean == pytest.approx(few[name].mean)
        assert many[name].high - many[name].low < (few[name].high - few[name].low) / 3
    assert many["chrf"].seed_means == pytest.approx((few["chrf"].mean,) * 2)


def test_a_difference_is_paired() -> None:
    measure = TranslationMetrics()
    same = measure.difference([SAID * 9], [SAID * 9], WRITTEN * 9, n_resamples=100)
    assert all(interval.low == interval.mean == interval.high == 0 for interval in same.values())
    worse = [text.replace("a", "o") for text in SAID]
    assert measure.difference([SAID * 9], [worse * 9], WRITTEN * 9, n_resamples=100)["chrf"].low > 0


def test_an_empty_text_is_wrong_and_no_error() -> None:
    figures = translation_metrics(["", "a dog runs on grass"], ["a cat", "a dog runs on grass"])
    assert figures["exact"] == 0.5
    assert 0 < figures["bleu"] < 100


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([], [], "got 0 texts and references of 0 samples"),
        (["a"], ["a", "b"], "got 1 texts and references of 2 samples"),
        (["a", "b"], ["a", []], "sample 1 has no reference"),
        (["a", 7], ["a", "b"], "sample 1 has 7, expected texts"),
        (["a"], [["a", None]], "sample 0 has None, expected texts"),
    ],
)
def test_what_is_refused(predictions: list[str], targets: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        translation_metrics(predictions, targets)


def test_options_and_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="got tokenize='14b', expected one of 13a, intl, char"):
        TranslationMetrics(tokenize="14b")
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mmattn\[generation\]'"):
        translation_metrics(["a"], ["a"])


def test_counts_add_up() -> None:
    """The sum of the samples' counts is the count of n-grams of all texts, by an independent counter."""
    counts = TranslationMetrics(tokenize="none").counts(SAID, WRITTEN).sum(0)
    for order in range(1, 5):
        written = sum((grams(text, order) for text in SAID), Counter())
        assert counts[6 + order - 1] == written.total()


def grams(text: str, order: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[index : index + order]) for index in range(len(words) - order + 1))
