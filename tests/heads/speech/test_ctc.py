"""The CTC head: its loss by hand, what takes no part, targets that do not fit, and the alphabets."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.errors import InputError
from mmattn.heads.speech.ctc import CTCHead, min_frames
from mmattn.heads.speech.ctc_tokenizer import (
    CharacterTokenizer,
    WordPieceTokenizer,
    build_tokenizer,
    train_word_pieces,
)
from mmattn.heads.speech.decoding.ngram import NGram
from mmattn.heads.speech.decoding.prefix_beam import PrefixBeamDecoder
from mmattn.heads.speech.decoding.scorers import (
    LexiconScorer,
    Scorer,
    SumScorer,
    SymbolNGramScorer,
    WordNGramScorer,
)
from mmattn.heads.speech.decoding.search import transcribe
from mmattn.testing.plugin_checks import check_head
from mmattn.types import Fused, Tokens


def fused(lengths: list[int], dim: int, *, step: float = 0.04, other: bool = False, seed: int = 0) -> Fused:
    generator = torch.Generator().manual_seed(seed)
    position = torch.cat([torch.arange(length) for length in lengths])
    tokens = Tokens.from_lengths(
        torch.randn(sum(lengths), dim, generator=generator),
        torch.tensor(lengths),
        "audio",
        time=(position + 0.5) * step,
    )
    if other:
        words = Tokens.from_sequences([torch.randn(3, dim) for _ in lengths], "text")
        tokens = Tokens.cat([words, tokens])
    return _fused(tokens)


def _fused(tokens: Tokens) -> Fused:
    samples, kinds = tokens.presence.shape
    pooled, by_modality = torch.zeros(samples, tokens.dim), torch.zeros(samples, kinds, tokens.dim)
    return Fused(tokens, pooled, by_modality, tokens.presence)


def test_it_keeps_the_contract() -> None:
    check_head("ctc")


def test_the_loss_is_that_of_all_spellings_by_hand() -> None:
    head = CTCHead(dim=2, vocabulary="a")
    with torch.no_grad():  # logits are the tokens themselves
        head.project.weight.copy_(torch.eye(2))
        head.project.bias.zero_()
    odds = torch.log(torch.tensor([[0.6, 0.4], [0.7, 0.3], [0.5, 0.5]]))
    tokens = Tokens.from_lengths(odds, torch.tensor([2, 1]), "audio")
    given = _fused(tokens)
    said_a = 0.4 * 0.7 + 0.6 * 0.3 + 0.4 * 0.3
    assert head.loss(given, ["a", None]).item() == pytest.approx(-math.log(said_a))
    # Nothing said in the second: the blank alone.
    assert head.loss(given, ["a", ""]).item() == pytest.approx((-math.log(said_a) - math.log(0.5)) / 2)


def test_samples_do_not_meet_and_other_modalities_take_no_part() -> None:
    head = CTCHead(dim=6, vocabulary="abc ").eval()
    alone = [fused([length], 6, seed=length) for length in (7, 11, 5)]
    together = _fused(Tokens.from_sequences([entry.tokens.values for entry in alone], "audio"))
    targets = ["ab", "c a", "bb"]
    mean = sum(head.loss(entry, [target]).item() for entry, target in zip(alone, targets, strict=True)) / 3
    assert head.loss(together, targets).item() == pytest.approx(mean, rel=1e-5)
    assert head.predict(together) == [head.predict(entry)[0] for entry in alone]
    mixed = fused([7, 5], 6, other=True)
    assert head(mixed).modalities == ("audio",)
    assert head(mixed).length_list == [7, 5]


def test_what_takes_no_part() -> None:
    head = CTCHead(dim=4, vocabulary="ab")
    given = fused([5, 0, 3], 4)
    only_first = head.loss(given, ["ab", None, None])
    assert head.loss(given, ["ab", "a", None]).item() == pytest.approx(only_first.item(), rel=1e-5)
    nothing = head.loss(given, [None, "ab", None])
    nothing.backward()
    assert nothing.item() == 0.0
    assert head.predict(given)[1] == ""


@pytest.mark.parametrize(("text", "needed"), [("", 0), ("ab", 2), ("aab", 4), ("aaa", 5)])
def test_repeats_need_a_blank_between_them(text: str, needed: int) -> None:
    assert min_frames(CharacterTokenizer("ab").encode(text)) == needed
    if needed:
        enough, short = fused([needed], 4), fused([needed - 1], 4)
        assert CTCHead(4, "ab").loss(enough, [text]).isfinite()
        if needed > 1:
            with pytest.raises(
                InputError, match=f"need {needed} frames with their repeats, and has {needed - 1}"
            ):
                CTCHead(4, "ab").loss(short, [text])


def test_labels_longer_than_their_audio_are_skipped_and_counted() -> None:
    head = CTCHead(4, "ab", handle_too_long="skip")
    given = fused([3, 5], 4)
    whole = head.loss(given, ["abab", "ab"])
    assert head.num_skipped == 1
    assert whole.item() == pytest.approx(head.loss(given, [None, "ab"]).item())
    assert head.loss(given, ["ababab", "aaaa"]).item() == 0.0
    assert head.num_skipped == 3


def test_more_frames_a_token_make_room_for_longer_labels() -> None:
    head = CTCHead(4, "ab", frames_per_token=3)
    given = fused([3, 2], 4, step=0.06)
    assert head.loss(given, ["abababab", "aab"]).isfinite()
    emissions = head(given)
    assert emissions.length_list == [9, 6]
    assert emissions.position.tolist() == [*range(9), *range(6)]
    assert emissions.time is not None
    # Tokens in the middle of 0.06 s each: frames in the middle of 0.02 s.
    expected = [0.01 + 0.02 * frame for frame in (*range(9), *range(6))]
    assert emissions.time.tolist() == pytest.approx(expected)
    assert emissions.values.exp().sum(1).tolist() == pytest.approx([1.0] * 15)


def test_unknown_characters_are_an_error_or_left_out() -> None:
    given = fused([9], 4)
    with pytest.raises(InputError, match="'café, a' has the unknown characters ',', 'é'"):
        CTCHead(4, "acf ").loss(given, ["café, a"])
    head = CTCHead(4, "acf ", handle_unknown="drop")
    assert head.loss(given, ["café, a"]).item() == pytest.approx(head.loss(given, ["caf a"]).item())


def test_options_come_from_the_training_transcripts() -> None:
    assert CTCHead.options_for(["ba c", None, "a"]) == {"vocabulary": [" ", "a", "b", "c"]}
    with pytest.raises(InputError, match="target 1 is int 7, expected a transcript"):
        CTCHead.options_for(["a", 7])


def test_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="got unknown='ignore'"):
        CTCHead(4, "ab", handle_unknown="ignore")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="frames=0"):
        CTCHead(4, "ab", frames_per_token=0)
    with pytest.raises(InputError, match="got unit 'letter', expected 'character' or 'word-piece'"):
        CTCHead(4, "ab", unit="letter")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="got 'a' more than once"):
        CTCHead(4, "aba")
    with pytest.raises(InputError, match="got 'ab', expected single characters"):
        CTCHead(4, ["ab", "c"])
    with pytest.raises(InputError, match="got none, expected characters"):
        CTCHead(4, "")


def test_word_pieces_write_texts_and_read_them() -> None:
    texts = ["walking home", "walks home", "talking"]
    pieces = build_tokenizer(train_word_pieces(texts, vocab_size=25), "word-piece")
    for text in texts:
        assert pieces.decode(pieces.encode(text)) == text
    assert len(pieces.encode("walking home")) < len("walking home")


def test_unknown_words_are_named() -> None:
    pieces = WordPieceTokenizer(["walk", "##ing", "home"])
    with pytest.raises(InputError, match="'walking away' has 'away', which none of the 3 word pieces"):
        pieces.encode("walking away")
    assert pieces.encode("walking away home", drop_unknown=True) == [1, 2, 3]


def test_a_text_can_be_learned() -> None:
    torch.manual_seed(0)
    head = CTCHead(8, "ab")
    given, targets = fused([9, 7], 8), ["abba", "bab"]
    optimizer = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(given, targets).backward()
        optimizer.step()
    assert head.predict(given) == targets


def test_a_beam_learns_from_the_training_transcripts_or_a_file(tmp_path: Path) -> None:
    lexicon = {"lexicon": True}
    options = CTCHead.options_for(["ba c", None, "a"], beam=lexicon)
    assert options == {"vocabulary": [" ", "a", "b", "c"], "corpus": ["ba c", "a"]}
    assert "corpus" not in CTCHead.options_for(["ba c"], beam={"size": 3})  # nothing to learn
    (tmp_path / "texts.txt").write_text("cab\n\n abba \n")
    beam = {"ngram": "word", "texts": str(tmp_path / "texts.txt")}
    assert CTCHead.options_for(["ba c"], beam=beam)["corpus"] == ["cab", "abba"]


@pytest.mark.parametrize(
    "beam",
    [
        {"size": 4},
        {"ngram": "symbol", "order": 2, "weight": 0.8},
        {"ngram": "word", "order": 1, "insertion_bonus": 0.3},
        {"lexicon": True},
        {"lexicon": True, "ngram": "word", "order": 2},
    ],
)
def test_a_head_with_a_beam_predicts_what_the_search_finds(beam: dict[str, Any]) -> None:
    corpus = ["ab ba", "ba", "ab"]
    head = CTCHead(4, "ab ", beam=beam, corpus=corpus)
    head.load_state_dict(CTCHead(4, "ab ").state_dict())
    given = fused([9, 5, 0], 4)
    order, weight, bonus = beam.get("order", 3), beam.get("weight", 0.5), beam.get("insertion_bonus", 0.0)
    letters = head.tokenizer
    scorers: list[Scorer] = [LexiconScorer({"ab", "ba"}, letters)] if beam.get("lexicon") else []
    if beam.get("ngram") == "symbol":
        ngram = NGram.train([letters.encode(text) for text in corpus], order)
        scorers.append(SymbolNGramScorer(ngram, letters, weight, bonus))
    if beam.get("ngram") == "word":
        words = NGram.train([text.split() for text in corpus], order)
        scorers.append(WordNGramScorer(words, letters, weight, bonus))
    expected = transcribe(
        head(given),
        lambda: PrefixBeamDecoder(letters, beam.get("size", 16), SumScorer(*scorers) if scorers else None),
    )
    assert head.predict(given) == expected
    if beam.get("lexicon"):
        assert all({*text.split()} <= {"ab", "ba"} for text in expected)


@pytest.mark.parametrize(
    ("beam", "message"),
    [
        ({"sizes": 3}, "ctc head: beam: unknown key 'sizes'. Did you mean 'size'?"),
        ({"size": 0}, "got size 0"),
        ({"weight": -1.0}, "weight -1.0"),
        ({"ngram": "sentence"}, "sentence"),
        ({"lexicon": True}, "got no texts, expected some for the language model or the lexicon"),
        ({"lexicon": True, "texts": "nowhere.txt"}, "nowhere.txt cannot be read"),
    ],
)
def test_a_beam_that_cannot_be(beam: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        CTCHead(4, "ab", beam=beam)
