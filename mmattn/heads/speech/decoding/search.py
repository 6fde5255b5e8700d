"""From log-probabilities of symbols to a text, as they come: what searches share, and the greedy one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmattn.errors import InputError
from mmattn.heads.speech.ctc_tokenizer import BLANK, CTCTokenizer
from mmattn.types import Tokens

__all__ = ["GreedyDecoder", "StreamingDecoder", "transcribe"]


class StreamingDecoder(ABC):
    """One utterance being decoded; whoever has another begins another search.

    Args:
        tokenizer: of the symbols.
    """

    def __init__(self, tokenizer: CTCTokenizer):
        self.tokenizer = tokenizer

    def feed(self, log_probs: NDArray[np.floating]) -> None:
        """Go on.

        Args:
            log_probs: [T, C] of the next frames, the blank first; T may be 0.

        Raises:
            InputError: of another width than the alphabet, or with NaN.
        """
        if log_probs.ndim != 2 or log_probs.shape[1] != len(self.tokenizer) or np.isnan(log_probs).any():
            raise InputError(
                f"search: got log-probabilities {log_probs.shape}, expected [T, {len(self.tokenizer)}] "
                "without NaN, a column a symbol"
            )
        self._feed(log_probs)

    @abstractmethod
    def _feed(self, log_probs: NDArray[np.floating]) -> None:
        """As `feed`, of what was checked."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The best text so far; later frames may change it."""

    def finish(self) -> str:
        """The best text of the whole; nothing is fed afterwards."""
        return self.text


class GreedyDecoder(StreamingDecoder):
    """The likeliest symbol of every frame, repeats joined and blanks left out.

    Args:
        tokenizer: of the symbols.

    Example:
        >>> from mmattn.heads.speech.ctc_tokenizer import CharacterTokenizer
        >>> search = GreedyDecoder(CharacterTokenizer("ab"))
        >>> search.feed(np.log([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.9, 0.05, 0.05]]))
        >>> search.feed(np.log([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
        >>> search.finish()
        'aab'
    """

    def __init__(self, tokenizer: CTCTokenizer):
        super().__init__(tokenizer)
        self._symbols: list[int] = []
        self._last = BLANK

    def _feed(self, log_probs: NDArray[np.floating]) -> None:
        for symbol in log_probs.argmax(1).tolist() if len(log_probs) else ():
            if symbol not in (BLANK, self._last):
                self._symbols.append(symbol)
            self._last = symbol

    @property
    def text(self) -> str:
        return self.tokenizer.decode(self._symbols)


def transcribe(emissions: Tokens, make_decoder: Callable[[], StreamingDecoder]) -> list[str]:
    """The text of every sample.

    Args:
        emissions: log-probabilities [N, C] as the head gives them.
        make_decoder: begins a search.
    """
    return [_decode_sequence(make_decoder(), sequence) for sequence in emissions.sequences()]


def _decode_sequence(decoder: StreamingDecoder, log_probs: Tensor) -> str:
    decoder.feed(log_probs.detach().cpu().numpy())
    return decoder.finish()
