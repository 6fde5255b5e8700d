"""What transcripts are written with: characters or word pieces, numbered from 1; 0 is the blank of CTC."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mmattn.errors import InputError, MissingDependency

__all__ = ["BLANK", "Alphabet", "Characters", "Unit", "WordPieces", "build_alphabet", "train_pieces"]

BLANK = 0

Unit = Literal["character", "word-piece"]
_CONTINUES = "##"  # in front of a piece that does not begin a word, as BERT writes it
_SHOWN = 3


class Alphabet(ABC):
    """Turns texts into symbols and back.

    Attributes:
        surfaces: what each symbol adds to a text, `surfaces[0]` is "" for the blank. A surface that
            begins with a space begins a word.
    """

    surfaces: tuple[str, ...]

    def __len__(self) -> int:
        """Number of symbols, the blank among them."""
        return len(self.surfaces)

    @abstractmethod
    def encode(self, text: str, *, drop: bool = False) -> list[int]:
        """The symbols of a text, none of them the blank.

        Args:
            text: a transcript.
            drop: leave out what cannot be written; otherwise it is an error.

        Raises:
            InputError: naming what the alphabet does not know.
        """

    def text(self, symbols: Iterable[int]) -> str:
        """The text of some symbols."""
        return "".join(self.surfaces[symbol] for symbol in symbols)


class Characters(Alphabet):
    """One symbol a character.

    Args:
        characters: each once.

    Example:
        >>> letters = Characters("ab ")
        >>> letters.encode("b a"), letters.text([2, 3, 1])
        ([2, 3, 1], 'b a')
    """

    def __init__(self, characters: Sequence[str]):
        _check(tuple(characters), "characters")
        if any(len(character) != 1 for character in characters):
            wrong = next(character for character in characters if len(character) != 1)
            raise InputError(f"alphabet: got {wrong!r}, expected single characters")
        self.surfaces = ("", *characters)
        self._symbols = {character: symbol for symbol, character in enumerate(self.surfaces)}

    def encode(self, text: str, *, drop: bool = False) -> list[int]:
        unknown = sorted({character for character in text if character not in self._symbols})
        if unknown and not drop:
            raise InputError(
                f"alphabet: {text!r} has the unknown characters {_listed(unknown)}; "
                f"expected some of {''.join(self.surfaces)!r}, or unknown='drop'"
            )
        return [self._symbols[character] for character in text if character in self._symbols]


class WordPieces(Alphabet):
    """Words cut into the longest known pieces from the left; single words are pieces, too.

    Paper: Wu et al., "Google's Neural Machine Translation System", 2016; the cutting is that of
    Hugging Face's `tokenizers`.

    Args:
        pieces: each once; "##ing" continues a word, "walk" begins one (see `train_pieces`).

    Raises:
        MissingDependency: `tokenizers` is not installed.

    Example:
        >>> pieces = WordPieces(["walk", "##ing", "home"])
        >>> pieces.encode("walking home"), pieces.text([1, 2, 3])
        ([1, 2, 3], 'walking home')
    """

    def __init__(self, pieces: Sequence[str]):
        _check(tuple(pieces), "word pieces")
        self.surfaces = (
            "",
            *(piece.removeprefix(_CONTINUES) if _continues(piece) else f" {piece}" for piece in pieces),
        )
        tokenizers = _tokenizers()
        vocabulary = {piece: symbol for symbol, piece in enumerate(pieces, start=1)}
        # What cannot be cut becomes the blank, which stands for no piece.
        model = tokenizers.models.WordPiece({"": BLANK, **vocabulary}, unk_token="")
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()

    def encode(self, text: str, *, drop: bool = False) -> list[int]:
        found = self._tokenizer.encode(text)
        unknown = sorted(
            {
                text[first:last]
                for symbol, (first, last) in zip(found.ids, found.offsets, strict=True)
                if symbol == BLANK
            }
        )
        if unknown and not drop:
            raise InputError(
                f"alphabet: {text!r} has {_listed(unknown)}, which none of the {len(self) - 1} word pieces "
                "begin or continue; expected other pieces, or unknown='drop'"
            )
        return [symbol for symbol in found.ids if symbol != BLANK]

    def text(self, symbols: Iterable[int]) -> str:
        return super().text(symbols).removeprefix(" ")


def build_alphabet(symbols: Sequence[str], unit: Unit) -> Alphabet:
    """Characters or word pieces.

    Raises:
        InputError: another unit, or symbols that are not of that kind.
    """
    if unit not in ("character", "word-piece"):
        raise InputError(f"alphabet: got unit {unit!r}, expected 'character' or 'word-piece'")
    return Characters(symbols) if unit == "character" else WordPieces(symbols)


def train_pieces(texts: Iterable[str], size: int) -> list[str]:
    """The word pieces that write these texts with few symbols.

    Args:
        texts: of the training part.
        size: how many pieces, single characters among them.

    Raises:
        MissingDependency: `tokenizers` is not installed.

    Example:
        >>> "seven" in train_pieces(["seven seven", "six seven"], size=30)
        True
    """
    tokenizers = _tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=""))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=[], continuing_subword_prefix=_CONTINUES, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _check(symbols: Sequence[str], what: str) -> None:
    if not symbols or "" in symbols:
        raise InputError(f"alphabet: got {_listed(symbols)}, expected {what}")
    twice = sorted(symbol for symbol, count in Counter(symbols).items() if count > 1)
    if twice:
        raise InputError(f"alphabet: got {_listed(twice)} more than once, expected each once")


def _continues(piece: str) -> bool:
    return piece.startswith(_CONTINUES) and piece != _CONTINUES


def _listed(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _SHOWN} more" if len(symbols) > _SHOWN else ""
    return ", ".join(map(repr, symbols[:_SHOWN])) + more if symbols else "none"


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependency(
            "word pieces need the package tokenizers: pip install 'mmattn[speech]'"
        ) from error
    return tokenizers
