"""Prefix beam search as a configuration names it: its size, its language model and its lexicon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import CTCTokenizer
from mmattn.heads.speech.decoding.ngram import NGram
from mmattn.heads.speech.decoding.scorers import (
    LexiconScorer,
    NullScorer,
    Scorer,
    SumScorer,
    SymbolNGramScorer,
    WordNGramScorer,
)

__all__ = ["BeamOptions", "build_scorer"]


@dataclass(frozen=True)
class BeamOptions:
    """How a CTC head searches for its transcripts.

    Args:
        size: prefixes that are kept at every frame.
        ngram: what a language model is learned over: "symbol" (characters or word pieces), "word", or "none".
        order: symbols or words of the longest n-gram.
        weight: of the language model's log-probabilities.
        insertion_bonus: added for every symbol or word; without it, short texts win.
        lexicon: whether only words of the texts may be transcribed.
        texts: file with a text per line for the language model and the lexicon; left out, the training
            transcripts. It is read once, while fitting: a saved head holds its content.

    Raises:
        InputError: a size or order below 1, or a negative weight.
    """

    size: int = 16
    ngram: Literal["none", "symbol", "word"] = "none"
    order: int = 3
    weight: float = 0.5
    insertion_bonus: float = 0.0
    lexicon: bool = False
    texts: Path | None = None

    def __post_init__(self) -> None:
        if self.size < 1 or self.order < 1 or not self.weight >= 0:
            raise InputError(
                f"beam: got size {self.size}, order {self.order} and weight {self.weight}, expected a size "
                "and an order of at least 1 and a weight from 0"
            )

    @property
    def needs_texts(self) -> bool:
        """Whether there is anything to learn from texts."""
        return self.ngram != "none" or self.lexicon

    def read_texts(self) -> list[str]:
        """Return the lines of the file `texts` that are not empty.

        Raises:
            InputError: the file cannot be read, or holds no text.
        """
        assert self.texts is not None
        try:
            lines = self.texts.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"beam: {self.texts} cannot be read ({error})") from error
        if not (texts := [line.strip() for line in lines if line.strip()]):
            raise InputError(f"beam: {self.texts} holds no text, expected one per line")
        return texts


def build_scorer(options: BeamOptions, tokenizer: CTCTokenizer, texts: Sequence[str]) -> Scorer:
    """Build what the search knows of texts.

    Args:
        options: of the search.
        tokenizer: of the head's symbols.
        texts: that the language model and the lexicon are learned from.

    Raises:
        InputError: no texts where they are needed, or none that the symbols can write.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> letters = CharacterTokenizer("ab ")
        >>> scorer = build_scorer(BeamOptions(lexicon=True), letters, ["ab b"])
        >>> scorer.end_score("ab"), scorer.end_score("a")
        (0.0, -inf)
    """
    if options.needs_texts and not texts:
        raise InputError("beam: got no texts, expected some for the language model or the lexicon")
    scorers: list[Scorer] = []
    if options.lexicon:
        words = sorted({word for text in texts for word in text.split()})
        scorers.append(LexiconScorer([word for word in words if _can_write(tokenizer, word)], tokenizer))
    if options.ngram == "symbol":
        symbols = [tokenizer.encode(text, drop_unknown=True) for text in texts]
        ngram = NGram.train(symbols, options.order)
        scorers.append(SymbolNGramScorer(ngram, tokenizer, options.weight, options.insertion_bonus))
    if options.ngram == "word":
        ngram = NGram.train([text.split() for text in texts], options.order)
        scorers.append(WordNGramScorer(ngram, tokenizer, options.weight, options.insertion_bonus))
    if not scorers:
        return NullScorer(tokenizer)
    return scorers[0] if len(scorers) == 1 else SumScorer(*scorers)


def _can_write(tokenizer: CTCTokenizer, word: str) -> bool:
    return tokenizer.decode(tokenizer.encode(word, drop_unknown=True)) == word
