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


@dataclass(frozen=True)
class HashedText:
    """A text as hashed character n-grams: what `TinyText.read` gives.

    Args:
        ngrams: hashed n-grams of all words, one word behind the other.
        ngram_counts: n-grams of each word.
        position: position of each word.
    """

    ngrams: tuple[int, ...]
    ngram_counts: tuple[int, ...]
    position: tuple[int, ...]


class TinyText(Encoder):
    """One token a word, from the hashed n-grams of its characters and the words beside it.

    No vocabulary: a word never seen before is known by its parts, in any language and script.
    Word f * 256 + i in `position` is word i of field f; fields do not see each other. With `is_split_into_words`, a
    content is one text as a list of its words instead, all of which are kept, word i at position i.

    Paper: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information",
    arXiv:1607.04606 (the n-grams); two residual convolutions over three words follow.

    Args:
        dim: width D of the tokens.
        buckets: rows of the table that the n-grams are hashed into.
        max_words: words that are kept of each field, at most 256.
        layers: convolutions over neighbouring words; 0 for none.
        word_shapes: n-grams of the word's shape ("Xxx-0") too: capitals, digits and signs, where they stand.
        is_split_into_words: contents are lists of words.
        modality: name of the modality in the tokens.

    Raises:
        Unreadable: a content is neither a string nor a list of strings.

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
        words, place = self._split_words(content)
        grams = [_ngram_buckets(word, self.buckets, self.word_shapes) for word in words]
        return HashedText(tuple(chain.from_iterable(grams)), tuple(map(len, grams)), tuple(place))

    def _split_words(self, content: Any) -> tuple[list[str], list[int]]:
        """The words of a content, and the position of each."""
        if self.is_split_into_words:
            listed = list(as_words(content))
            return listed, list(range(len(listed)))
        words: list[str] = []
        place: list[int] = []
        for field, text in texts_to_encode(split_fields(content), "fields"):
            for index, word in enumerate(islice(tokenize_words(text), self.max_words)):
                words.append(word[0])
                place.append(field * _FIELD_STRIDE + index)
        return words, place

    def encode(self, contents: Sequence[Any]) -> Tokens:
        nothing = HashedText((), (), ())
        read = [nothing if content is None else self.read(content) for content in contents]

        def joined(field: str) -> Tensor:
            return torch.tensor(
                [n for words in read for n in getattr(words, field)], device=self.device
            ).long()

        count_N, place_N = joined("ngram_counts"), joined("position")
        lengths = torch.tensor([len(words.ngram_counts) for words in read], device=self.device).long()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        x_ND = self.ngram_embedding(joined("ngrams"), count_N.cumsum(0) - count_N)
        sample_N = torch.arange(len(read), device=self.device).repeat_interleave(lengths)
        x_ND = self._mix_neighbours(x_ND, sample_N * (1 << 32) + place_N // _FIELD_STRIDE)
        return Tokens(x_ND, offsets, torch.zeros_like(place_N), place_N, (self.modality,))

    def _mix_neighbours(self, x_ND: Tensor, text_N: Tensor) -> Tensor:
        """Convolutions over the words before and after, within one text."""
        if not len(x_ND):
            return x_ND
        # A neighbour in another text counts as zero, as the padding of a convolution does.
        follows_N1 = (text_N[1:] == text_N[:-1])[:, None]
        edge_1D = x_ND.new_zeros(1, self.dim)
        for mixer, norm in zip(self.mixers, self.norms, strict=True):
            y_ND = norm(x_ND)
            before_ND = torch.cat([edge_1D, y_ND[:-1] * follows_N1])
            after_ND = torch.cat([y_ND[1:] * follows_N1, edge_1D])
            x_ND = x_ND + nn.functional.gelu(mixer(torch.cat([before_ND, y_ND, after_ND], dim=1)))
        return x_ND


_FIELD_STRIDE = 256  # positions of one field


def tokenize_words(text: str) -> Iterator[re.Match[str]]:
    """The words and signs of a text, each with its place.

    Example:
        >>> [(word[0], word.span()) for word in tokenize_words("Un sei!")]
        [('Un', (0, 2)), ('sei', (3, 6)), ('!', (6, 7))]
    """
    return _WORD.finditer(text)


def _ngram_buckets(word: str, buckets: int, word_shapes: bool = False) -> list[int]:
    """Buckets of the n-grams of 1 to 4 characters of <word> in lower case and it itself; of its shape too."""
    parts = _ngrams(f"<{word.lower()}>")
    if word_shapes:
        parts |= {f"shape {part}" for part in _ngrams(f"<{_word_shape(word)}>")}
    # Python's own hash differs from run to run; a checksum does not.
    return [zlib.crc32(part.encode()) % buckets for part in sorted(parts)]


def _ngrams(marked: str) -> set[str]:
    parts = {marked[start : start + size] for size in (1, 2, 3, 4) for start in range(len(marked) - size + 1)}
    return {*parts, marked} - {"<", ">"}


def _word_shape(word: str) -> str:
    """Capitals as X, other letters as x, digits as 0, signs as they are."""
    return "".join(
        "X" if sign.isupper() else "x" if sign.isalpha() else "0" if sign.isdigit() else sign for sign in word
    )
