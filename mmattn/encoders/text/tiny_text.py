"""A small trainable text encoder that needs no pretrained weights: hashed character n-grams."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.encoders.base import Encoder, EncoderCard
from mmattn.encoders.text.huggingface_text import split_fields, texts_to_encode
from mmattn.encoders.text.word_lists import as_words
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["HashedText", "TinyText", "tokenize_words"]

_WORD = re.compile(r"\w+|[^\w\s]")
_FIELD_STRIDE = 256  # positions per field


@dataclass(frozen=True)
class HashedText:
    """A text as hashed character n-grams; the result of `TinyText.read`.

    Args:
        ngrams: buckets of the n-grams of all words, word after word.
        ngram_counts: number of n-grams of each word.
        position: position of each word.
    """

    ngrams: tuple[int, ...]
    ngram_counts: tuple[int, ...]
    position: tuple[int, ...]


class TinyText(Encoder):
    """Encode each word as one token, from its hashed character n-grams and the neighbouring words.

    There is no vocabulary: an unseen word is represented by its parts, in any language and script. Word i of
    field f has position f * 256 + i; fields are independent. With `is_split_into_words`, a content is one
    text as a list of its words instead, all of which are kept, word i at position i.

    Paper: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", arXiv:1607.04606 (the
    n-grams); residual convolutions over three words follow.

    Args:
        dim: width D of the tokens.
        buckets: rows of the embedding table that n-grams are hashed into.
        max_words: maximum words of each field, at most 256.
        layers: convolutions over neighbouring words; 0 for none.
        word_shapes: add the n-grams of the word's shape ("Xxx-0"): capitals, digits and signs.
        is_split_into_words: contents are lists of words.
        modality: name of the modality in the tokens.

    Raises:
        InputError: an option is out of range.

    Example:
        >>> encoder = TinyText(dim=8)
        >>> encoder(["twenty one", None, ["seven", "eight"]]).position.tolist()
        [0, 1, 0, 256]
    """

    name = "tiny-text"

    def __init__(
        self,
        *,
        dim: int = 64,
        buckets: int = 8192,
        max_words: int = 64,
        layers: int = 2,
        word_shapes: bool = False,
        is_split_into_words: bool = False,
        modality: str = "text",
    ):
        super().__init__()
        if not 1 <= max_words <= _FIELD_STRIDE:
            raise InputError(f"tiny-text: got max_words={max_words}, expected 1 to {_FIELD_STRIDE}")
        self.dim = dim
        self.buckets = buckets
        self.max_words = max_words
        self.word_shapes = word_shapes
        self.is_split_into_words = is_split_into_words
        self.modality = modality
        self.ngram_embedding = nn.EmbeddingBag(buckets, dim, mode="mean")
        self.mixers = nn.ModuleList(nn.Linear(3 * dim, dim) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))

    def describe(self) -> EncoderCard:
        grams = "1 to 4, whole word, shapes" if self.word_shapes else "1 to 4, whole word"
        steps = {"buckets": self.buckets, "max_words": self.max_words, "grams": grams}
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={**steps, "words": True} if self.is_split_into_words else steps,
        )

    def options(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "buckets": self.buckets,
            "max_words": self.max_words,
            "layers": len(self.mixers),
            "word_shapes": self.word_shapes,
            "is_split_into_words": self.is_split_into_words,
            "modality": self.modality,
        }

    def read(self, content: Any) -> HashedText:
        if isinstance(content, HashedText):
            return content
        words, positions = self._split_words(content)
        ngrams = [_ngram_buckets(word, self.buckets, self.word_shapes) for word in words]
        return HashedText(tuple(chain.from_iterable(ngrams)), tuple(map(len, ngrams)), tuple(positions))

    def _split_words(self, content: Any) -> tuple[list[str], list[int]]:
        """Split a content into words and the position of each."""
        if self.is_split_into_words:
            words = list(as_words(content))
            return words, list(range(len(words)))
        words, positions = [], []
        for field, text in texts_to_encode(split_fields(content), "fields"):
            for index, word in enumerate(islice(tokenize_words(text), self.max_words)):
                words.append(word[0])
                positions.append(field * _FIELD_STRIDE + index)
        return words, positions

    def encode(self, contents: Sequence[Any]) -> Tokens:
        empty = HashedText((), (), ())
        texts = [empty if content is None else self.read(content) for content in contents]

        def concatenated(field: str) -> Tensor:
            numbers = [number for text in texts for number in getattr(text, field)]
            return torch.tensor(numbers, device=self.device).long()

        count_N, position_N = concatenated("ngram_counts"), concatenated("position")
        lengths = torch.tensor([len(text.ngram_counts) for text in texts], device=self.device).long()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        x_ND = self.ngram_embedding(concatenated("ngrams"), count_N.cumsum(0) - count_N)
        sample_N = torch.arange(len(texts), device=self.device).repeat_interleave(lengths)
        x_ND = self._mix_neighbours(x_ND, sample_N * (1 << 32) + position_N // _FIELD_STRIDE)
        return Tokens(x_ND, offsets, torch.zeros_like(position_N), position_N, (self.modality,))

    def _mix_neighbours(self, x_ND: Tensor, text_N: Tensor) -> Tensor:
        """Apply the convolutions over the previous and next word, within one text."""
        if not len(x_ND):
            return x_ND
        # A neighbour in another text is zero, like the padding of a convolution.
        same_text_N1 = (text_N[1:] == text_N[:-1])[:, None]
        padding_1D = x_ND.new_zeros(1, self.dim)
        for mixer, norm in zip(self.mixers, self.norms, strict=True):
            y_ND = norm(x_ND)
            before_ND = torch.cat([padding_1D, y_ND[:-1] * same_text_N1])
            after_ND = torch.cat([y_ND[1:] * same_text_N1, padding_1D])
            x_ND = x_ND + nn.functional.gelu(mixer(torch.cat([before_ND, y_ND, after_ND], dim=1)))
        return x_ND


def tokenize_words(text: str) -> Iterator[re.Match[str]]:
    """Split a text into words and punctuation marks.

    Args:
        text: the text.

    Yields:
        A match for each word, with its span.

    Example:
        >>> [(word[0], word.span()) for word in tokenize_words("Un sei!")]
        [('Un', (0, 2)), ('sei', (3, 6)), ('!', (6, 7))]
    """
    return _WORD.finditer(text)


def _ngram_buckets(word: str, buckets: int, word_shapes: bool = False) -> list[int]:
    """Hash the n-grams (1 to 4 characters) of <word> in lower case, <word> itself, and those of its shape."""
    parts = _ngrams(f"<{word.lower()}>")
    if word_shapes:
        parts |= {f"shape {part}" for part in _ngrams(f"<{_word_shape(word)}>")}
    # Python's own hash differs between processes.
    return [zlib.crc32(part.encode()) % buckets for part in sorted(parts)]


def _ngrams(marked: str) -> set[str]:
    parts = {marked[start : start + size] for size in (1, 2, 3, 4) for start in range(len(marked) - size + 1)}
    return {*parts, marked} - {"<", ">"}


def _word_shape(word: str) -> str:
    """Replace capitals by X, other letters by x and digits by 0."""
    return "".join(
        "X" if sign.isupper() else "x" if sign.isalpha() else "0" if sign.isdigit() else sign for sign in word
    )
