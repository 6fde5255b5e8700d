"""Beam search over anything that says, step by step, how likely each next symbol is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mmattn.errors import InputError

__all__ = ["Hypothesis", "SearchOptions", "StepDecoder", "beam_search"]


class StepDecoder(Protocol):
    """What is searched: rows of symbols said so far, those of one sample beside each other."""

    def step(self, symbols: Tensor) -> Tensor:
        """Append a symbol to each row and return the log-probabilities of the next one, [R, V].

        Args:
            symbols: [R] next symbol of each row.
        """
        ...

    def select(self, rows: Tensor, counts: Tensor) -> None:
        """Continue from selected rows.

        Args:
            rows: [R'] rows to continue, which may repeat.
            counts: [B] number of rows of each sample.
        """
        ...


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Args:
        num_beams: hypotheses that are followed for each sample; 1 is greedy.
        num_return_sequences: how many are given back, at most `num_beams`.
        length_penalty: log probabilities are divided by ((5 + symbols) / 6) to this power, the end being a
            symbol too: 0 compares them as they are, larger values like long texts.
        min_length: symbols that have to be said before the end may come.
        max_length: symbols after which the end comes.

    Raises:
        InputError: an option out of its range.
    """

    num_beams: int = 4
    num_return_sequences: int = 1
    length_penalty: float = 0.0
    min_length: int = 0
    max_length: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.num_return_sequences <= self.num_beams:
            raise InputError(
                f"search: got beam {self.num_beams} and best {self.num_return_sequences}, expected 1 <= "
                f"best <= beam"
            )
        if not 0 <= self.min_length <= self.max_length:
            raise InputError(
                f"search: got lengths from {self.min_length} to {self.max_length}, expected 0 <= min <= max"
            )
        if self.length_penalty < 0:
            raise InputError(f"search: got length penalty {self.length_penalty}, expected 0 or more")

    def score(self, log_prob: float, length: int) -> float:
        """Return the length-normalized score that hypotheses are ranked by.

        Args:
            log_prob: of the text.
            length: number of symbols, without the end.
        """
        return log_prob / ((6 + length) / 6) ** self.length_penalty


@dataclass(frozen=True)
class Hypothesis:
    """Something that could be said.

    Args:
        symbols: without start and end.
        log_prob: of the symbols and the end.
        score: after the length penalty.
    """

    symbols: tuple[int, ...]
    log_prob: float
    score: float


@torch.no_grad()
def beam_search(
    decoder: StepDecoder,
    num_samples: int,
    options: SearchOptions,
    *,
    start: int,
    end: int,
    forbidden_symbols: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> list[list[Hypothesis]]:
    """The likeliest texts of each sample, the best first.

    The best `beam` hypotheses of each sample go on. One that ends leaves its place empty, so the beam gets
    narrower; a sample also ends when nothing that goes on could still be among its best.

    Paper: Sutskever et al., "Sequence to Sequence Learning with Neural Networks", 2014 (what ends leaves the
    beam); Wu et al., "Google's Neural Machine Translation System", 2016, section 7 (the length penalty).

    Args:
        decoder: holds one row a sample, nothing said yet.
        num_samples: B.
        options: beam, lengths, penalty.
        start: symbol that begins a text.
        end: symbol that ends it; never part of a hypothesis.
        forbidden_symbols: symbols that are not said.
        device: of the search.
    """
    finished: list[list[Hypothesis]] = [[] for _ in range(num_samples)]
    room_B = torch.full((num_samples,), options.num_beams, device=device)
    sample_R = torch.arange(num_samples, device=device)
    symbols_R = torch.full((num_samples,), start, device=device)
    said_RT = torch.zeros(num_samples, 0, dtype=torch.int64, device=device)
    total_R = torch.zeros(num_samples, device=device)
    for length in range(options.max_length + 1):
        if not len(sample_R):
            break
        log_RV = decoder.step(symbols_R).float()
        log_RV[:, list(forbidden_symbols)] = -torch.inf
        if length < options.min_length:
            log_RV[:, end] = -torch.inf
        if length == options.max_length:
            log_RV[:, torch.arange(log_RV.shape[1], device=device) != end] = -torch.inf
        best_BK, row_BK, symbol_BK = _top_continuations(
            total_R[:, None] + log_RV, sample_R, room_B, options.num_beams
        )
        chosen_BK = best_BK > -torch.inf
        ended_BK = chosen_BK & (symbol_BK == end)
        for sample, beam in ended_BK.nonzero().tolist():
            symbols = tuple(said_RT[row_BK[sample, beam]].tolist())
            log_probability = float(best_BK[sample, beam])
            score = options.score(log_probability, length)
            finished[sample].append(Hypothesis(symbols, log_probability, score))
        room_B = room_B - ended_BK.sum(1)
        open_B = _is_unfinished(finished, best_BK.masked_fill(ended_BK, -torch.inf), options).to(device)
        going_BK = chosen_BK & ~ended_BK & open_B[:, None]
        rows_R = row_BK[going_BK]
        sample_R = going_BK.nonzero()[:, 0]
        symbols_R, total_R = symbol_BK[going_BK], best_BK[going_BK]
        said_RT = torch.cat([said_RT[rows_R], symbols_R[:, None]], dim=1)
        decoder.select(rows_R, going_BK.sum(1))
    ranked = (sorted(each, key=lambda hypothesis: -hypothesis.score) for each in finished)
    return [each[: options.num_return_sequences] for each in ranked]


def _top_continuations(
    scores_RV: Tensor, sample_R: Tensor, capacity_B: Tensor, num_beams: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of each sample, as many as it has room for.

    Returns:
        [B, K] their scores, minus infinity where there is none; their rows; their symbols.
    """
    samples, symbols = len(capacity_B), scores_RV.shape[1]
    counts_B = sample_R.bincount(minlength=samples)
    first_B = counts_B.cumsum(0) - counts_B
    place_R = torch.arange(len(sample_R), device=sample_R.device) - first_B[sample_R]
    widest = int(counts_B.max())
    padded_BPV = scores_RV.new_full((samples, widest, symbols), -torch.inf)
    padded_BPV[sample_R, place_R] = scores_RV
    best_BK, index_BK = padded_BPV.flatten(1).topk(min(num_beams, widest * symbols))
    over_BK = torch.arange(best_BK.shape[1], device=capacity_B.device) >= capacity_B[:, None]
    row_BK = first_B[:, None] + index_BK // symbols
    return best_BK.masked_fill(over_BK, -torch.inf), row_BK, index_BK % symbols


def _is_unfinished(
    finished: Sequence[Sequence[Hypothesis]], going_BK: Tensor, options: SearchOptions
) -> Tensor:
    """[B]: could something that goes on still be among the sample's best? Log probabilities only fall."""
    hopes = going_BK.amax(1).tolist()
    still = []
    for each, hope in zip(finished, hopes, strict=True):
        scores = sorted((hypothesis.score for hypothesis in each), reverse=True)
        least = (
            scores[options.num_return_sequences - 1]
            if len(scores) >= options.num_return_sequences
            else -torch.inf
        )
        still.append(options.score(hope, options.max_length) > least)
    return torch.tensor(still, dtype=torch.bool)
