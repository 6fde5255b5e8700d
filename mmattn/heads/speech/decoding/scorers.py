"""What is known of texts beside the sound: n-grams over symbols or words, and a list of words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import Alphabet
from mmattn.heads.speech.decoding.ngram import NGram

__all__ = ["Lexicon", "Plain", "Scorer", "SymbolModel", "Together", "WordModel"]

_STATES = 10_000  # states whose scores are remembered


class Scorer(ABC):
    """Adds to the log-probability of a text, symbol by symbol.

    A state is all that the scorer has to know of a prefix, as a plain hashable value.

    Args:
        alphabet: of the symbols.
    """

    def __init__(self, alphabet: Alphabet):
        self.alphabet = alphabet
        self._scores: dict[Any, NDArray[np.float64]] = {}

    @abstractmethod
    def start(self) -> Any:
        """The state of the empty text."""

    @abstractmethod
    def next(self, state: Any, symbol: int) -> Any:
        """The state after a further symbol."""

    @abstractmethod
    def score(self, state: Any, symbol: int) -> float:
        """What a further symbol adds; minus infinity forbids it."""

    def end(self, state: Any) -> float:
        """What is added where the text ends; minus infinity where it cannot."""
        return 0.0

    def scores(self, state: Any) -> NDArray[np.float64]:
        """[C] what every symbol would add, remembered a state; 0 for the blank."""
        if state not in self._scores:
            if len(self._scores) >= _STATES:
                self._scores.clear()
            found = [self.score(state, symbol) for symbol in range(1, len(self.alphabet))]
            self._scores[state] = np.array([0.0, *found])
        return self._scores[state]


class Plain(Scorer):
    """Nothing is known."""

    def start(self) -> tuple[()]:
        return ()

    def next(self, state: tuple[()], symbol: int) -> tuple[()]:
        return ()

    def score(self, state: tuple[()], symbol: int) -> float:
        return 0.0


class SymbolModel(Scorer):
    """An n-gram over the alphabet's own symbols.

    Args:
        ngram: trained with `alphabet.encode(text)` of texts.
        alphabet: of the symbols.
        weight: of its log-probabilities.
        bonus: for every symbol: without it, short texts win.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import Characters
        >>> letters = Characters("ab")
        >>> ngram = NGram.train([letters.encode(text) for text in ("ab", "ab", "aab")], order=2)
        >>> scorer = SymbolModel(ngram, letters)
        >>> after_a = scorer.scores(scorer.next(scorer.start(), 1))
        >>> bool(after_a[2] > after_a[1])
        True
    """

    def __init__(self, ngram: NGram, alphabet: Alphabet, weight: float = 0.5, bonus: float = 0.0):
        super().__init__(alphabet)
        self.ngram, self.weight, self.bonus = ngram, weight, bonus

    def start(self) -> tuple[Any, ...]:
        return self.ngram.start

    def next(self, state: tuple[Any, ...], symbol: int) -> tuple[Any, ...]:
        return self.ngram.after(state, symbol)

    def score(self, state: tuple[Any, ...], symbol: int) -> float:
        return self.weight * self.ngram.log_prob(symbol, state) + self.bonus

    def end(self, state: tuple[Any, ...]) -> float:
        return self.weight * self.ngram.log_prob(self.ngram.END, state)


class WordModel(Scorer):
    """An n-gram over words, which scores a word where it ends.

    Args:
        ngram: trained with the words of texts.
        alphabet: of the symbols.
        weight: of its log-probabilities.
        bonus: for every word.
    """

    def __init__(self, ngram: NGram, alphabet: Alphabet, weight: float = 0.5, bonus: float = 0.0):
        super().__init__(alphabet)
        self.ngram, self.weight, self.bonus = ngram, weight, bonus

    def start(self) -> tuple[Any, str]:
        return self.ngram.start, ""

    def next(self, state: tuple[Any, str], symbol: int) -> tuple[Any, str]:
        history, word = state
        ended, begun = _parted(word, self.alphabet.surfaces[symbol])
        return (self.ngram.after(history, ended) if ended else history), begun

    def score(self, state: tuple[Any, str], symbol: int) -> float:
        history, word = state
        ended, _ = _parted(word, self.alphabet.surfaces[symbol])
        return self._of_word(history, ended)

    def end(self, state: tuple[Any, str]) -> float:
        history, word = state
        last = self.ngram.after(history, word) if word else history
        return self._of_word(history, word) + self.weight * self.ngram.log_prob(self.ngram.END, last)

    def _of_word(self, history: Any, word: str) -> float:
        return self.weight * self.ngram.log_prob(word, history) + self.bonus if word else 0.0


class Lexicon(Scorer):
    """Only texts of known words, a space between each two. They may be empty, and end in a space.

    Args:
        words: all of them.
        alphabet: that can write them.

    Raises:
        InputError: no words, or one that the alphabet cannot write.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import Characters
        >>> scorer = Lexicon(["ab", "b"], Characters("ab "))
        >>> scorer.scores(scorer.next(scorer.start(), 1)).tolist()  # after "a": only "b"
        [0.0, -inf, 0.0, -inf]
    """

    def __init__(self, words: Iterable[str], alphabet: Alphabet):
        super().__init__(alphabet)
        self.words = frozenset(words)
        if not self.words or "" in self.words:
            raise InputError(f"lexicon: got {len(self.words)} words, expected some, none of them empty")
        for word in sorted(self.words):
            alphabet.encode(word)
        # The trie of the words, as the set of its nodes.
        self._begun = {word[:length] for word in self.words for length in range(len(word) + 1)}

    def start(self) -> str:
        return ""

    def next(self, state: str, symbol: int) -> str:
        return _parted(state, self.alphabet.surfaces[symbol])[1]

    def score(self, state: str, symbol: int) -> float:
        surface = self.alphabet.surfaces[symbol]
        ended, begun = _parted(state, surface)
        whole = not surface.startswith(" ") or ended in self.words
        # Before the first word there is nothing that a space could end, but a piece that begins one.
        first = not state and surface.startswith(" ") and surface != " "
        return 0.0 if begun in self._begun and (whole or first) else -np.inf

    def end(self, state: str) -> float:
        return 0.0 if not state or state in self.words else -np.inf


class Together(Scorer):
    """The sum of several scorers, of one alphabet."""

    def __init__(self, *scorers: Scorer):
        super().__init__(scorers[0].alphabet)
        self.parts = scorers

    def start(self) -> tuple[Any, ...]:
        return tuple(part.start() for part in self.parts)

    def next(self, state: tuple[Any, ...], symbol: int) -> tuple[Any, ...]:
        return tuple(part.next(own, symbol) for part, own in zip(self.parts, state, strict=True))

    def score(self, state: tuple[Any, ...], symbol: int) -> float:
        return sum(part.score(own, symbol) for part, own in zip(self.parts, state, strict=True))

    def end(self, state: tuple[Any, ...]) -> float:
        return sum(part.end(own) for part, own in zip(self.parts, state, strict=True))


def _parted(word: str, surface: str) -> tuple[str, str]:
    """The word that a surface ends, "" if none, and the one that is begun or goes on."""
    if surface.startswith(" "):
        return word, surface[1:]
    return "", word + surface
