"""Searches: against the sum over all spellings, with what is known of texts, piece by piece, and fast."""

from __future__ import annotations

import difflib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer, WordPieceTokenizer
from mmattn.heads.speech.decoding import prefix_beam
from mmattn.heads.speech.decoding.ngram import NGram
from mmattn.heads.speech.decoding.prefix_beam import PrefixBeamDecoder
from mmattn.heads.speech.decoding.scorers import (
    LexiconScorer,
    Scorer,
    SumScorer,
    SymbolNGramScorer,
    WordNGramScorer,
)
from mmattn.heads.speech.decoding.search import GreedyDecoder

AB = CharacterTokenizer("ab ")


def emissions(frames: int, symbols: int, seed: int, spread: float = 2.0) -> NDArray[np.float64]:
    logits = np.random.default_rng(seed).normal(0, spread, (frames, symbols))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def all_texts(log_probs: NDArray[np.float64]) -> dict[tuple[int, ...], float]:
    """Probability of every text: all paths, one by one."""
    texts: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        text = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        weight = math.exp(sum(log_probs[frame, symbol] for frame, symbol in enumerate(path)))
        texts[text] = texts.get(text, 0.0) + weight
    return texts


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 1000))
def test_a_wide_beam_is_the_sum_over_all_spellings(frames: int, symbols: int, seed: int) -> None:
    log_probs = emissions(frames, symbols, seed)
    search = PrefixBeamDecoder(CharacterTokenizer("abc"[: symbols - 1]), beam_size=2000)
    search.feed(log_probs)
    results = {hypothesis.text: math.exp(hypothesis.log_prob) for hypothesis in search.hypotheses()}
    expected = {search.tokenizer.decode(text): weight for text, weight in all_texts(log_probs).items()}
    assert results == pytest.approx(expected, rel=1e-9)
    assert sum(results.values()) == pytest.approx(1.0)


def weighed(log_probs: NDArray[np.float64], scorer: Scorer) -> str:
    """The best text by all its spellings and what the scorer says of it."""

    def score(text: tuple[int, ...], weight: float) -> float:
        total, state = math.log(weight), scorer.start_state()
        for symbol in text:
            total += scorer.scores(state)[symbol]
            state = scorer.next_state(state, symbol)
        return total + scorer.end_score(state)

    texts = all_texts(log_probs)
    return scorer.tokenizer.decode(max(texts, key=lambda text: score(text, texts[text])))


LETTERS = NGram.train([AB.encode(text) for text in ("ab ab", "ba", "ab b")], order=3)
WORDS = NGram.train([text.split() for text in ("ab ab", "ba b", "ab b")], order=2)
SCORERS = {
    "letters": SymbolNGramScorer(LETTERS, AB, weight=1.3, insertion_bonus=0.4),
    "words": WordNGramScorer(WORDS, AB, weight=0.7, insertion_bonus=1.1),
    "lexicon": LexiconScorer(["ab", "b"], AB),
    "both": SumScorer(LexiconScorer(["ab", "ba", "b"], AB), WordNGramScorer(WORDS, AB)),
}


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("seed", range(7))
def test_with_a_scorer_it_is_the_best_of_all_texts(name: str, seed: int) -> None:
    log_probs = emissions(5, 4, seed)
    search = PrefixBeamDecoder(AB, beam_size=2000, scorer=SCORERS[name])
    search.feed(log_probs)
    assert search.finish() == weighed(log_probs, SCORERS[name])


def test_the_beam_says_what_no_single_path_says() -> None:
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    greedy, beam = (
        GreedyDecoder(CharacterTokenizer("a")),
        PrefixBeamDecoder(CharacterTokenizer("a"), beam_size=2),
    )
    for search in (greedy, beam):
        search.feed(log_probs)
    assert (greedy.finish(), beam.finish()) == ("", "a")


