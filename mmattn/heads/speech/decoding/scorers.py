"""What is known of texts beside the sound: n-grams over symbols or words, and a list of words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.heads.speech.ctc_tokenizer import CTCTokenizer
    from mmattn.heads.speech.decoding.ngram import NGram

__all__ = ["LexiconScorer", "NullScorer", "Scorer", "SumScorer", "SymbolNGramScorer", "WordNGramScorer"]

_MAX_CACHED_STATES = 10_000  # states whose scores are remembered


class Scorer(ABC):
    """Adds to the log-probability of a text, symbol by symbol.

    A state is all that the scorer has to know of a prefix, as a plain hashable value.

    Args:
        tokenizer: of the symbols.
    """

    def __init__(self, tokenizer: CTCTokenizer):
        self.tokenizer = tokenizer
        self._scores: dict[Any, NDArray[np.float64]] = {}

    @abstractmethod
    def start_state(self) -> Any:
        """The state of the empty text."""

    @abstractmethod
    def next_state(self, state: Any, symbol: int) -> Any:
        """Return the state after a further symbol.

        Args:
            state: before the symbol.
            symbol: its number.
        """

    @abstractmethod
    def score(self, state: Any, symbol: int) -> float:
        """Return the score of a further symbol; minus infinity forbids it.

        Args:
            state: before the symbol.
            symbol: its number.
        """

    def end_score(self, state: Any) -> float:
        """Return the score of ending the text here; minus infinity if it cannot end.

        Args:
            state: after the last symbol.
        """
        return 0.0

    def scores(self, state: Any) -> NDArray[np.float64]:
        """Return the score of every symbol, [C]; 0 for the blank. Cached by state.

        Args:
            state: before the symbol.
        """
        if state not in self._scores:
            if len(self._scores) >= _MAX_CACHED_STATES:
                self._scores.clear()
            result = [self.score(state, symbol) for symbol in range(1, len(self.tokenizer))]
            self._scores[state] = np.array([0.0, *result])
        return self._scores[state]


class NullScorer(Scorer):
    """Nothing is known."""

    def start_state(self) -> tuple[()]:
        return ()

    def next_state(self, state: tuple[()], symbol: int) -> tuple[()]:
        return ()

    def score(self, state: tuple[()], symbol: int) -> float:
        return 0.0


class SymbolNGramScorer(Scorer):
    """An n-gram over the alphabet's own symbols.

    Args:
        ngram: trained with `alphabet.encode(text)` of texts.
        tokenizer: of the symbols.
        weight: of its log-probabilities.
        insertion_bonus: for every symbol: without it, short texts win.

    Example:
        >>> from mmattn.heads.speech.decoding.ngram import NGram
        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> letters = CharacterTokenizer("ab")
        >>> ngram = NGram.train([letters.encode(text) for text in ("ab", "ab", "aab")], order=2)
        >>> scorer = SymbolNGramScorer(ngram, letters)
        >>> after_a = scorer.scores(scorer.next_state(scorer.start_state(), 1))
        >>> bool(after_a[2] > after_a[1])
        True
    """

    def __init__(
        self, ngram: NGram, tokenizer: CTCTokenizer, weight: float = 0.5, insertion_bonus: float = 0.0
    ):
        super().__init__(tokenizer)
        self.ngram, self.weight, self.insertion_bonus = ngram, weight, insertion_bonus

    def start_state(self) -> tuple[Any, ...]:
        return self.ngram.start_context

    def next_state(self, state: tuple[Any, ...], symbol: int) -> tuple[Any, ...]:
        return self.ngram.next_context(state, symbol)

    def score(self, state: tuple[Any, ...], symbol: int) -> float:
        return self.weight * self.ngram.log_prob(symbol, state) + self.insertion_bonus

    def end_score(self, state: tuple[Any, ...]) -> float:
        return self.weight * self.ngram.log_prob(self.ngram.END, state)


class WordNGramScorer(Scorer):
    """An n-gram over words, which scores a word where it ends.

    Args:
        ngram: trained with the words of texts.
        tokenizer: of the symbols.
        weight: of its log-probabilities.
        insertion_bonus: for every word.
    """

    def __init__(
        self, ngram: NGram, tokenizer: CTCTokenizer, weight: float = 0.5, insertion_bonus: float = 0.0
    ):
        super().__init__(tokenizer)
        self.ngram, self.weight, self.insertion_bonus = ngram, weight, insertion_bonus

    def start_state(self) -> tuple[Any, str]:
        return self.ngram.start_context, ""

    def next_state(self, state: tuple[Any, str], symbol: int) -> tuple[Any, str]:
        history, word = state
        ended, begun = _split_word(word, self.tokenizer.symbol_texts[symbol])
        return (self.ngram.next_context(history, ended) if ended else history), begun

    def score(self, state: tuple[Any, str], symbol: int) -> float:
        history, word = state
        ended, _ = _split_word(word, self.tokenizer.symbol_texts[symbol])
        return self._word_score(history, ended)

    def end_score(self, state: tuple[Any, str]) -> float:
        history, word = state
        last = self.ngram.next_context(history, word) if word else history
        return self._word_score(history, word) + self.weight * self.ngram.log_prob(self.ngram.END, last)

    def _word_score(self, history: Any, word: str) -> float:
        return self.weight * self.ngram.log_prob(word, history) + self.insertion_bonus if word else 0.0


class LexiconScorer(Scorer):
    """Only texts of known words, a space between each two. They may be empty, and end in a space.

    Args:
        words: all of them.
        tokenizer: that can write them.

    Raises:
        InputError: no words, or one that the alphabet cannot write.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> scorer = LexiconScorer(["ab", "b"], CharacterTokenizer("ab "))
        >>> scorer.scores(scorer.next_state(scorer.start_state(), 1)).tolist()  # after "a": only "b"
        [0.0, -inf, 0.0, -inf]
    """

    def __init__(self, words: Iterable[str], tokenizer: CTCTokenizer):
        super().__init__(tokenizer)
        self.words = frozenset(words)
        if not self.words or "" in self.words:
            raise InputError(f"lexicon: got {len(self.words)} words, expected some, none of them empty")
        for word in sorted(self.words):
            tokenizer.encode(word)
        # The trie of the words, as the set of its nodes.
        self._prefixes = {word[:length] for word in self.words for length in range(len(word) + 1)}

    def start_state(self) -> str:
        return ""

    def next_state(self, state: str, symbol: int) -> str:
        return _split_word(state, self.tokenizer.symbol_texts[symbol])[1]

    def score(self, state: str, symbol: int) -> float:
        surface = self.tokenizer.symbol_texts[symbol]
        ended, begun = _split_word(state, surface)
        whole = not surface.startswith(" ") or ended in self.words
        # Before the first word there is nothing that a space could end, but a piece that begins one.
        first = not state and surface.startswith(" ") and surface != " "
        return 0.0 if begun in self._prefixes and (whole or first) else -np.inf

    def end_score(self, state: str) -> float:
        return 0.0 if not state or state in self.words else -np.inf


class SumScorer(Scorer):
    """The sum of several scorers, of one alphabet.

    Args:
        *scorers: whose scores are added.
    """

    def __init__(self, *scorers: Scorer):
        super().__init__(scorers[0].tokenizer)
        self.scorers = scorers

    def start_state(self) -> tuple[Any, ...]:
        return tuple(part.start_state() for part in self.scorers)

    def next_state(self, state: tuple[Any, ...], symbol: int) -> tuple[Any, ...]:
        return tuple(
            part.next_state(part_state, symbol) for part, part_state in zip(self.scorers, state, strict=True)
        )

    def score(self, state: tuple[Any, ...], symbol: int) -> float:
        return sum(
            part.score(part_state, symbol) for part, part_state in zip(self.scorers, state, strict=True)
        )

    def end_score(self, state: tuple[Any, ...]) -> float:
        return sum(part.end_score(part_state) for part, part_state in zip(self.scorers, state, strict=True))


def _split_word(word: str, symbol_text: str) -> tuple[str, str]:
    """The word that a surface ends, "" if none, and the one that is begun or goes on."""
    if symbol_text.startswith(" "):
        return word, symbol_text[1:]
    return "", word + symbol_text
