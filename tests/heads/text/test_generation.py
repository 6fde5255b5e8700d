"""The head that writes: cached decoding is uncached decoding, what it learns, and what it refuses."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mmattn import attention as A
from mmattn.errors import InputError
from mmattn.heads.text.decoder import TextDecoder, TextDecoderLayer
from mmattn.heads.text.generation import GenerationHead
from mmattn.heads.text.subwords import END, START, UNKNOWN
from mmattn.testing.plugin_checks import check_head
from mmattn.types import Fused, Tokens

WORDS = ["a", "dog", "runs", "red", "two"]


def fused(lengths: list[int], dim: int = 14, seed: int = 0, modality: str = "image") -> Fused:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(sum(lengths), dim, generator=generator)
    tokens = Tokens.from_lengths(values, torch.tensor(lengths), modality)
    pooled = torch.zeros(len(lengths), dim)
    return Fused(tokens, pooled, pooled[:, None], tokens.presence)


def head(seed: int = 0, **options: object) -> GenerationHead:
    torch.manual_seed(seed)
    made = GenerationHead(14, WORDS, heads=2, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        made.decoder.bias.normal_()  # so that symbols differ in how likely they are
    return made.eval()


@torch.no_grad()
def log_probability(made: GenerationHead, memory: Tokens, symbols: tuple[int, ...]) -> float:
    """Of one text with its end, from the whole sequence at once."""
    logits = made.decoder([torch.tensor([START, *symbols])], memory).log_softmax(1)
    return float(logits[range(len(symbols) + 1), [*symbols, END]].sum())


def test_the_contract() -> None:
    check_head(GenerationHead)


@pytest.mark.parametrize(
    "own", ["Program(mask=causal)", "Program(score=dot() >> relative('r', 8), mask=causal & window(2))"]
)
def test_step_by_step_is_the_whole_text(own: str) -> None:
    """Logits of cached decoding, rows of unequal number a sample, equal those of whole texts."""
    made = head(self_attention=own, layers=3).double()
    for layer in made.decoder.layers:
        for number in layer.self_attention.program_parameters().values():
            torch.nn.init.normal_(number)
    memory = fused([3, 5, 1]).tokens.to(dtype=torch.float64)
    texts = torch.tensor([[0, 4, 7, 3, 5, 1], [0, 6, 3, 3, 4, 7], [0, 5, 5, 6, 7, 3]])
    whole = made.decoder(list(texts), memory).log_softmax(1).view(3, 6, -1)
    decoding = made.decoder.start_decoding(memory)
    for index in range(3):
        torch.testing.assert_close(decoding.step(texts[:, index]), whole[:, index].float())
    # Sample 0 goes on twice, sample 1 leaves, sample 2 goes on once.
    decoding.select(torch.tensor([0, 0, 2]), torch.tensor([2, 0, 1]))
    other = texts[0].clone()
    other[3:] = torch.tensor([7, 7, 4])
    rows = torch.stack([texts[0], other, texts[2]])
    expected = made.decoder(list(rows), memory.select([0, 0, 2])).log_softmax(1).view(3, 6, -1)
    for index in range(3, 6):
        torch.testing.assert_close(decoding.step(rows[:, index]), expected[:, index].float())


@pytest.mark.parametrize("beam", [1, 4])
def test_what_is_found_has_the_probability_that_the_whole_text_has(beam: int) -> None:
    made, scene = head(max_length=6), fused([3, 5, 1, 2])
    for row, written in enumerate(made.search(scene, num_beams=beam, num_return_sequences=beam)):
        for each in written:
            symbols = tuple(made.tokenizer.encode(each.text))
            actual = log_probability(made, scene.tokens.select([row]), symbols)
            assert each.log_prob == pytest.approx(actual, abs=1e-4)
            assert each.score == pytest.approx(actual / ((6 + len(symbols)) / 6) ** 0.6, abs=1e-4)


def test_a_wide_beam_is_exhaustive_and_one_is_greedy() -> None:
    made, scene = head(3), fused([4, 2], seed=1)
    options = {"max_length": 3, "length_penalty": 0.0}
    for row, written in enumerate(made.search(scene, num_beams=5**4, num_return_sequences=5, **options)):
        memory = scene.tokens.select([row])
        texts = [t for n in range(4) for t in itertools.product(range(3, 8), repeat=n)]
        ranked = sorted(texts, key=lambda text: -log_probability(made, memory, text))
        assert [each.text for each in written] == [made.tokenizer.decode(text) for text in ranked[:5]]
        greedy = made.search(scene, num_beams=1, **options)[row][0]
        prefix: list[int] = []
        while len(prefix) < 3:
            logits = made.decoder([torch.tensor([START, *prefix])], memory)[-1]
            logits[[START, UNKNOWN]] = -torch.inf
            if int(logits.argmax()) == END:
                break
            prefix.append(int(logits.argmax()))
        assert greedy.text == made.tokenizer.decode(prefix)


def test_a_batch_is_its_samples_one_by_one() -> None:
    made = head(max_length=7)
    scene = fused([3, 0, 5, 1])
    together = made.search(scene, num_beams=3, num_return_sequences=2)
    assert together[1][0].text == ""
    for row in (0, 2, 3):
        tokens = scene.tokens.select([row])
        alone = made.search(
            Fused(tokens, scene.pooled[:1], scene.by_modality[:1], tokens.presence),
            num_beams=3,
            num_return_sequences=2,
        )
        assert [each.text for each in together[row]] == [each.text for each in alone[0]]


def test_lengths_are_kept_and_unknown_is_never_written() -> None:
    made = head(min_length=2, max_length=4)
    with torch.no_grad():
        made.decoder.bias[UNKNOWN] = 50.0
        made.decoder.bias[START] = 50.0
    texts = made.predict(fused([2] * 11))
    assert all(2 <= len(text.split()) <= 4 for text in texts)
    assert all(word in WORDS for text in texts for word in text.split())


def test_the_loss_by_hand() -> None:
    made, scene = head(label_smoothing=0.0), fused([3, 2, 0, 1])
    costs = []
    for row, symbols in ((0, [3, UNKNOWN]), (3, [])):
        logits = made.decoder([torch.tensor([START, *symbols])], scene.tokens.select([row]))
        costs.append(F.cross_entropy(logits, torch.tensor([*symbols, END]), reduction="none"))
    loss = made.loss(scene, ["a zebra", None, "dog", ""])  # no target; no token
    torch.testing.assert_close(loss, torch.cat(costs).mean())
    smooth = head(label_smoothing=0.2).loss(scene, ["a zebra", None, "dog", ""])
    assert abs(smooth - loss).item() > 1e-3
    nothing = made.loss(scene, [None, None, "dog", None])
    assert nothing.item() == 0.0
    nothing.backward()


def test_only_what_was_written_before_and_what_is_there_counts() -> None:
    """Later words do not change earlier logits; other samples' memory changes nothing."""
    made, scene = head(), fused([3, 2])
    first = made.decoder([torch.tensor([0, 3, 4, 5]), torch.tensor([0, 6])], scene.tokens)
    second = made.decoder([torch.tensor([0, 3, 7, 7]), torch.tensor([0, 6])], scene.tokens)
    torch.testing.assert_close(first[:2], second[:2])
    assert not torch.allclose(first[2:4], second[2:4])
    changed = scene.tokens.with_values(
        scene.tokens.values + torch.tensor([0.0, 0, 0, 1, 1])[:, None] * torch.randn(5, 14)
    )
    third = made.decoder([torch.tensor([0, 3, 4, 5]), torch.tensor([0, 6])], changed)
    torch.testing.assert_close(first[:4], third[:4])
    assert not torch.allclose(first[4:], third[4:])