def test_a_beam_of_one_still_hears_repeats() -> None:
    likely = np.full((7, 3), 0.02)
    for frame, symbol in enumerate([1, 1, 0, 1, 2, 0, 2]):
        likely[frame, symbol] = 0.96
    search = PrefixBeamDecoder(CharacterTokenizer("ab"), beam_size=1)
    search.feed(np.log(likely))
    assert search.finish() == "aabb"


@pytest.mark.parametrize("sizes", [[1] * 23, [7, 11, 5], [0, 22, 0, 1]])
def test_pieces_give_what_the_whole_gives(sizes: list[int]) -> None:
    log_probs = emissions(23, 4, seed=3)
    for start in (lambda: GreedyDecoder(AB), lambda: PrefixBeamDecoder(AB, 5, SCORERS["both"])):
        whole, pieces = start(), start()
        whole.feed(log_probs)
        for first, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
            pieces.feed(log_probs[first : first + size])
        assert pieces.finish() == whole.finish()


def test_the_tree_of_prefixes_is_cut_back(monkeypatch: pytest.MonkeyPatch) -> None:
    log_probs = emissions(211, 4, seed=5, spread=4.0)
    search, cut, short = (PrefixBeamDecoder(AB, 8) for _ in range(3))
    search.feed(log_probs)
    monkeypatch.setattr(prefix_beam, "_MAX_NODES", 50)
    cut.feed(log_probs)
    assert cut.hypotheses() == search.hypotheses()  # nothing has changed
    monkeypatch.setattr(prefix_beam, "_RECENT_SYMBOLS", 5)  # and hardly anything where old doubts are settled
    short.feed(log_probs)
    assert difflib.SequenceMatcher(None, short.finish(), search.finish()).ratio() > 0.95
    assert len(short._parents) < 120 < 600 < len(search._parents)
    assert len(short._committed) > 80


def test_a_lexicon_leaves_no_other_word() -> None:
    words = {"ab", "b", "ba"}
    for seed in range(5):
        search = PrefixBeamDecoder(AB, 8, LexiconScorer(words, AB))
        search.feed(emissions(31, 4, seed))
        *whole, last = search.finish().split(" ")
        assert len(whole) > 3
        assert set(whole) <= words
        # Where the sound stops within a word in all texts of the beam, it is left as it is.
        assert last in {*words, ""} or all(hypothese.text.endswith(" a") for hypothese in search.hypotheses())


def test_a_lexicon_of_word_pieces() -> None:
    pieces = WordPieceTokenizer(["walk", "##ing", "##s", "home"])
    scorer = LexiconScorer(["walking", "home"], pieces)
    start = scorer.start_state()
    assert np.isfinite(scorer.scores(start)).tolist() == [True, True, False, False, True]
    walk = scorer.next_state(start, 1)
    assert np.isfinite(scorer.scores(walk)).tolist() == [True, False, True, False, False]
    assert scorer.end_score(walk) == -np.inf
    assert scorer.end_score(scorer.next_state(walk, 2)) == 0.0


def test_what_cannot_be_searched_with() -> None:
    with pytest.raises(InputError, match="got width 0, expected at least 1"):
        PrefixBeamDecoder(AB, beam_size=0)
    for search in (PrefixBeamDecoder(AB), GreedyDecoder(AB)):
        with pytest.raises(InputError, match=r"got log-probabilities \(5, 3\), expected \[T, 4\]"):
            search.feed(np.zeros((5, 3)))
        with pytest.raises(InputError, match="without NaN"):
            search.feed(np.full((1, 4), np.nan))
    with pytest.raises(InputError, match="no text that the scorer allows"):
        PrefixBeamDecoder(AB).feed(np.full((1, 4), -np.inf))
    with pytest.raises(InputError, match="lexicon: got 0 words"):
        LexiconScorer([], AB)
    with pytest.raises(InputError, match="'abc' has the unknown characters 'c'"):
        LexiconScorer(["abc"], AB)
