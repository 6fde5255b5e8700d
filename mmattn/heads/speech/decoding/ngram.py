"""A small n-gram with interpolated Kneser-Ney smoothing, over words, characters or any symbols."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmattn.errors import InputError
from mmattn.files import write_json

__all__ = ["NGram"]

_Counts = dict[tuple[Any, ...], dict[Any, int]]  # context -> token -> how often


class NGram:
    """How likely a token is after the ones before it.

    A longer context says what it has seen, less a discount; the rest goes to the shorter one, in which
    a token counts by the number of different ones it has followed. Below all contexts every token is
    alike, and so is any unknown one.

    Paper: Kneser and Ney, "Improved backing-off for m-gram language modeling", 1995; Chen and Goodman,
    "An Empirical Study of Smoothing Techniques for Language Modeling", 1999 (interpolated, one discount
    an order).

    Use `NGram.train`.

    Args:
        order: tokens of the longest n-gram.
        counts: context -> token -> count, as `train` makes them, for all lengths of context.

    Example:
        >>> ngram = NGram.train(["the cat sat".split(), "the dog sat".split()], order=2)
        >>> ngram.log_prob("cat", ["the"]) > ngram.log_prob("sat", ["the"])
        True
        >>> tokens = ["the", "cat", "sat", "dog", NGram.END, "unheard of"]
        >>> round(sum(math.exp(ngram.log_prob(token, ["the"])) for token in tokens), 6)
        1.0
    """

    BEGIN = "<s>"
    END = "</s>"

    def __init__(self, order: int, counts: Mapping[tuple[Any, ...], Mapping[Any, int]]):
        self.order = order
        self._counts: _Counts = {context: dict(tokens) for context, tokens in counts.items()}
        self._totals = {context: sum(tokens.values()) for context, tokens in self._counts.items()}
        self._discounts = [self._discount(length) for length in range(order)]
        self._uniform = 1 / (len(self._counts.get((), {})) + 1)  # and one for all unknown tokens

    @classmethod
    def train(cls, sequences: Iterable[Sequence[Hashable]], order: int = 3) -> NGram:
        """Count the n-grams of training texts.

        Args:
            sequences: tokens of each text: words, characters or symbols.
            order: tokens of the longest n-gram.

        Raises:
            InputError: no text, or an order below 1.
        """
        if order < 1:
            raise InputError(f"n-gram: got order {order}, expected at least 1")
        seen: list[Counter[tuple[Any, ...]]] = [Counter() for _ in range(order)]
        for sequence in sequences:
            tokens = (cls.BEGIN, *sequence, cls.END)
            for end in range(1, len(tokens)):
                for length in range(min(order, end + 1)):
                    seen[length][tokens[end - length : end + 1]] += 1
        if not seen[0]:
            raise InputError("n-gram: got no text to train from, expected at least one")
        counts: _Counts = defaultdict(dict)
        for length, grams in enumerate(seen):
            longest = length == len(seen) - 1
            # Nothing can stand before the beginning, so what follows it keeps its plain counts.
            kept = {gram: count for gram, count in grams.items() if longest or gram[0] == cls.BEGIN}
            if not longest:
                kept |= Counter(gram[1:] for gram in seen[length + 1])
            for gram, count in kept.items():
                counts[gram[:-1]][gram[-1]] = count
        return cls(order, counts)

    @property
    def start_context(self) -> tuple[Any, ...]:
        """The context at the beginning of a text."""
        return (self.BEGIN,)[: self.order - 1]

    def next_context(self, context: tuple[Any, ...], token: Hashable) -> tuple[Any, ...]:
        """Return the context after a further token, cut to what the model looks at.

        Args:
            context: as this method returned it; () at the start.
            token: the next token.
        """
        return (*context, token)[-(self.order - 1) :] if self.order > 1 else ()

    def log_prob(self, token: Hashable, context: Sequence[Hashable] = ()) -> float:
        """Natural log of the probability of a token (`NGram.END` for the end) after a context.

        Args:
            token: the token.
            context: tokens before it.
        """
        near = tuple(context)[max(len(context) - self.order + 1, 0) :]
        return math.log(self._prob(token, near))

    def perplexity(self, sequences: Iterable[Sequence[Hashable]]) -> float:
        """Return the perplexity of sequences, their ends included.

        Args:
            sequences: of tokens.
        """
        total, count = 0.0, 0
        for sequence in sequences:
            context = self.start_context
            for token in (*sequence, self.END):
                total += self.log_prob(token, context)
                context = self.next_context(context, token)
                count += 1
        return math.exp(-total / max(count, 1))

    def _prob(self, token: Hashable, context: tuple[Any, ...]) -> float:
        shorter = self._prob(token, context[1:]) if context else self._uniform
        tokens = self._counts.get(context)
        if tokens is None:
            return shorter
        discount, total = self._discounts[len(context)], self._totals[context]
        discounted = max(tokens.get(token, 0) - discount, 0.0)
        return (discounted + discount * len(tokens) * shorter) / total

    def _discount(self, length: int) -> float:
        """From how many n-grams were seen once and twice (Ney, Essen and Kneser, 1994)."""
        counts = Counter(
            count
            for context, tokens in self._counts.items()
            if len(context) == length
            for count in tokens.values()
        )
        return counts[1] / (counts[1] + 2 * counts[2]) if counts[1] and counts[2] else 0.5

    # --- files ------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write it as JSON; tokens are texts or whole numbers.

        Args:
            path: of the file.
        """
        grams = [
            [*context, token, count]
            for context, tokens in self._counts.items()
            for token, count in tokens.items()
        ]
        write_json(path, {"format": 1, "order": self.order, "grams": grams})

    @classmethod
    def load(cls, path: str | Path) -> NGram:
        """Read what `save` wrote.

        Args:
            path: of the file.

        Raises:
            InputError: the file is none of those.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"n-gram: {path} cannot be read ({error})") from error
        if not isinstance(content, dict) or content.get("format") != 1:
            raise InputError(f"n-gram: {path} is no n-gram of format 1")
        counts: _Counts = defaultdict(dict)
        for *context, token, count in content["grams"]:
            counts[tuple(context)][token] = count
        return cls(content["order"], counts)
