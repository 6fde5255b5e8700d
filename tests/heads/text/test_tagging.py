"""A tag a word: the chain against brute force, valid sequences, words without a token."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mmattn import InputError
from mmattn.heads.text.crf import LinearChainCRF
from mmattn.heads.text.tagging import TaggingHead, bio_constraints, orphan_to_begin
from mmattn.testing.plugin_checks import check_head
from mmattn.types import Fused, Tokens

BIO = ["O", "B-place", "I-place", "B-work", "I-work"]
DIM = 7


def fused_of(*positions: list[int], modality: str = "text") -> Fused:
    """Samples whose tokens stand at these words."""
    lengths = torch.tensor([len(row) for row in positions])
    tokens = Tokens.from_lengths(torch.randn(int(lengths.sum()), DIM), lengths, modality)
    tokens = replace(tokens, position=torch.tensor([index for row in positions for index in row]).long())
    return Fused(
        tokens, torch.zeros(len(positions), DIM), torch.zeros(len(positions), 1, DIM), tokens.presence
    )


def says(head: TaggingHead, logits: torch.Tensor, *positions: list[int]) -> Fused:
    """Fused samples of whose tokens the head says these logits."""
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(len(head.tags), DIM))
        head.project.bias.zero_()
    fused = fused_of(*positions)
    return replace(fused, tokens=fused.tokens.with_values(F.pad(logits, (0, DIM - logits.shape[1]))))


@pytest.mark.parametrize("constrained", [False, True])
def test_the_chain_is_what_all_sequences_together_say(constrained: bool) -> None:
    torch.manual_seed(0)
    tags, lengths = 5, [3, 1, 0, 4]
    chain = LinearChainCRF(tags, *(bio_constraints(BIO) if constrained else ())).double()
    for parameter in chain.parameters():
        torch.nn.init.normal_(parameter)
    emissions = torch.randn(4, 4, tags, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    truth = torch.tensor([[0, 1, 2, 0], [3, 9, 9, 9], [9, 9, 9, 9], [1, 1, 2, 3]])
    cost, best = chain(emissions, mask, truth), chain.viterbi_decode(emissions, mask)
    step, start = chain.transitions + chain.transition_mask, chain.start_transitions + chain.start_mask
    for row, length in enumerate(lengths):
        if not length:
            assert (cost[row].item(), best[row]) == (0, [])
            continue
        scores = {
            path: start[path[0]] + chain.end_transitions[path[-1]]
            + sum(emissions[row, index, tag] for index, tag in enumerate(path))
            + sum(step[entry, other] for entry, other in itertools.pairwise(path))
            for path in itertools.product(range(tags), repeat=length)
        }  # fmt: skip
        total = torch.stack(list(scores.values())).logsumexp(0)
        torch.testing.assert_close(cost[row], total - scores[tuple(truth[row, :length].tolist())])
        assert tuple(best[row]) == max(scores, key=lambda path: scores[path].item())


def test_gradients_of_the_chain() -> None:
    chain = LinearChainCRF(3, *bio_constraints(BIO[:3])).double()
    emissions = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    truth = torch.tensor([[0, 1, 2], [1, 0, 0]])
    assert torch.autograd.gradcheck(lambda x: chain(x, mask, truth).sum(), emissions)


def test_the_head_keeps_its_contract() -> None:
    check_head("tagging")


@pytest.mark.parametrize("crf", [True, False])
def test_what_is_predicted_is_valid_and_the_first_piece_decides(crf: bool) -> None:
    head = TaggingHead(DIM, BIO, use_crf=crf).eval()
    inside = [0.0, 0.0, 5.0, 1.0, 0.0]  # wants to be inside of a place
    pieces = torch.tensor([inside, [9.0, 0, 0, 0, 0], inside, [0.0, 3.0, 0, 0, 0], inside])
    fused = says(head, pieces, [0, 0, 1], [], [0, 1])
    # By itself the first word would be I-place, which may begin nothing.
    assert head.predict(fused) == [["B-place", "I-place"], [], ["B-place", "I-place"]]


def test_any_sequence_of_tags_that_are_no_spans_goes() -> None:
    head = TaggingHead(DIM, ["noun", "verb"]).eval()
    fused = says(head, torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), [0, 1, 2])
    assert head.predict(fused) == [["verb", "noun", "verb"]]


def test_words_without_a_token_take_no_part(caplog: pytest.LogCaptureFixture) -> None:
    head = TaggingHead(DIM, BIO, use_crf=False, dropout=0.0)
    fused = fused_of([0, 2, 2], [0], [0, 1])
    targets = [["O", "B-work", "B-place", "O", "O"], None, ["B-work", "I-work"]]
    with caplog.at_level(logging.WARNING):
        loss = head.loss(fused, targets)
    logits = head(fused).values[[0, 1, 3, 4]]
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor([0, 1, 3, 4])))
    assert "3 words of a sample have no token" in caplog.text
    assert head.num_missing == 3
    assert [len(tags) for tags in head.predict(fused)] == [3, 1, 2]
    assert head.predict(fused)[0][1] == "O"


def test_the_crf_counts_words_and_learns_what_follows_what() -> None:
    torch.manual_seed(0)
    head = TaggingHead(DIM, BIO, dropout=0.0)
    fused = fused_of([0, 1, 2, 3], [0, 1])
    targets = [["B-work", "I-work", "O", "O"], ["O", "B-place"]]
    words = head(fused)
    costs = head.crf_layer(*words.to_padded(), torch.tensor([[3, 4, 0, 0], [0, 1, 0, 0]]))
    torch.testing.assert_close(head.loss(fused, targets), costs.sum() / 6)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        head.loss(fused, targets).backward()
        optimizer.step()
    assert head.eval().predict(fused) == targets


def test_tags_that_begin_inside_are_read_as_a_beginning() -> None:
    assert orphan_to_begin(["I-x", "I-x", "I-y", "O", "I-y"]) == ["B-x", "I-x", "B-y", "O", "B-y"]
    head = TaggingHead(DIM, BIO)
    fused = fused_of([0, 1])
    head.eval()
    torch.testing.assert_close(
        head.loss(fused, [["I-place", "I-place"]]), head.loss(fused, [["B-place", "I-place"]])
    )


@given(st.lists(st.sampled_from(BIO), max_size=13))
def test_what_has_begun_is_valid_and_stays_as_it_is(tags: list[str]) -> None:
    actual, (allowed, first) = orphan_to_begin(tags), bio_constraints(BIO)
    assert orphan_to_begin(actual) == actual
    assert [tag[2:] for tag in actual] == [tag[2:] for tag in tags]
    numbers = [BIO.index(tag) for tag in actual]
    assert all(allowed[entry, other] for entry, other in itertools.pairwise(numbers))
    assert not numbers or first[numbers[0]]


def test_nothing_known_or_nothing_there_costs_nothing() -> None:
    head = TaggingHead(DIM, BIO)
    assert head.loss(fused_of([0, 1]), [None]).item() == 0
    assert head.loss(fused_of([], []), [["O"], None]).item() == 0
    assert head.predict(fused_of([], [])) == [[], []]


def test_what_it_refuses() -> None:
    head, fused = TaggingHead(DIM, BIO), fused_of([0, 1, 2])
    with pytest.raises(
        InputError, match="tagging head: got 2 tags for sample 0 of the batch, expected at least 3"
    ):
        head.loss(fused, [["O", "O"]])
    with pytest.raises(InputError, match="tagging head: no tag 'B-plaec'. Did you mean 'B-place'?"):
        head.loss(fused, [["O", "B-plaec", "O"]])
    with pytest.raises(InputError, match="got 'O O O' as target, expected a list"):
        head.loss(fused, ["O O O"])
    with pytest.raises(InputError, match="got 2 targets, expected 1"):
        head.loss(fused, [["O"] * 3, ["O"]])
    with pytest.raises(InputError, match="got smoothing 0.1"):
        TaggingHead(DIM, BIO, label_smoothing=0.1)
    with pytest.raises(InputError, match="expected at least one tag name"):
        TaggingHead.options_for([None])
    with pytest.raises(InputError, match="no modality 'txt'"):
        TaggingHead(DIM, BIO, modality="txt").predict(fused)
