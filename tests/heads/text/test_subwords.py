"""Texts as numbers and back: words, pieces and characters, and what the vocabulary lacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.heads.text.subwords import END, START, UNKNOWN, TextTokenizer, learn_vocabulary, read_word_pieces

TEXTS = ["two cats and two dogs", "a cat", "the dogs run", "running cats run"]


def test_words_by_hand() -> None:
    units = TextTokenizer(["two", "cats", "Dogs"])
    assert units.encode("  two\n cats dogs two") == [3, 4, UNKNOWN, 3]
    assert units.decode([START, 3, UNKNOWN, 5, END]) == "two Dogs"
    assert len(units) == 6
    assert TextTokenizer(["two"], lowercase=True).encode("TWO") == [3]


def test_characters_keep_their_spaces() -> None:
    units = TextTokenizer(list(" abé"), "character")
    assert units.encode(" éa  b\tx") == [6, 4, 3, 5, 3, UNKNOWN]
    assert units.decode(units.encode("ab é")) == "ab é"


def test_the_longest_piece_is_taken_first_and_a_word_without_pieces_is_unknown() -> None:
    units = TextTokenizer(["un", "una", "##a", "##ff", "##able", "##ffable"], "piece")
    assert units.encode("unaffable") == [4, 8]
    assert units.decode([4, 8, 3]) == "unaffable un"
    assert units.encode("unx una") == [UNKNOWN, 4]


def test_a_name_of_our_own_in_a_text_is_an_unknown_word() -> None:
    assert TextTokenizer(["a"]).encode("<s> a </s> <unk>") == [UNKNOWN, 3, UNKNOWN, UNKNOWN]


@pytest.mark.parametrize("unit", ["word", "piece", "character"])
def test_learned_units_write_their_own_texts(unit: str) -> None:
    units = TextTokenizer(learn_vocabulary(TEXTS, unit, vocab_size=60), unit)
    for text in TEXTS:
        assert UNKNOWN not in units.encode(text)
        assert units.decode(units.encode(text)) == text


def test_pieces_are_learned_from_what_words_share() -> None:
    names = learn_vocabulary(["walking talking making"] * 5, "piece", vocab_size=40)
    units = TextTokenizer(names, "piece")
    assert len(units.encode("walking")) < len("walking")
    assert UNKNOWN not in units.encode("waking")  # never seen, but its parts were
    assert len(names) <= 40


@given(st.lists(st.text("abc ", max_size=12), min_size=1, max_size=5), st.sampled_from(["word", "character"]))
def test_any_text_comes_back_with_single_spaces(texts: list[str], unit: str) -> None:
    if not any(text.strip() for text in texts):
        with pytest.raises(InputError, match="texts without a word"):
            learn_vocabulary(texts, unit)
        return
    units = TextTokenizer(learn_vocabulary(texts, unit), unit)
    assert [units.decode(units.encode(text)) for text in texts] == [" ".join(text.split()) for text in texts]


def test_rare_words_and_too_many_are_left_out() -> None:
    assert learn_vocabulary(TEXTS, min_frequency=2) == ["two", "cats", "dogs", "run"]
    assert learn_vocabulary(TEXTS, vocab_size=2) == ["two", "cats"]
    assert learn_vocabulary(["A a"], lowercase=True) == ["a"]


@pytest.mark.parametrize(
    ("names", "unit", "message"),
    [
        (["a"], "words", r"head: got unit='words'. Did you mean 'word'\?"),
        ([], "word", r"head: got the vocabulary \[\], expected a list of words"),
        ("abc", "character", r"head: got the vocabulary 'abc', expected a list of characters"),
        (["a", "b", "a"], "word", r"head: got 'a' in the vocabulary, expected distinct words"),
        (["a", ""], "piece", r"head: got '' in the vocabulary, expected distinct pieces"),
    ],
)
def test_what_is_no_vocabulary(names: list[str], unit: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextTokenizer(names, unit, where="head")
    if unit == "words":
        with pytest.raises(InputError, match="units: got unit='words'"):
            learn_vocabulary(["a"], unit)


def test_a_tokenizers_file(tmp_path: Path) -> None:
    plain, whole = tmp_path / "vocab.txt", tmp_path / "tokenizer.json"
    plain.write_text("a\nze\n##bra\n", encoding="utf-8")
    whole.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": {"##bra": 2, "a": 0, "ze": 1}}}))
    assert read_word_pieces(plain) == read_word_pieces(str(whole)) == ["a", "ze", "##bra"]
    whole.write_text(json.dumps({"model": {"type": "BPE", "vocab": {}}}))
    with pytest.raises(
        InputError, match=r"tokenizer.json: got a tokenizer of type 'BPE', expected WordPiece"
    ):
        read_word_pieces(whole)
    whole.write_text("{")
    with pytest.raises(InputError, match=r"tokenizer.json: cannot be read as a vocabulary"):
        read_word_pieces(whole)
    with pytest.raises(InputError, match=r"none.txt: cannot be read as a vocabulary"):
        read_word_pieces(tmp_path / "none.txt")