def test_a_route_chooses_what_is_read() -> None:
    other = "Program(score=dot(), mask=route({'written': ['image']}), norm=softmax())"
    made, scene = head(cross_attention=other), fused([3, 2])
    sound = fused([2, 4], seed=5, modality="audio")
    both = Tokens.cat([scene.tokens, sound.tokens])
    texts = [torch.tensor([0, 3]), torch.tensor([0, 4, 5])]
    torch.testing.assert_close(made.decoder(texts, both), made.decoder(texts, scene.tokens))


@pytest.mark.parametrize("unit", ["word", "character", "piece"])
def test_it_learns_to_copy_what_it_reads(unit: str) -> None:
    """Five tokens, five words, in any order: the order and the words come back."""
    texts = [" ".join(words) for words in itertools.permutations(WORDS, 3)]
    table = torch.randn(5, 16, generator=torch.Generator().manual_seed(7))
    sequences = [torch.stack([table[WORDS.index(word)] for word in text.split()]) for text in texts]
    tokens = Tokens.from_sequences(sequences, "text")
    pooled = torch.zeros(len(texts), 16)
    scene = Fused(tokens, pooled, pooled[:, None], tokens.presence)
    torch.manual_seed(0)
    options = GenerationHead.options_for(texts, unit=unit, vocab_size=30)
    made = GenerationHead(16, layers=1, heads=2, dropout=0.0, label_smoothing=0.0, **options)
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss = made.loss(scene, texts)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            break
    right = sum(entry == other for entry, other in zip(made.eval().predict(scene), texts, strict=True))
    assert right >= 57  # of 60


