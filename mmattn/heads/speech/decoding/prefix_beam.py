"""Prefix beam search: the texts that are likeliest over all their spellings, and what is known of texts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import takewhile

import numpy as np
from numpy.typing import NDArray

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import BLANK, Alphabet
from mmattn.heads.speech.decoding.scorers import Plain, Scorer
from mmattn.heads.speech.decoding.search import Search

__all__ = ["Hypothesis", "PrefixBeam"]

_NEVER = -np.inf
_NODES = 8192  # of the tree of prefixes, before what no text in the beam goes through is forgotten
_RECENT = 200  # symbols that texts in the beam may still differ in when that happens


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
        last: [K] the last symbol, the blank for the empty text.
        blank: [K] log-probability of the spellings that end in a blank.
        symbol: [K] of those that end in the last symbol.
        scores: [K] what the scorer has added.
        bias: [K, C] what it would add for a further symbol.
        states: [K] of the scorer.
    """

    nodes: list[int]
    last: NDArray[np.int64]
    blank: NDArray[np.float64]
    symbol: NDArray[np.float64]
    scores: NDArray[np.float64]
    bias: NDArray[np.float64]
    states: list[object]

    @property
    def total(self) -> NDArray[np.float64]:
        return np.logaddexp(self.blank, self.symbol)


