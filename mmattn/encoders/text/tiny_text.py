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
from mmattn.encoders.text.huggingface_text import fields_of, texts_of
from mmattn.encoders.text.word_lists import words_in
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["TinyText", "Words", "words_of"]

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Words:
    """A text as hashed character n-grams: what `TinyText.read` gives.

    Args:
        grams: hashed n-grams of all words, one word behind the other.
        counts: n-grams of each word.
        place: position of each word.
    """

    grams: tuple[int, ...]
    counts: tuple[int, ...]
    place: tuple[int, ...]


class TinyText(Encoder):
    """One token a word, from the hashed n-grams of its characters and the words beside it.

    No vocabulary: a word never seen before is known by its parts, in any language and script.
    Word f * 256 + i in `position` is word i of field f; fields do not see each other. With `words`, a
    content is one text as a list of its words instead, all of which are kept, word i at position i.

    Paper: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information",
    arXiv:1607.04606 (the n-grams); two residual convolutions over three words follow.

    Args:
        dim: width D of the tokens.
        buckets: rows of the table that the n-grams are hashed into.
        max_words: words that are kept of each field, at most 256.
        layers: convolutions over neighbouring words; 0 for none.
        shapes: n-grams of the word's shape ("Xxx-0") too: capitals, digits and signs, where they stand.
        words: contents are lists of words.
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
        shapes: bool = False,
        words: bool = False,
        modality: str = "text",
    ):
        super().__init__()
        if not 1 <= max_words <= _FIELD:
            raise InputError(f"tiny-text: got max_words={max_words}, expected 1 to {_FIELD}")
        self.dim = dim
        self.buckets = buckets
        self.max_words = max_words
        self.shapes = shapes
        self.words = words
        self.modality = modality
        self.grams = nn.EmbeddingBag(buckets, dim, mode="mean")
        self.mixers = nn.ModuleList(nn.Linear(3 * dim, dim) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))

    def describe(self) -> EncoderCard:
        grams = "1 to 4, whole word, shapes" if self.shapes else "1 to 4, whole word"
        steps = {"buckets": self.buckets, "max_words": self.max_words, "grams": grams}
        return EncoderCard(
            name=self.name,
            modality=self.modality,
            dim=self.dim,
            revision="1",
            preprocessing={**steps, "words": True} if self.words else steps,
        )

    def options(self) -> dict[str, Any]:
        return {
            "dim": self.dim,
            "buckets": self.buckets,
            "max_words": self.max_words,
            "layers": len(self.mixers),
            "shapes": self.shapes,
            "words": self.words,
            "modality": self.modality,
        }

    def read(self, content: Any) -> Words:
        if isinstance(content, Words):
            return content
        words, place = self._words(content)
        grams = [_grams(word, self.buckets, self.shapes) for word in words]
        return Words(tuple(chain.from_iterable(grams)), tuple(map(len, grams)), tuple(place))

    def _words(self, content: Any) -> tuple[list[str], list[int]]:
        """The words of a content, and the position of each."""
        if self.words:
            listed = list(words_in(content))
            return listed, list(range(len(listed)))
        words: list[str] = []
        place: list[int] = []
        for field, text in texts_of(fields_of(content), "fields"):
            for index, word in enumerate(islice(words_of(text), self.max_words)):
                words.append(word[0])
                place.append(field * _FIELD + index)
        return words, place

    def encode(self, contents: Sequence[Any]) -> Tokens:
        nothing = Words((), (), ())
        read = [nothing if content is None else self.read(content) for content in contents]

        def joined(field: str) -> Tensor:
            return torch.tensor(
                [n for words in read for n in getattr(words, field)], device=self.device
            ).long()

        count_N, place_N = joined("counts"), joined("place")
        lengths = torch.tensor([len(words.counts) for words in read], device=self.device).long()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        x_ND = self.grams(joined("grams"), count_N.cumsum(0) - count_N)
        sample_N = torch.arange(len(read), device=self.device).repeat_interleave(lengths)
        x_ND = self._mixed(x_ND, sample_N * (1 << 32) + place_N // _FIELD)
        return Tokens(x_ND, offsets, torch.zeros_like(place_N), place_N, (self.modality,))

    def _mixed(self, x_ND: Tensor, text_N: Tensor) -> Tensor:
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


_FIELD = 256  # positions of one field


def words_of(text: str) -> Iterator[re.Match[str]]:
    """The words and signs of a text, each with its place.

    Example:
        >>> [(word[0], word.span()) for word in words_of("Un sei!")]
        [('Un', (0, 2)), ('sei', (3, 6)), ('!', (6, 7))]
    """
    return _WORD.finditer(text)


def _grams(word: str, buckets: int, shapes: bool = False) -> list[int]:
    """Buckets of the n-grams of 1 to 4 characters of <word> in lower case and it itself; of its shape too."""
    parts = _parts(f"<{word.lower()}>")
    if shapes:
        parts |= {f"shape {part}" for part in _parts(f"<{_shape(word)}>")}
    # Python's own hash differs from run to run; a checksum does not.
    return [zlib.crc32(part.encode()) % buckets for part in sorted(parts)]


def _parts(marked: str) -> set[str]:
    parts = {marked[start : start + size] for size in (1, 2, 3, 4) for start in range(len(marked) - size + 1)}
    return {*parts, marked} - {"<", ">"}


def _shape(word: str) -> str:
    """Capitals as X, other letters as x, digits as 0, signs as they are."""
    return "".join(
        "X" if sign.isupper() else "x" if sign.isalpha() else "0" if sign.isdigit() else sign for sign in word
    )
