"""The n-gram: by hand, adding up to one, through a file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.heads.speech.decoding.ngram import NGram

TEXTS = [["a", "b"], ["a", "b"], ["c", "b"], ["a", "d"]]


def test_a_bigram_by_hand() -> None:
    ngram = NGram.train(TEXTS, order=2)
    # Bigrams: <s>a 3, <s>c 1, ab 2, ad 1, cb 1, b</s> 3, d</s> 1: four seen once, one twice.
    discount_2 = 4 / (4 + 2 * 1)
    # Followed by how many different ones: a 1, c 1, b 2, d 1, </s> 2: three once, two twice, seven in all.
    discount_1 = 3 / (3 + 2 * 2)
    uniform = 1 / (5 + 1)
    b = (2 - discount_1) / 7 + discount_1 * 5 / 7 * uniform
    after_a = (2 - discount_2) / 3 + discount_2 * 2 / 3 * b
    assert math.exp(ngram.log_prob("b")) == pytest.approx(b)
    assert math.exp(ngram.log_prob("b", ["a"])) == pytest.approx(after_a)
    assert math.exp(ngram.log_prob("b", ["x", "c", "a"])) == pytest.approx(after_a)  # only the last counts
    assert math.exp(ngram.log_prob("b", ["unheard of"])) == pytest.approx(b)
    unknown = discount_1 * 5 / 7 * uniform
    assert math.exp(ngram.log_prob("unheard of")) == pytest.approx(unknown)


def test_what_follows_many_counts_more_than_what_is_frequent() -> None:
    # "francisco" is frequent, but after "san" alone.
    texts = [["san", "francisco"]] * 6 + [[word, "glasses"] for word in ("my", "your", "her")]
    ngram = NGram.train(texts, order=2)
    assert ngram.log_prob("glasses", ["new"]) > ngram.log_prob("francisco", ["new"])


@given(
    st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.lists(st.integers(0, 5), max_size=4),
)
def test_it_adds_up_to_one_after_anything(texts: list[list[int]], order: int, context: list[int]) -> None:
    ngram = NGram.train(texts, order)
    known = {token for text in texts for token in text} | {NGram.END}
    total = sum(math.exp(ngram.log_prob(token, context)) for token in known)
    assert total + math.exp(ngram.log_prob("unheard of", context)) == pytest.approx(1.0)


def test_its_contexts_are_no_longer_than_they_matter() -> None:
    ngram = NGram.train(TEXTS, order=3)
    assert ngram.start_context == ("<s>",)
    assert ngram.next_context(ngram.next_context(("<s>",), "a"), "b") == ("a", "b")
    assert NGram.train(TEXTS, order=1).start_context == ()
    assert NGram.train(TEXTS, order=1).next_context((), "a") == ()


def test_perplexity_by_hand() -> None:
    ngram = NGram.train(TEXTS, order=2)
    tokens = ["a", "b", NGram.END]
    surprise = sum(ngram.log_prob(t, [c]) for t, c in zip(tokens, ["<s>", "a", "b"], strict=True))
    assert ngram.perplexity([["a", "b"]]) == pytest.approx(math.exp(-surprise / 3))


def test_a_file_keeps_it(tmp_path: Path) -> None:
    for texts in (TEXTS, [[1, 2, 3], [2, 2]]):
        ngram = NGram.train(texts, order=3)
        ngram.save(tmp_path / "ngram.json")
        again = NGram.load(tmp_path / "ngram.json")
        for context in ([], texts[0][:1], texts[0]):
            for token in (*texts[0], NGram.END, "unheard of"):
                assert again.log_prob(token, context) == ngram.log_prob(token, context)


def test_what_is_no_n_gram(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got no text to train from"):
        NGram.train([], order=2)
    with pytest.raises(InputError, match="got order 0, expected at least 1"):
        NGram.train(TEXTS, order=0)
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(InputError, match="is no n-gram of format 1"):
        NGram.load(tmp_path / "other.json")
    with pytest.raises(InputError, match="cannot be read"):
        NGram.load(tmp_path / "absent.json")
