"""What the tokens of an encoder stand for: the words, patches, stretches of sound and cells to look at.

`units(encoder, content, tokens)` dispatches on the encoder's class. An encoder of one's own gets its
geometry with `units.register`; without it, tokens that have a time are stretches of sound, one token alone is
the whole content, and others are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import groupby, pairwise
from typing import Any

from mmattn.encoders.base import Encoder
from mmattn.encoders.image.patch_encoder import PatchEncoder
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.encoders.text.huggingface_text import HuggingFaceText, fields_of, texts_of
from mmattn.encoders.text.tiny_text import TinyText, words_of
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["Box", "Cell", "Span", "Unit", "Words", "merged", "units", "units_of"]


@dataclass(frozen=True)
class Words:
    """Characters `start` to `end` of a text's field."""

    field: int
    start: int
    end: int


@dataclass(frozen=True)
class Box:
    """A part of a picture; 0 to 1 from its left and from its top."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Span:
    """A stretch of sound, in seconds from its start."""

    start: float
    end: float


@dataclass(frozen=True)
class Cell:
    """One value of a table's row."""

    column: str
    value: str


@dataclass(frozen=True)
class Unit:
    """Tokens that stand for one thing.

    Args:
        tokens: their numbers within the item's tokens of this modality.
        label: in words.
        place: where the thing is in the content; None for all of it, or where nobody knows.
    """

    tokens: tuple[int, ...]
    label: str
    place: Words | Box | Span | Cell | None = None


def units_of(encoder: Encoder, content: Any, tokens: Tokens) -> tuple[Unit, ...]:
    """What one item's tokens stand for; each token is in exactly one unit.

    Args:
        encoder: that made them.
        content: raw, as the encoder was given it.
        tokens: of this content alone.

    Raises:
        InputError: the tokens are others than this content gives.

    Example:
        >>> encoder = TinyText(dim=8)
        >>> [unit.label for unit in units_of(encoder, "Toy Story!", encoder(["Toy Story!"]))]
        ['Toy', 'Story', '!']
    """
    found = units(encoder, content, tokens) if len(tokens.values) else ()
    if sorted(token for unit in found for token in unit.tokens) != list(range(len(tokens.values))):
        raise InputError(
            f"explain: {encoder.name!r} gave {len(tokens.values)} tokens of {tokens.modalities[0]!r}, "
            f"expected {sum(len(unit.tokens) for unit in found)} for this content"
        )
    return tuple(found)


@singledispatch
def units(encoder: Any, content: Any, tokens: Tokens) -> Sequence[Unit]:
    """See `units_of`, which checks the result. This is for encoders that no rule is registered for."""
    count = len(tokens.values)
    if count == 1:
        return [Unit((0,), "all of it")]
    if tokens.time is None:
        return [Unit((token,), f"token {token + 1}") for token in range(count)]
    times = tokens.time.tolist()
    half = (times[1] - times[0]) / 2
    ends = [max(0.0, times[0] - half), *((a + b) / 2 for a, b in pairwise(times))]
    ends.append(times[-1] + (times[-1] - times[-2]) / 2)
    return [_stretch((token,), ends[token], ends[token + 1]) for token in range(count)]


@units.register(PatchEncoder)
@units.register(TinyImage)
def _(encoder: PatchEncoder | TinyImage, content: Any, tokens: Tokens) -> Sequence[Unit]:
    """grid x grid patches, row by row. The picture is squeezed, not cropped, so shares of it stay true."""
    grid = encoder.grid
    if grid == 1:
        return [Unit((0,), "the whole picture")]
    return [
        Unit(
            (row * grid + column,),
            f"row {row + 1}, column {column + 1}",
            Box(column / grid, row / grid, (column + 1) / grid, (row + 1) / grid),
        )
        for row in range(grid)
        for column in range(grid)
    ]