class PrefixBeam(Search):
    """Keeps the best prefixes at every frame, each with the probability of all its spellings.

    A beam as wide as there are prefixes gives the exact probabilities. Memory grows with the text alone,
    however long the sound: what all texts in the beam begin with is settled and out of the tree, and so are
    doubts of some hundred symbols ago.

    Paper: Hannun et al., "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional
    Recurrent DNNs", 2014 (with a scorer: Graves and Jaitly, 2014).

    Args:
        alphabet: of the symbols.
        width: prefixes that are kept.
        scorer: what else is known of texts: an n-gram, a lexicon (see `scorers`); left out, nothing.

    Raises:
        InputError: a width below 1.

    Example:
        Two frames say "a" with probability 0.4 and nothing with 0.6 each: the likeliest spelling is empty,
        the likeliest text is not.

        >>> from mmattn.heads.speech.ctc_tokenizer import Characters
        >>> search = PrefixBeam(Characters("a"), width=4)
        >>> search.feed(np.log([[0.6, 0.4], [0.6, 0.4]]))
        >>> [(found.text, round(float(np.exp(found.log_prob)), 2)) for found in search.hypotheses()]
        [('a', 0.64), ('', 0.36)]
    """

    def __init__(self, alphabet: Alphabet, width: int = 16, scorer: Scorer | None = None):
        super().__init__(alphabet)
        if width < 1:
            raise InputError(f"prefix beam: got width {width}, expected at least 1")
        self.width = width
        self.scorer = scorer or Plain(alphabet)
        self._settled: list[int] = []
        self._parents, self._symbols = [-1], [BLANK]
        self._children: dict[tuple[int, int], int] = {}
        start = self.scorer.start()
        self._beam = _Beam(
            nodes=[0],
            last=np.array([BLANK]),
            blank=np.zeros(1),
            symbol=np.full(1, _NEVER),
            scores=np.zeros(1),
            bias=self.scorer.scores(start)[None],
            states=[start],
        )

    def _feed(self, log_probs: NDArray[np.floating]) -> None:
        for frame_C in log_probs.astype(np.float64):
            self._step(frame_C)
            if len(self._parents) > _NODES:
                self._settle()

    @property
    def text(self) -> str:
        return self.hypotheses()[0].text

    def finish(self) -> str:
        return self.hypotheses(ended=True)[0].text

    def hypotheses(self, *, ended: bool = False) -> list[Hypothesis]:
        """The texts in the beam, the best first.

        Args:
            ended: the sound is over: texts are scored as whole ones, and those that cannot end are left
                out, where others can.
        """
        beam = self._beam
        ends_K = np.array([self.scorer.end(state) if ended else 0.0 for state in beam.states])
        if not np.isfinite(ends_K).any():
            ends_K = np.zeros_like(ends_K)
        scores_K = beam.total + beam.scores + ends_K
        return [
            Hypothesis(
                self.alphabet.text([*self._settled, *self._spelled(beam.nodes[place])]),
                float(beam.total[place]),
                float(scores_K[place]),
            )
            for place in np.argsort(-scores_K, kind="stable")
            if np.isfinite(scores_K[place])
        ]

    def _step(self, frame_C: NDArray[np.float64]) -> None:
        beam, size = self._beam, len(self._beam.nodes)
        total_K = beam.total
        stays_blank_K = total_K + frame_C[BLANK]
        stays_symbol_K = beam.symbol + frame_C[beam.last]
        grown_KC = total_K[:, None] + frame_C
        # A symbol after itself is a new one only where a blank stands between.
        grown_KC[np.arange(size), beam.last] = beam.blank + frame_C[beam.last]
        grown_KC[:, BLANK] = _NEVER
        self._join_grown(grown_KC, stays_symbol_K)

        ranks_KC = grown_KC + (beam.scores[:, None] + beam.bias)
        ranks = np.concatenate([np.logaddexp(stays_blank_K, stays_symbol_K) + beam.scores, ranks_KC.ravel()])
        best = np.argsort(-ranks, kind="stable")[: self.width]
        chosen = best[ranks[best] > _NEVER].tolist()
        if not chosen:
            raise InputError("prefix beam: no text that the scorer allows has a probability above 0")
        stay = np.array([place for place in chosen if place < size], dtype=np.int64)
        grow = [divmod(place - size, len(frame_C)) for place in chosen if place >= size]
        self._beam = self._selected(stay, grow, stays_blank_K, stays_symbol_K, grown_KC)

    def _join_grown(self, grown_KC: NDArray[np.float64], stays_symbol_K: NDArray[np.float64]) -> None:
        """A prefix that another one grows into gets those spellings too; nothing grows twice."""
        beam = self._beam
        places = {node: place for place, node in enumerate(beam.nodes)}
        for place, node in enumerate(beam.nodes):
            parent = places.get(self._parents[node])
            if parent is not None:
                symbol = beam.last[place]
                stays_symbol_K[place] = np.logaddexp(stays_symbol_K[place], grown_KC[parent, symbol])
                grown_KC[parent, symbol] = _NEVER

    def _selected(
        self,
        stay: NDArray[np.int64],
        grow: list[tuple[int, int]],
        blank_K: NDArray[np.float64],
        symbol_K: NDArray[np.float64],
        grown_KC: NDArray[np.float64],
    ) -> _Beam:
        """The beam of those that stay and of those that grow by a symbol."""
        beam = self._beam
        parents = np.array([place for place, _ in grow], dtype=np.int64)
        symbols = np.array([symbol for _, symbol in grow], dtype=np.int64)
        states = [self.scorer.next(beam.states[place], symbol) for place, symbol in grow]
        return _Beam(
            nodes=[beam.nodes[place] for place in stay]
            + [self._child(beam.nodes[place], symbol) for place, symbol in grow],
            last=np.concatenate([beam.last[stay], symbols]),
            blank=np.concatenate([blank_K[stay], np.full(len(grow), _NEVER)]),
            symbol=np.concatenate([symbol_K[stay], grown_KC[parents, symbols]]),
            scores=np.concatenate([beam.scores[stay], beam.scores[parents] + beam.bias[parents, symbols]]),
            bias=np.concatenate([beam.bias[stay], *(self.scorer.scores(state)[None] for state in states)]),
            states=[beam.states[place] for place in stay] + states,
        )

    # --- the tree of prefixes -------------------------------------------------------------------

    def _child(self, node: int, symbol: int) -> int:
        key = (node, symbol)
        if key not in self._children:
            self._children[key] = len(self._parents)
            self._parents.append(node)
            self._symbols.append(symbol)
        return self._children[key]

    def _spelled(self, node: int) -> list[int]:
        symbols = []
        while node:
            symbols.append(self._symbols[node])
            node = self._parents[node]
        return symbols[::-1]

    def _settle(self) -> None:
        """Keep the texts in the beam alone, without what they all begin with.

        Texts that differ from the best one long ago are dropped: an old doubt would keep all since then.
        """
        beam = self._beam
        texts = [self._spelled(node) for node in beam.nodes]
        best = texts[int(np.argmax(beam.total + beam.scores))]
        old = max(len(best) - _RECENT, 0)
        kept = [place for place, text in enumerate(texts) if text[:old] == best[:old]]
        texts = [texts[place] for place in kept]
        alike = (len(set(column)) == 1 for column in zip(*texts, strict=False))
        common = sum(1 for _ in takewhile(bool, alike))
        self._settled += best[:common]
        self._parents, self._symbols, self._children = [-1], [BLANK], {}
        self._beam = _Beam(
            nodes=[self._grown(text[common:]) for text in texts],
            last=beam.last[kept],
            blank=beam.blank[kept],
            symbol=beam.symbol[kept],
            scores=beam.scores[kept],
            bias=beam.bias[kept],
            states=[beam.states[place] for place in kept],
        )

    def _grown(self, symbols: list[int]) -> int:
        return reduce(self._child, symbols, 0)
