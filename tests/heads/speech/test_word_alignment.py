"""Word times: by hand, in order, and what cannot be aligned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer, WordPieceTokenizer
from mmattn.heads.speech.decoding.alignment import align_transcript

STEP = 0.02


def spelled(path: list[int], symbols: int, sure: float = 0.9) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities that say so, and the middles of the frames."""
    likely = torch.full((len(path), symbols), (1 - sure) / (symbols - 1))
    likely[torch.arange(len(path)), torch.tensor(path)] = sure
    return likely.log(), (torch.arange(len(path)) + 0.5) * STEP


def test_words_of_characters_by_hand() -> None:
    letters = CharacterTokenizer("ab ")
    #                     -  a  a  -  b  _  _  -  b  -  b  -
    log_probs, times = spelled([0, 1, 1, 0, 2, 3, 3, 0, 2, 0, 2, 0], 4)
    words = align_transcript(log_probs, times, "ab bb", letters)
    assert [word.text for word in words] == ["ab", "bb"]
    assert [word.start for word in words] == pytest.approx([1 * STEP, 8 * STEP])
    assert [word.end for word in words] == pytest.approx([5 * STEP, 11 * STEP])
    assert [word.score for word in words] == pytest.approx([0.9, 0.9])


def test_words_of_pieces_by_hand() -> None:
    pieces = WordPieceTokenizer(["walk", "##ing", "home"])
    log_probs, times = spelled([0, 1, 0, 0, 2, 2, 0, 3, 0], 4)
    words = align_transcript(log_probs, times, "walking home", pieces)
    assert [(word.text, round(word.start, 6), round(word.end, 6)) for word in words] == [
        ("walking", 0.02, 0.12),
        ("home", 0.14, 0.16),
    ]


def test_the_text_decides_not_what_is_likeliest() -> None:
    letters = CharacterTokenizer("ab")
    log_probs, times = spelled([0, 1, 0, 0], 3)
    (word,) = align_transcript(log_probs, times, "ab", letters)
    assert word.start == pytest.approx(STEP)
    assert word.end > 2 * STEP
    assert word.score < 0.9


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(["a", "ab", "bba"]), min_size=1, max_size=5), st.integers(0, 100))
def test_words_stand_in_order_within_the_clip(text: list[str], seed: int) -> None:
    log_probs = torch.randn(53, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(1)
    times = (torch.arange(53) + 0.5) * STEP
    words = align_transcript(log_probs, times, " ".join(text), CharacterTokenizer("ab "))
    assert [word.text for word in words] == text
    borders = [border for word in words for border in (word.start, word.end)]
    assert borders == sorted(borders)
    assert borders[0] >= 0
    assert borders[-1] <= 53 * STEP + 1e-6


def test_what_cannot_be_aligned() -> None:
    letters = CharacterTokenizer("ab ")
    log_probs, times = spelled([0, 1, 0], 4)
    assert align_transcript(log_probs, times, "", letters) == []
    with pytest.raises(InputError, match="'abb' needs 4 frames, and the sound has 3"):
        align_transcript(log_probs, times, "abb", letters)
    with pytest.raises(InputError, match="unknown characters 'c'"):
        align_transcript(log_probs, times, "abc", letters)
