"""Token spans: the words, image patches, time ranges and table cells that tokens represent.

`find_token_spans` dispatches on the class of the encoder; register custom encoders with
`find_token_spans.register`. By default, tokens with a time are time ranges, a single token is the whole
content, and other tokens are numbered.
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
from mmattn.encoders.text.huggingface_text import HuggingFaceText, split_fields, texts_to_encode
from mmattn.encoders.text.tiny_text import TinyText, tokenize_words
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = [
    "ImageBox",
    "TableCell",
    "TextRange",
    "TimeRange",
    "TokenSpan",
    "find_token_spans",
    "merge_spans",
    "token_spans",
]


@dataclass(frozen=True)
class TextRange:
    """Characters of a text field.

    Args:
        field: index of the field.
        start: first character.
        end: end, exclusive.
    """

    field: int
    start: int
    end: int


@dataclass(frozen=True)
class ImageBox:
    """A part of an image, in fractions of its width and height.

    Args:
        left: left edge.
        top: top edge.
        right: right edge.
        bottom: bottom edge.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class TimeRange:
    """A time range of a clip in seconds.

    Args:
        start: start.
        end: end.
    """

    start: float
    end: float


@dataclass(frozen=True)
class TableCell:
    """One value of a table row.

    Args:
        column: name of the column.
        value: the value as text.
    """

    column: str
    value: str


@dataclass(frozen=True)
class TokenSpan:
    """Tokens that represent one part of the content.

    Args:
        tokens: indices within the item's tokens of this modality.
        label: label for the reader.
        location: position in the content; None for the whole content or an unknown position.
    """

    tokens: tuple[int, ...]
    label: str
    location: TextRange | ImageBox | TimeRange | TableCell | None = None


def token_spans(encoder: Encoder, content: Any, tokens: Tokens) -> tuple[TokenSpan, ...]:
    """Return the spans of one item's tokens; each token is in exactly one span.

    Args:
        encoder: encoder of the tokens.
        content: raw content of the item.
        tokens: tokens of this content alone.

    Raises:
        InputError: the tokens do not match the content.

    Example:
        >>> encoder = TinyText(dim=8)
        >>> [unit.label for unit in token_spans(encoder, "Toy Story!", encoder(["Toy Story!"]))]
        ['Toy', 'Story', '!']
    """
    spans = find_token_spans(encoder, content, tokens) if len(tokens.values) else ()
    if sorted(token for unit in spans for token in unit.tokens) != list(range(len(tokens.values))):
        raise InputError(
            f"explain: {encoder.name!r} gave {len(tokens.values)} tokens of {tokens.modalities[0]!r}, "
            f"expected {sum(len(unit.tokens) for unit in spans)} for this content"
        )
    return tuple(spans)


@singledispatch
def find_token_spans(encoder: Any, content: Any, tokens: Tokens) -> Sequence[TokenSpan]:
    """Return the spans of an encoder without a registered rule; `token_spans` checks the result.

    Args:
        encoder: encoder of the tokens.
        content: raw content of the item.
        tokens: tokens of this content alone.
    """
    count = len(tokens.values)
    if count == 1:
        return [TokenSpan((0,), "all of it")]
    if tokens.time is None:
        return [TokenSpan((token,), f"token {token + 1}") for token in range(count)]
    times = tokens.time.tolist()
    half = (times[1] - times[0]) / 2
    ends = [max(0.0, times[0] - half), *((a + b) / 2 for a, b in pairwise(times))]
    ends.append(times[-1] + (times[-1] - times[-2]) / 2)
    return [_time_span((token,), ends[token], ends[token + 1]) for token in range(count)]


@find_token_spans.register(PatchEncoder)
@find_token_spans.register(TinyImage)
def _(encoder: PatchEncoder | TinyImage, content: Any, tokens: Tokens) -> Sequence[TokenSpan]:
    """Return grid x grid patches, row by row; the image is resized, not cropped, so fractions are exact."""
    grid = encoder.grid
    if grid == 1:
        return [TokenSpan((0,), "the whole image")]
    return [
        TokenSpan(
            (row * grid + column,),
            f"row {row + 1}, column {column + 1}",
            ImageBox(column / grid, row / grid, (column + 1) / grid, (row + 1) / grid),
        )
        for row in range(grid)
        for column in range(grid)
    ]