def test_options_follow_from_the_training_texts(tmp_path: Path) -> None:
    options = GenerationHead.options_for(["a dog a", None, "two dogs run far away"], min_frequency=2)
    assert options == {"vocabulary": ["a"], "unit": "word", "lowercase": False, "max_length": 6}
    made = GenerationHead(16, **options)
    scene = fused([2], dim=16)
    assert made.eval()(scene) == made.predict(scene)
    (tmp_path / "vocab.txt").write_text("a\ndog\n##s\n")
    pieces = GenerationHead(14, str(tmp_path / "vocab.txt"), unit="piece", heads=2)
    assert pieces.tokenizer.encode("dogs") == [4, 5]
    with pytest.raises(InputError, match="got 7 as target, expected a text"):
        GenerationHead.options_for([7])


def test_the_saved_weights_are_the_head(tmp_path: Path) -> None:
    entry, other = head(0), head(1)
    scene = fused([3, 4])
    assert entry.predict(scene) != other.predict(scene)
    other.load_state_dict(copy.deepcopy(entry.state_dict()))
    assert entry.predict(scene) == other.predict(scene)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "got smoothing 1.0, expected a share from 0 to below 1"),
        ({"layers": 0}, "got 0 layers, expected at least one"),
        ({"self_attention": "Program(mask=full)"}, r"decode: the mask full may look ahead"),
        ({"num_beams": 0}, "search: got beam 0"),
        ({"unit": "words"}, "generation head: got unit='words'"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        head(**options)


def test_targets_that_do_not_fit() -> None:
    made, scene = head(max_length=3), fused([2, 1])
    with pytest.raises(InputError, match="got 1 targets, expected 2, one a sample"):
        made.loss(scene, ["a"])
    with pytest.raises(InputError, match=r"got \['a'\] as target, expected a text"):
        made.loss(scene, [["a"], None])  # type: ignore[list-item]
    with pytest.raises(
        InputError, match=r"got a target of 4 words, expected at most 3 \(max_length\): 'a red dog runs'"
    ):
        made.loss(scene, ["a dog", "a red dog runs"])
    with pytest.raises(InputError, match="got width 13, expected an even number"):
        GenerationHead(13, WORDS)


def test_a_layer_whose_own_program_looks_ahead_is_refused() -> None:
    ahead, back = A.Attention(A.Program(), 8, 2), A.Attention(A.Program(mask=A.causal), 8, 2)
    with pytest.raises(InputError, match="may look ahead"):
        TextDecoderLayer(ahead, back, 2.0, 0.0)
    assert TextDecoder(8, 5, [TextDecoderLayer(back, ahead, 2.0, 0.0)]).dim == 8
