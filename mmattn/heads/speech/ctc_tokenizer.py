"""What transcripts are written with: characters or word pieces, numbered from 1; 0 is the blank of CTC."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from mmattn.errors import InputError, MissingDependency

__all__ = [
    "BLANK",
    "CTCTokenizer",
    "CharacterTokenizer",
    "TokenUnit",
    "WordPieceTokenizer",
    "build_tokenizer",
    "train_word_pieces",
]

BLANK = 0

TokenUnit = Literal["character", "word-piece"]
_CONTINUATION_PREFIX = "##"  # in front of a piece that does not begin a word, as BERT writes it
_MAX_LISTED = 3


class CTCTokenizer(ABC):
    """Turns texts into symbols and back.

    Attributes:
        symbol_texts: what each symbol adds to a text, `surfaces[0]` is "" for the blank. A surface that
            begins with a space begins a word.
    """

    symbol_texts: tuple[str, ...]

    def __len__(self) -> int:
        """Number of symbols, the blank among them."""
        return len(self.symbol_texts)

    @abstractmethod
    def encode(self, text: str, *, drop_unknown: bool = False) -> list[int]:
        """The symbols of a text, none of them the blank.

        Args:
            text: a transcript.
            drop_unknown: leave out what cannot be written; otherwise it is an error.

        Raises:
            InputError: naming what the alphabet does not know.
        """

    def decode(self, symbols: Iterable[int]) -> str:
        """The text of some symbols.

        Args:
            symbols: numbers of symbols.
        """
        return "".join(self.symbol_texts[symbol] for symbol in symbols)


class CharacterTokenizer(CTCTokenizer):
    """One symbol a character.

    Args:
        characters: the characters, each once.

    Raises:
        InputError: a string of another length than one.

    Example:
        >>> letters = CharacterTokenizer("ab ")
        >>> letters.encode("b a"), letters.decode([2, 3, 1])
        ([2, 3, 1], 'b a')
    """

    def __init__(self, characters: Sequence[str]):
        _check_symbols(tuple(characters), "characters")
        if any(len(character) != 1 for character in characters):
            wrong = next(character for character in characters if len(character) != 1)
            raise InputError(f"alphabet: got {wrong!r}, expected single characters")
        self.symbol_texts = ("", *characters)
        self._symbol_of = {character: symbol for symbol, character in enumerate(self.symbol_texts)}

    def encode(self, text: str, *, drop_unknown: bool = False) -> list[int]:
        unknown = sorted({character for character in text if character not in self._symbol_of})
        if unknown and not drop_unknown:
            raise InputError(
                f"alphabet: {text!r} has the unknown characters {_format_symbols(unknown)}; "
                f"expected some of {''.join(self.symbol_texts)!r}, or unknown='drop'"
            )
        return [self._symbol_of[character] for character in text if character in self._symbol_of]


class WordPieceTokenizer(CTCTokenizer):
    """Words cut into the longest known pieces from the left; single words are pieces, too.

    Paper: Wu et al., "Google's Neural Machine Translation System", 2016; the cutting is that of
    Hugging Face's `tokenizers`.

    Args:
        pieces: each once; "##ing" continues a word, "walk" begins one (see `train_word_pieces`).

    Raises:
        MissingDependency: `tokenizers` is not installed.

    Example:
        >>> pieces = WordPieceTokenizer(["walk", "##ing", "home"])
        >>> pieces.encode("walking home"), pieces.decode([1, 2, 3])
        ([1, 2, 3], 'walking home')
    """

    def __init__(self, pieces: Sequence[str]):
        _check_symbols(tuple(pieces), "word pieces")
        self.symbol_texts = (
            "",
            *(
                piece.removeprefix(_CONTINUATION_PREFIX) if _is_continuation(piece) else f" {piece}"
                for piece in pieces
            ),
        )
        tokenizers = _import_tokenizers()
        vocabulary = {piece: symbol for symbol, piece in enumerate(pieces, start=1)}
        # What cannot be cut becomes the blank, which stands for no piece.
        model = tokenizers.models.WordPiece({"": BLANK, **vocabulary}, unk_token="")
        self._tokenizer = tokenizers.Tokenizer(model)
        self._tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()

    def encode(self, text: str, *, drop_unknown: bool = False) -> list[int]:
        encoding = self._tokenizer.encode(text)
        unknown = sorted(
            {
                text[first:last]
                for symbol, (first, last) in zip(encoding.ids, encoding.offsets, strict=True)
                if symbol == BLANK
            }
        )
        if unknown and not drop_unknown:
            raise InputError(
                f"alphabet: {text!r} has {_format_symbols(unknown)}, which none of the {len(self) - 1} word "
                f"pieces "
                "begin or continue; expected other pieces, or unknown='drop'"
            )
        return [symbol for symbol in encoding.ids if symbol != BLANK]

    def decode(self, symbols: Iterable[int]) -> str:
        return super().decode(symbols).removeprefix(" ")


def build_tokenizer(symbols: Sequence[str], unit: TokenUnit) -> CTCTokenizer:
    """Characters or word pieces.

    Args:
        symbols: characters or word pieces.
        unit: "character" or "word-piece".

    Raises:
        InputError: another unit, or symbols that are not of that kind.
    """
    if unit not in ("character", "word-piece"):
        raise InputError(f"alphabet: got unit {unit!r}, expected 'character' or 'word-piece'")
    return CharacterTokenizer(symbols) if unit == "character" else WordPieceTokenizer(symbols)


def train_word_pieces(texts: Iterable[str], vocab_size: int) -> list[str]:
    """The word pieces that write these texts with few symbols.

    Args:
        texts: of the training part.
        vocab_size: how many pieces, single characters among them.

    Raises:
        MissingDependency: `tokenizers` is not installed.

    Example:
        >>> "seven" in train_word_pieces(["seven seven", "six seven"], vocab_size=30)
        True
    """
    tokenizers = _import_tokenizers()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=""))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[],
        continuing_subword_prefix=_CONTINUATION_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def _check_symbols(symbols: Sequence[str], what: str) -> None:
    if not symbols or "" in symbols:
        raise InputError(f"alphabet: got {_format_symbols(symbols)}, expected {what}")
    twice = sorted(symbol for symbol, count in Counter(symbols).items() if count > 1)
    if twice:
        raise InputError(f"alphabet: got {_format_symbols(twice)} more than once, expected each once")


def _is_continuation(piece: str) -> bool:
    return piece.startswith(_CONTINUATION_PREFIX) and piece != _CONTINUATION_PREFIX


def _format_symbols(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _MAX_LISTED} more" if len(symbols) > _MAX_LISTED else ""
    return ", ".join(map(repr, symbols[:_MAX_LISTED])) + more if symbols else "none"


def _import_tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingDependency(
            "word pieces need the package tokenizers: pip install 'mmattn[speech]'"
        ) from error
    return tokenizers
