"""Prefix beam search: the texts that are likeliest over all their spellings, and what is known of texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import BLANK, CTCTokenizer
from mmattn.heads.speech.decoding.scorers import NullScorer, Scorer
from mmattn.heads.speech.decoding.search import StreamingDecoder

__all__ = ["Hypothesis", "PrefixBeamDecoder"]

_LOG_ZERO = -np.inf
_MAX_NODES = 8192  # of the tree of prefixes, before what no text in the beam goes through is forgotten
_RECENT_SYMBOLS = 200  # symbols that texts in the beam may still differ in when that happens


@dataclass(frozen=True)
class Hypothesis:
    """A text that may have been said.

    Args:
        text: of it.
        log_prob: log of the summed probability of its spellings that the beam went through.
        score: what it is ranked by: `log_prob` and what the scorer adds.
    """

    text: str
    log_prob: float
    score: float


@dataclass
class _Beam:
    """The texts in the beam, K of them.

    Args:
        nodes: [K] of the tree of prefixes, all different.
        last_symbols: [K] the last symbol, the blank for the empty text.
        blank_log_probs: [K] log-probability of the spellings that end in a blank.
        symbol_log_probs: [K] of those that end in the last symbol.
        scores: [K] what the scorer has added.
        next_scores: [K, C] what it would add for a further symbol.
        states: [K] of the scorer.
    """

    nodes: list[int]
    last_symbols: NDArray[np.int64]
    blank_log_probs: NDArray[np.float64]
    symbol_log_probs: NDArray[np.float64]
    scores: NDArray[np.float64]
    next_scores: NDArray[np.float64]
    states: list[object]

    @property
    def total(self) -> NDArray[np.float64]:
        return np.logaddexp(self.blank_log_probs, self.symbol_log_probs)


class PrefixBeamDecoder(StreamingDecoder):
    """Keeps the best prefixes at every frame, each with the probability of all its spellings.

    A beam as wide as there are prefixes gives the exact probabilities. Memory grows with the text alone,
    however long the sound: what all texts in the beam begin with is settled and out of the tree, and so are
    doubts of some hundred symbols ago.

    Paper: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
    Recurrent DNNs", 2014 (with a scorer: Graves and Jaitly, 2014).

    Args:
        tokenizer: of the symbols.
        beam_size: prefixes that are kept.
        scorer: what else is known of texts: an n-gram, a lexicon (see `scorers`); left out, nothing.

    Raises:
        InputError: a width below 1.

    Example:
        Two frames say "a" with probability 0.4 and nothing with 0.6 each: the likeliest spelling is empty,
        the likeliest text is not.

        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> search = PrefixBeamDecoder(CharacterTokenizer("a"), beam_size=4)
        >>> search.feed(np.log([[0.6, 0.4], [0.6, 0.4]]))
        >>> [(found.text, round(float(np.exp(found.log_prob)), 2)) for found in search.hypotheses()]
        [('a', 0.64), ('', 0.36)]
    """

    def __init__(self, tokenizer: CTCTokenizer, beam_size: int = 16, scorer: Scorer | None = None):
        super().__init__(tokenizer)
        if beam_size < 1:
            raise InputError(f"prefix beam: got width {beam_size}, expected at least 1")
        self.beam_size = beam_size
        self.scorer = scorer or NullScorer(tokenizer)
        self._committed: list[int] = []
        self._parents, self._symbols = [-1], [BLANK]
        self._children: dict[tuple[int, int], int] = {}
        start = self.scorer.start_state()
        self._beam = _Beam(
            nodes=[0],
            last_symbols=np.array([BLANK]),
            blank_log_probs=np.zeros(1),
            symbol_log_probs=np.full(1, _LOG_ZERO),
            scores=np.zeros(1),
            next_scores=self.scorer.scores(start)[None],
            states=[start],
        )

    def _feed(self, log_probs: NDArray[np.floating]) -> None:
        for frame_C in log_probs.astype(np.float64):
            self._step(frame_C)
            if len(self._parents) > _MAX_NODES:
                self._commit_prefix()

    @property
    def text(self) -> str:
        return self.hypotheses()[0].text

    def finish(self) -> str:
        return self.hypotheses(is_final=True)[0].text

    def hypotheses(self, *, is_final: bool = False) -> list[Hypothesis]:
        """The texts in the beam, the best first.

        Args:
            is_final: the sound is over: texts are scored as whole ones, and those that cannot end are left
                out, where others can.
        """
        beam = self._beam
        ends_K = np.array([self.scorer.end_score(state) if is_final else 0.0 for state in beam.states])
        if not np.isfinite(ends_K).any():
            ends_K = np.zeros_like(ends_K)
        scores_K = beam.total + beam.scores + ends_K
        return [
            Hypothesis(
                self.tokenizer.decode([*self._committed, *self._symbols_of(beam.nodes[row])]),
                float(beam.total[row]),
                float(scores_K[row]),
            )
            for row in np.argsort(-scores_K, kind="stable")
            if np.isfinite(scores_K[row])
        ]

    def _step(self, frame_C: NDArray[np.float64]) -> None:
        beam, size = self._beam, len(self._beam.nodes)
        total_K = beam.total
        stays_blank_K = total_K + frame_C[BLANK]
        stays_symbol_K = beam.symbol_log_probs + frame_C[beam.last_symbols]
        grown_KC = total_K[:, None] + frame_C
        # A symbol after itself is a new one only where a blank stands between.
        grown_KC[np.arange(size), beam.last_symbols] = beam.blank_log_probs + frame_C[beam.last_symbols]
        grown_KC[:, BLANK] = _LOG_ZERO
        self._merge_extensions(grown_KC, stays_symbol_K)

        ranks_KC = grown_KC + (beam.scores[:, None] + beam.next_scores)
        ranks = np.concatenate([np.logaddexp(stays_blank_K, stays_symbol_K) + beam.scores, ranks_KC.ravel()])
        best = np.argsort(-ranks, kind="stable")[: self.beam_size]
        chosen = best[ranks[best] > _LOG_ZERO].tolist()
        if not chosen:
            raise InputError("prefix beam: no text that the scorer allows has a probability above 0")
        stay = np.array([row for row in chosen if row < size], dtype=np.int64)
        grow = [divmod(row - size, len(frame_C)) for row in chosen if row >= size]
        self._beam = self._select_beam(stay, grow, stays_blank_K, stays_symbol_K, grown_KC)

    def _merge_extensions(self, grown_KC: NDArray[np.float64], stay_symbol_K: NDArray[np.float64]) -> None:
        """A prefix that another one grows into gets those spellings too; nothing grows twice."""
        beam = self._beam
        row_of_node = {node: row for row, node in enumerate(beam.nodes)}
        for index, node in enumerate(beam.nodes):
            parent = row_of_node.get(self._parents[node])
            if parent is not None:
                symbol = beam.last_symbols[index]
                stay_symbol_K[index] = np.logaddexp(stay_symbol_K[index], grown_KC[parent, symbol])
                grown_KC[parent, symbol] = _LOG_ZERO

    def _select_beam(
        self,
        stay: NDArray[np.int64],
        grow: list[tuple[int, int]],
        blank_K: NDArray[np.float64],
        symbol_K: NDArray[np.float64],
        grown_KC: NDArray[np.float64],
    ) -> _Beam:
        """The beam of those that stay and of those that grow by a symbol."""
        beam = self._beam
        parents = np.array([row for row, _ in grow], dtype=np.int64)
        symbols = np.array([symbol for _, symbol in grow], dtype=np.int64)
        states = [self.scorer.next_state(beam.states[row], symbol) for row, symbol in grow]
        return _Beam(
            nodes=[beam.nodes[row] for row in stay]
            + [self._child(beam.nodes[row], symbol) for row, symbol in grow],
            last_symbols=np.concatenate([beam.last_symbols[stay], symbols]),
            blank_log_probs=np.concatenate([blank_K[stay], np.full(len(grow), _LOG_ZERO)]),
            symbol_log_probs=np.concatenate([symbol_K[stay], grown_KC[parents, symbols]]),
            scores=np.concatenate(
                [beam.scores[stay], beam.scores[parents] + beam.next_scores[parents, symbols]]
            ),
            next_scores=np.concatenate(
                [beam.next_scores[stay], *(self.scorer.scores(state)[None] for state in states)]
            ),
            states=[beam.states[row] for row in stay] + states,
        )

    # --- the tree of prefixes -------------------------------------------------------------------

    def _child(self, node: int, symbol: int) -> int:
        key = (node, symbol)
        if key not in self._children:
            self._children[key] = len(self._parents)
            self._parents.append(node)
            self._symbols.append(symbol)
        return self._children[key]

    def _symbols_of(self, node: int) -> list[int]:
        symbols = []
        while node:
            symbols.append(self._symbols[node])
            node = self._parents[node]
        return symbols[::-1]

    def _commit_prefix(self) -> None:
        """Keep the texts in the beam alone, without what they all begin with.

        Texts that differ from the best one long ago are dropped: an old doubt would keep all since then.
        """
        beam = self._beam
        texts = [self._symbols_of(node) for node in beam.nodes]
        best = texts[int(np.argmax(beam.total + beam.scores))]
        old = max(len(best) - _RECENT_SYMBOLS, 0)
        kept = [row for row, text in enumerate(texts) if text[:old] == best[:old]]
        texts = [texts[row] for row in kept]
        alike = (len(set(column)) == 1 for column in zip(*texts, strict=False))
        common = sum(1 for _ in takewhile(bool, alike))
        self._committed += best[:common]
        self._parents, self._symbols, self._children = [-1], [BLANK], {}
        self._beam = _Beam(
            nodes=[self._insert(text[common:]) for text in texts],
            last_symbols=beam.last_symbols[kept],
            blank_log_probs=beam.blank_log_probs[kept],
            symbol_log_probs=beam.symbol_log_probs[kept],
            scores=beam.scores[kept],
            next_scores=beam.next_scores[kept],
            states=[beam.states[row] for row in kept],
        )

    def _insert(self, symbols: list[int]) -> int:
        return reduce(self._child, symbols, 0)