@units.register(TinyText)
def _(encoder: TinyText, content: Any, tokens: Tokens) -> Sequence[Unit]:
    if encoder.words:
        return _listed(content, tokens)
    found: list[Unit] = []
    for field, text in texts_of(fields_of(content), "fields"):
        for match in list(words_of(text))[: encoder.max_words]:
            found.append(_words((len(found),), text, field, match.start(), match.end()))
    return found


@units.register(HuggingFaceText)
def _(encoder: HuggingFaceText, content: Any, tokens: Tokens) -> Sequence[Unit]:
    if encoder.words:
        return _listed(content, tokens)
    texts = dict(texts_of(fields_of(content), encoder.pool))
    if encoder.pool == "all":
        return [Unit((0,), "the whole text")]
    if encoder.pool == "fields":
        return [
            _words((token,), texts[field], field, 0, len(texts[field]))
            for token, field in enumerate(tokens.position.tolist())
        ]
    if not encoder.tokenizer.is_fast:  # it does not say where its pieces stand
        return [Unit((token,), f"piece {token + 1}") for token in range(len(tokens.values))]
    found: list[Unit] = []
    first = 0
    for field, text in texts.items():
        pieces = encoder.tokenizer(
            text, truncation=True, max_length=encoder.max_length, return_offsets_mapping=True
        )
        read = [
            (word, offsets)
            for word, offsets in zip(pieces.word_ids(), pieces["offset_mapping"], strict=True)
            if word is not None  # special pieces belong to no word
        ]
        for _, alike in groupby(read, key=lambda piece: piece[0]):
            places = [place for _, place in alike]
            tokens_of = tuple(range(first, first + len(places)))
            found.append(_words(tokens_of, text, field, places[0][0], places[-1][1]))
            first += len(places)
    return found


def _listed(words: Sequence[str], tokens: Tokens) -> list[Unit]:
    """The tokens of each word of a list, which is a field of its own."""
    alike = groupby(enumerate(tokens.position.tolist()), key=lambda one: one[1])
    return [
        _words(tuple(token for token, _ in own), words[place], place, 0, len(words[place]))
        for place, own in alike
    ]


@units.register(Tabular)
def _(encoder: Tabular, content: Any, tokens: Tokens) -> Sequence[Unit]:
    cells = encoder.read(content)
    # Rows of the encoder's table, in its own order: column by column, value by value.
    values = [value for spec in encoder.columns.values() for value in spec.get("values", [])]
    names = list(encoder.columns)
    found = []
    for token, (column, row) in enumerate(zip(cells.column, cells.row, strict=True)):
        name = names[column]
        value = f"{content[name]:g}" if row < 0 else str(values[row])
        found.append(Unit((token,), f"{name}: {value}", Cell(name, value)))
    return found


def merged(found: Sequence[Unit], most: int) -> tuple[Unit, ...]:
    """At most so many units: neighbouring stretches of sound are joined, other units stay.

    Example:
        >>> quarter = [Unit((i,), "", Span(i / 4, (i + 1) / 4)) for i in range(4)]
        >>> [(unit.tokens, unit.label) for unit in merged(quarter, 2)]
        [((0, 1), '0.00 to 0.50 s'), ((2, 3), '0.50 to 1.00 s')]
    """
    size = -(-len(found) // most)
    if size < 2 or not all(isinstance(unit.place, Span) for unit in found):
        return tuple(found)
    joined = []
    for start in range(0, len(found), size):
        group = found[start : start + size]
        first, last = group[0].place, group[-1].place
        assert isinstance(first, Span) and isinstance(last, Span)  # noqa: PT018
        tokens = tuple(token for unit in group for token in unit.tokens)
        joined.append(_stretch(tokens, first.start, last.end))
    return tuple(joined)


def _stretch(tokens: tuple[int, ...], start: float, end: float) -> Unit:
    return Unit(tokens, f"{start:.2f} to {end:.2f} s", Span(start, end))


def _words(tokens: tuple[int, ...], text: str, field: int, start: int, end: int) -> Unit:
    return Unit(tokens, text[start:end], Words(field, start, end))
