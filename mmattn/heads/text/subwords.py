"""What a written text is made of for a head that writes: words, word pieces or characters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmattn.encoders.pretrained import import_optional
from mmattn.errors import InputError, did_you_mean

__all__ = ["END", "START", "TOKEN_UNITS", "UNKNOWN", "TextTokenizer", "learn_vocabulary", "read_word_pieces"]

TOKEN_UNITS = ("word", "piece", "character")

# The numbers before those of the names.
START, END, UNKNOWN = 0, 1, 2
_SPECIAL_TOKENS = ("<s>", "</s>", "<unk>")
_CONTINUATION_PREFIX = "##"  # a piece that goes on a word, as in BERT's vocabularies


class TextTokenizer:
    """Texts as numbers and back.

    Texts are parted at white space, so a text comes back with one space wherever there was some. What the
    vocabulary lacks becomes `UNKNOWN`: a word, a character, or a word for which there are no pieces.

    Paper: Wu et al., "Google's Neural Machine Translation System", 2016, section 4.1 (word pieces); they are
    found here as BERT finds them, the longest first.

    Args:
        vocabulary: words, pieces ("##" before those that go on a word) or characters.
        unit: which of these they are.
        lowercase: write everything in lower case.
        where: what errors call the head.

    Raises:
        InputError: no such unit, no name, one that is empty or stands there twice.

    Example:
        >>> units = TextTokenizer(["a", "zebra", "ze", "##bu"], unit="piece")
        >>> units.encode("a zebu a dog"), units.decode([3, 5, 6, 3])
        ([3, 5, 6, 3, 2], 'a zebu a')
    """

    def __init__(
        self, vocabulary: Sequence[str], unit: str = "word", lowercase: bool = False, where: str = "units"
    ):
        if unit not in TOKEN_UNITS:
            raise InputError(f"{where}: got unit={unit!r}.{did_you_mean(unit, TOKEN_UNITS)}")
        if isinstance(vocabulary, str) or not vocabulary:
            raise InputError(f"{where}: got the vocabulary {vocabulary!r}, expected a list of {unit}s")
        counts = Counter(vocabulary)
        wrong = [name for name in counts if not isinstance(name, str) or not name or counts[name] > 1]
        if wrong:
            raise InputError(f"{where}: got {wrong[0]!r} in the vocabulary, expected distinct {unit}s")
        self.vocabulary, self.unit, self.lowercase = tuple(vocabulary), unit, lowercase
        self._token_ids = {name: len(_SPECIAL_TOKENS) + index for index, name in enumerate(vocabulary)}
        self._longest = max(map(len, vocabulary))

    def __len__(self) -> int:
        """Numbers in use, with those of start, end and unknown."""
        return len(_SPECIAL_TOKENS) + len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, without start and end.

        Args:
            text: the text.
        """
        text = " ".join((text.lower() if self.lowercase else text).split())
        if self.unit == "piece":
            return [number for word in text.split() for number in self._word_pieces(word)]
        parts = text.split() if self.unit == "word" else text
        return [self._token_ids.get(part, UNKNOWN) for part in parts]

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of token ids; start, end and unknown are skipped.

        Args:
            token_ids: numbers of tokens.
        """
        names = [
            self.vocabulary[number - len(_SPECIAL_TOKENS)]
            for number in token_ids
            if number >= len(_SPECIAL_TOKENS)
        ]
        if self.unit == "character":
            return "".join(names)
        return (
            " ".join(names).replace(f" {_CONTINUATION_PREFIX}", "")
            if self.unit == "piece"
            else " ".join(names)
        )

    def _word_pieces(self, word: str) -> list[int]:
        pieces: list[int] = []
        start = 0
        while start < len(word):
            before = _CONTINUATION_PREFIX if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                number = self._token_ids.get(before + word[start:end])
                if number is not None:
                    break
            else:
                return [UNKNOWN]
            pieces.append(number)
            start = end
        return pieces


def learn_vocabulary(
    texts: Sequence[str],
    unit: str = "word",
    *,
    vocab_size: int = 8000,
    min_frequency: int = 1,
    lowercase: bool = False,
) -> list[str]:
    """The names that some texts need, the most frequent first.

    Args:
        texts: of the training samples.
        unit: "word", "piece" or "character".
        vocab_size: names at most; pieces are merged until there are as many.
        min_frequency: leave out words and characters that come less often; pieces are not merged for fewer.
        lowercase: as the head writes.

    Raises:
        InputError: no such unit, or texts without any word.
        MissingDependency: pieces are learned by tokenizers.

    Example:
        >>> learn_vocabulary(["two cats", "two dogs"], min_frequency=2), learn_vocabulary(["abba b"],
        ...     "character")
        (['two'], ['b', 'a', ' '])
    """
    if unit not in TOKEN_UNITS:
        raise InputError(f"units: got unit={unit!r}.{did_you_mean(unit, TOKEN_UNITS)}")
    plain = [" ".join((text.lower() if lowercase else text).split()) for text in texts]
    if not any(plain):
        raise InputError(f"units: got {len(plain)} texts without a word, expected some to learn {unit}s from")
    if unit == "piece":
        return _learn_word_pieces(plain, vocab_size, min_frequency)
    counts = Counter(part for text in plain for part in (text.split() if unit == "word" else text))
    return [name for name, count in counts.most_common(vocab_size) if count >= min_frequency]


def _learn_word_pieces(texts: Sequence[str], vocab_size: int, min_frequency: int) -> list[str]:
    tokenizers = import_optional("tokenizers", "hf")
    learner = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=_SPECIAL_TOKENS[UNKNOWN]))
    learner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        continuing_subword_prefix=_CONTINUATION_PREFIX,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    return [name for name, _ in sorted(learner.get_vocab().items(), key=lambda item: item[1])]


def read_word_pieces(path: str | Path) -> list[str]:
    """The word pieces of a tokenizer's file: `vocab.txt` (one a line) or `tokenizer.json` of a WordPiece.

    Args:
        path: of `vocab.txt` or `tokenizer.json`.

    Raises:
        InputError: no such file, or it holds something else.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return [line for line in text.splitlines() if line]
        model = json.loads(text)["model"]
        if model["type"] == "WordPiece":
            return sorted(model["vocab"], key=model["vocab"].__getitem__)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as a vocabulary ({error})") from error
    raise InputError(f"{path}: got a tokenizer of type {model['type']!r}, expected WordPiece")