@find_token_spans.register(TinyText)
def _(encoder: TinyText, content: Any, tokens: Tokens) -> Sequence[TokenSpan]:
    if encoder.is_split_into_words:
        return _word_list_spans(content, tokens)
    spans: list[TokenSpan] = []
    for field, text in texts_to_encode(split_fields(content), "fields"):
        for match in list(tokenize_words(text))[: encoder.max_words]:
            spans.append(_text_span((len(spans),), text, field, match.start(), match.end()))
    return spans


@find_token_spans.register(HuggingFaceText)
def _(encoder: HuggingFaceText, content: Any, tokens: Tokens) -> Sequence[TokenSpan]:
    if encoder.is_split_into_words:
        return _word_list_spans(content, tokens)
    texts = dict(texts_to_encode(split_fields(content), encoder.pool))
    if encoder.pool == "all":
        return [TokenSpan((0,), "the whole text")]
    if encoder.pool == "fields":
        return [
            _text_span((token,), texts[field], field, 0, len(texts[field]))
            for token, field in enumerate(tokens.position.tolist())
        ]
    if not encoder.tokenizer.is_fast:  # slow tokenizers report no offsets
        return [TokenSpan((token,), f"piece {token + 1}") for token in range(len(tokens.values))]
    spans: list[TokenSpan] = []
    first = 0
    for field, text in texts.items():
        pieces = encoder.tokenizer(
            text, truncation=True, max_length=encoder.max_length, return_offsets_mapping=True
        )
        read = [
            (word, offsets)
            for word, offsets in zip(pieces.word_ids(), pieces["offset_mapping"], strict=True)
            if word is not None  # special tokens belong to no word
        ]
        for _, alike in groupby(read, key=lambda piece: piece[0]):
            rows = [row for _, row in alike]
            tokens_of = tuple(range(first, first + len(rows)))
            spans.append(_text_span(tokens_of, text, field, rows[0][0], rows[-1][1]))
            first += len(rows)
    return spans


def _word_list_spans(words: Sequence[str], tokens: Tokens) -> list[TokenSpan]:
    """Return the tokens of each word of a list; each word is its own field."""
    alike = groupby(enumerate(tokens.position.tolist()), key=lambda pair: pair[1])
    return [
        _text_span(tuple(token for token, _ in position), words[row], row, 0, len(words[row]))
        for row, position in alike
    ]


@find_token_spans.register(Tabular)
def _(encoder: Tabular, content: Any, tokens: Tokens) -> Sequence[TokenSpan]:
    cells = encoder.read(content)
    # Rows of the encoder's table, in its own order: column by column, value by value.
    values = [value for spec in encoder.columns.values() for value in spec.get("values", [])]
    names = list(encoder.columns)
    spans = []
    for token, (column, row) in enumerate(zip(cells.column, cells.value_index, strict=True)):
        name = names[column]
        value = f"{content[name]:g}" if row < 0 else str(values[row])
        spans.append(TokenSpan((token,), f"{name}: {value}", TableCell(name, value)))
    return spans


def merge_spans(spans: Sequence[TokenSpan], max_spans: int) -> tuple[TokenSpan, ...]:
    """Merge neighboring time ranges into at most `max_spans`; other spans are unchanged.

    Args:
        spans: spans of one modality.
        max_spans: maximum number of time ranges.

    Example:
        >>> quarter = [TokenSpan((i,), "", TimeRange(i / 4, (i + 1) / 4)) for i in range(4)]
        >>> [(unit.tokens, unit.label) for unit in merge_spans(quarter, 2)]
        [((0, 1), '0.00 to 0.50 s'), ((2, 3), '0.50 to 1.00 s')]
    """
    size = -(-len(spans) // max_spans)
    if size < 2 or not all(isinstance(unit.location, TimeRange) for unit in spans):
        return tuple(spans)
    joined = []
    for start in range(0, len(spans), size):
        group = spans[start : start + size]
        first, last = group[0].location, group[-1].location
        assert isinstance(first, TimeRange) and isinstance(last, TimeRange)  # noqa: PT018
        tokens = tuple(token for unit in group for token in unit.tokens)
        joined.append(_time_span(tokens, first.start, last.end))
    return tuple(joined)


def _time_span(tokens: tuple[int, ...], start: float, end: float) -> TokenSpan:
    return TokenSpan(tokens, f"{start:.2f} to {end:.2f} s", TimeRange(start, end))


def _text_span(tokens: tuple[int, ...], text: str, field: int, start: int, end: int) -> TokenSpan:
    return TokenSpan(tokens, text[start:end], TextRange(field, start, end))
