"""Beam search against all texts there are, against a plain greedy loop, and in batches of samples."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.heads.text.beam_search import Hypothesis, SearchOptions, beam_search

START, END, NEVER = 0, 1, 2


class Table:
    """Log probabilities that depend on the sample and on all that was said: nothing to guess from."""

    def __init__(self, samples: int, symbols: int, seed: int = 0):
        self.symbols, self.seed = symbols, seed
        self.rows: list[tuple[int, tuple[int, ...]]] = [(sample, ()) for sample in range(samples)]
        self.widest = 0

    def after(self, sample: int, said: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(hash((self.seed, sample, said)) % 2**31)
        return (2 * torch.randn(self.symbols, generator=generator)).log_softmax(0)

    def step(self, symbols: Tensor) -> Tensor:
        self.rows = [
            (sample, (*prefix, symbol))
            for (sample, prefix), symbol in zip(self.rows, symbols.tolist(), strict=True)
        ]
        self.widest = max(self.widest, len(self.rows))
        return torch.stack([self.after(sample, prefix) for sample, prefix in self.rows])

    def select(self, rows: Tensor, counts: Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]
        assert torch.bincount(torch.tensor([s for s, _ in self.rows]).long(), minlength=len(counts)).equal(
            counts
        )


def search(table: Table, samples: int, **options: float) -> list[list[Hypothesis]]:
    given = SearchOptions(**options)  # type: ignore[arg-type]
    return beam_search(table, samples, given, start=START, end=END, forbidden_symbols=(START, NEVER))


def everything(table: Table, sample: int, options: SearchOptions) -> list[Hypothesis]:
    """Every text of allowed symbols and lengths, scored one by one."""
    results = []
    for length in range(options.min_length, options.max_length + 1):
        for text in product(range(3, table.symbols), repeat=length):
            prefix, total = (START,), 0.0
            for symbol in (*text, END):
                total += float(table.after(sample, prefix)[symbol])
                prefix = (*prefix, symbol)
            results.append(Hypothesis(text, total, total / ((5 + length + 1) / 6) ** options.length_penalty))
    return sorted(results, key=lambda each: -each.score)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
@pytest.mark.parametrize(("least", "most"), [(0, 3), (2, 3), (3, 3), (0, 0)])
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_all(penalty: float, least: int, most: int) -> None:
    beam, best = 4**3, 1 if most == 0 else 7
    options = SearchOptions(beam, best, penalty, least, most)
    actual = beam_search(Table(2, 6), 2, options, start=START, end=END, forbidden_symbols=(START, NEVER))
    for sample, hypotheses in enumerate(actual):
        expected = everything(Table(2, 6), sample, options)[:best]
        assert [each.symbols for each in hypotheses] == [each.symbols for each in expected]
        torch.testing.assert_close([e.score for e in hypotheses], [e.score for e in expected])
        torch.testing.assert_close([e.log_prob for e in hypotheses], [e.log_prob for e in expected])


@pytest.mark.parametrize("penalty", [0.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_one_takes_the_likeliest_symbol_each_time(seed: int, penalty: float) -> None:
    samples, longest = 7, 11
    actual = search(Table(samples, 5, seed), samples, num_beams=1, max_length=longest, length_penalty=penalty)
    table = Table(samples, 5, seed)
    for sample, (hypothesis,) in enumerate(actual):
        prefix: tuple[int, ...] = (START,)
        while len(prefix) <= longest:
            scores = table.after(sample, prefix)
            scores[[START, NEVER]] = -torch.inf
            symbol = int(scores.argmax())
            if symbol == END:
                break
            prefix = (*prefix, symbol)
        assert hypothesis.symbols == prefix[1:]


@pytest.mark.parametrize("beam", [1, 3, 5])
def test_samples_do_not_meet(beam: int) -> None:
    """A batch gives what each sample gives alone, and a wider beam is followed for each of them."""
    samples = 5
    together = search(
        Table(samples, 7, 3),
        samples,
        num_beams=beam,
        num_return_sequences=beam,
        max_length=6,
        length_penalty=0.5,
    )
    for sample in range(samples):
        alone = Table(samples, 7, 3)
        alone.rows = [(sample, ())]
        actual = search_one(alone, beam)
        assert together[sample] == actual


def search_one(table: Table, beam: int) -> list[Hypothesis]:
    class One(Table):
        def select(self, rows: Tensor, counts: Tensor) -> None:
            self.rows = [self.rows[row] for row in rows.tolist()]

    entry = One(1, table.symbols, table.seed)
    entry.rows = table.rows
    return search(entry, 1, num_beams=beam, num_return_sequences=beam, max_length=6, length_penalty=0.5)[0]


def test_what_ended_leaves_and_lengths_are_kept() -> None:
    table = Table(3, 9)
    actual = search(table, 3, num_beams=4, num_return_sequences=4, min_length=2, max_length=5)
    assert table.widest <= 3 * 4
    assert all(2 <= len(each.symbols) <= 5 for hypotheses in actual for each in hypotheses)
    assert all(not {START, END, NEVER} & set(each.symbols) for hypotheses in actual for each in hypotheses)
    for hypotheses in actual:
        assert len({each.symbols for each in hypotheses}) == len(hypotheses) == 4
        assert [e.score for e in hypotheses] == sorted((e.score for e in hypotheses), reverse=True)
    assert search(Table(0, 4), 0, num_beams=2) == []


def test_a_length_penalty_likes_long_texts() -> None:
    """By hand: end at once .4; a symbol, then the end .6 * .5: the short one wins without a penalty only."""

    class Two:
        length = 0

        def step(self, symbols: Tensor) -> Tensor:
            odds = [[0.0, 0.4, 0.0, 0.6], [0.0, 0.5, 0.0, 0.5]][min(self.length, 1)]
            self.length += 1
            return torch.tensor([odds] * len(symbols)).log()

        def select(self, rows: Tensor, counts: Tensor) -> None:
            pass

    short, long = (
        beam_search(Two(), 1, SearchOptions(2, 1, penalty, max_length=1), start=START, end=END)[0][0]
        for penalty in (0.0, 4.0)
    )
    assert (short.symbols, long.symbols) == ((), (3,))
    assert short.log_prob == pytest.approx(torch.tensor(0.4).log().item())
    assert long.score == pytest.approx(torch.tensor(0.3).log().item() / (7 / 6) ** 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "got beam 0 and best 1, expected 1 <= best <= beam"),
        ({"num_beams": 2, "num_return_sequences": 3}, "got beam 2 and best 3"),
        ({"min_length": 5, "max_length": 4}, "got lengths from 5 to 4, expected 0 <= min <= max"),
        ({"length_penalty": -0.1}, "got length penalty -0.1, expected 0 or more"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchOptions(**options)  # type: ignore[arg-type]
