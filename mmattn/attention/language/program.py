"""The program: a score, a mask and a norm; or other programs for other heads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from mmattn.attention.language import serialization
from mmattn.attention.language.head_range import DEFAULT_HEADS, PlotRow, describe_heads
from mmattn.attention.language.norms import Norm, Softmax
from mmattn.attention.language.parameters import ParameterSpec, collect_parameter_specs
from mmattn.attention.language.position_masks import full
from mmattn.attention.language.scores import BaseScore, Chain, Dot
from mmattn.attention.language.term import Term, register_term
from mmattn.errors import InputError
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.language.mask_algebra import Mask

__all__ = ["Heads", "Program", "heads", "parse"]


class _ProgramBase(Term):
    """What a program can do as a value."""

    kind: ClassVar[str] = "program"

    def to_json(self) -> str:
        """The program as JSON text with a version; `Program.from_json` reads it back."""
        return serialization.to_json(self)

    @staticmethod
    def from_json(text: str) -> Any:
        """The program that `to_json` wrote.

        Raises:
            InputError: not JSON, a newer version, a word that is not known, wrong arguments, or terms
                nested deeper than any program is.
        """
        return serialization.from_json(text)

    def fingerprint(self) -> str:
        """SHA-256 of what the program says: equal programs, and only those, share it."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _parameter_specs(self) -> tuple[ParameterSpec, ...]:
        own_terms = (term for term in self.walk() if not isinstance(term, _ProgramBase))
        return tuple(collect_parameter_specs(own_terms).values())

    def parameters(self) -> tuple[ParameterSpec, ...]:
        """The parameters that a layer running this program owns, collected once."""
        return self._parameter_specs

    def describe(self) -> str:
        """What the program does, in words."""
        raise NotImplementedError

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        tokens: Tokens | None = None,
        kv: Tokens | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> str:
        """Draw the mask, and beside it what each bias adds, a row for every program of the heads.

        Args:
            path: a `.svg` or `.png` file to write; left out, nothing is written.
            tokens: whose first sample is drawn as queries; left out, a small scene that fits the program.
            kv: whose first sample is drawn as keys; left out, the queries' own.
            parameters: learned parameters by name, as `layer.program_parameters()`; left out, as they
                start. Biases that start at zero are drawn with 1, 2, 3, ... for their entries: pairs of one
                colour share one number.
            context: edges and boxes, as in a call of the layer; left out, an edge from every entity to
                the next and boxes in rows of three.

        Returns:
            The picture as SVG text ("" where a PNG was written).

        Raises:
            InputError: the path ends in something else, or the tokens or the context do not fit.

        Example:
            >>> from mmattn import attention as A
            >>> "</svg>" in A.Program(A.dot() >> A.alibi, A.causal).plot()
            True
        """
        # The picture runs a program on a small batch: the language itself knows nothing of running.
        from mmattn.attention.visualize.plot import plot_program

        parts = self._plot_rows()
        return plot_program(self, parts, self.describe(), path, tokens, kv, parameters, context)

    def _plot_rows(self) -> list[PlotRow]:
        """The rows of the picture."""
        raise NotImplementedError


@register_term
@dataclass(frozen=True, repr=False)
class Program(_ProgramBase):
    """An attention pattern as a value: it can be compared, hashed, printed, stored and sent.

    Args:
        score: how a query and a key match, for example `dot() >> modality_bias("pair")`.
        mask: which keys a query may attend to, for example `causal & window(64)`.
        norm: how scores become weights, for example `softmax()`.

    Raises:
        InputError: an argument is not a term of that kind, or two terms use one name differently.

    Example:
        >>> from mmattn import attention as A
        >>> program = A.Program(score=A.dot() >> A.softcap(30.0), mask=A.causal & A.window(64))
        >>> print(program)
        Program(score=dot() >> softcap(30.0), mask=causal & window(64), norm=softmax())
        >>> A.parse(str(program)) == program == A.Program.from_json(program.to_json())
        True
    """

    score: Chain | BaseScore = Dot()  # noqa: RUF009
    mask: Mask = full
    norm: Norm = Softmax()  # noqa: RUF009

    term_name: ClassVar[str] = "Program"

    def __post_init__(self) -> None:
        if isinstance(self.score, BaseScore):
            object.__setattr__(self, "score", Chain((self.score,)))
        self._check_term("score", "score")
        self._check_term("mask", "mask")
        self._check_term("norm", "norm")
        self._check_depth()
        self.parameters()

    @cached_property
    def _hash(self) -> int:
        # A layer looks its plan up by the program at every call.
        return hash((self.score, self.mask, self.norm))

    def __hash__(self) -> int:
        return self._hash

    def _formatted_arguments(self) -> Iterator[str]:
        return (f"{name}={getattr(self, name)}" for name in ("score", "mask", "norm"))

    @property
    def chain(self) -> Chain:
        """The score, which is always a chain."""
        return self.score  # type: ignore[return-value]

    def describe(self) -> str:
        """What the program does, in words.

        Example:
            >>> from mmattn import attention as A
            >>> A.Program(mask=A.window(3)).describe()
            'Score: dot product. Keys: keys at most 3 positions away. Weights: softmax over the keys.'
        """
        return (
            f"Score: {self.score.describe()}. Keys: {self.mask.describe()}. Weights: {self.norm.describe()}."
        )

    def _plot_rows(self, first: int = 0, last: int = DEFAULT_HEADS) -> list[PlotRow]:
        return [PlotRow(first, last, self.chain, self.mask, self.parameters())]


@register_term
@dataclass(frozen=True, repr=False)
class Heads(_ProgramBase):
    """Other programs for other heads.

    Args:
        parts: `{(first, last + 1): program, ...}`; the ranges cover all heads without overlap.

    Example:
        >>> from mmattn import attention as A
        >>> hybrid = A.heads({(0, 6): A.Program(mask=A.window(64)), (6, 8): A.Program()})
        >>> hybrid.num_heads
        8
    """

    parts: tuple[tuple[int, int, Program], ...]

    term_name: ClassVar[str] = "heads"

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", _sorted_parts(self.parts))
        self.parameters()

    def _formatted_arguments(self) -> Iterator[str]:
        yield f"{{{', '.join(f'({first}, {last}): {part}' for first, last, part in self.parts)}}}"

    @property
    def num_heads(self) -> int:
        """The number of heads that the ranges cover."""
        return self.parts[-1][1]

    def describe(self) -> str:
        return "\n".join(
            f"{describe_heads(first, last).capitalize()}: {part.describe()}"
            for first, last, part in self.parts
        )

    def _plot_rows(self) -> list[PlotRow]:
        return [drawn for first, last, part in self.parts for drawn in part._plot_rows(first, last)]


def heads(parts: Mapping[tuple[int, int], Program]) -> Heads:
    """See `Heads`.

    Args:
        parts: first head and last head + 1 -> program of these heads.
    """
    return Heads(_sorted_parts(parts))


def parse(text: str) -> Program | Heads:
    """The program that `str(program)` wrote, read through `ast` against the words of the language.

    Args:
        text: for example `Program(mask=causal & window(64))`; a leading `A.` before a word is allowed.

    Raises:
        InputError: with the expression, a caret under the place, and what was expected there.

    Example:
        >>> from mmattn import attention as A
        >>> A.parse("Program(mask=causal & window(-1))")
        Traceback (most recent call last):
        ...
        mmattn.errors.InputError: window(n): got -1, expected a whole number from 0
          Program(mask=causal & window(-1))
                                ^
    """
    result: Program | Heads = serialization.from_text(text)
    return result


def _sorted_parts(parts: Any) -> tuple[tuple[int, int, Program], ...]:
    """Any spelling of head ranges as sorted triples that cover 0 to H without gap or overlap."""
    example = "{(0, 4): Program(...), (4, 8): Program(...)}"
    try:
        triples = (
            [(*heads, part) for heads, part in parts.items()]
            if isinstance(parts, Mapping)
            else [tuple(part) for part in parts]
        )
        triples = [(first, last, part) for first, last, part in triples]
    except (TypeError, ValueError):
        raise InputError(f"heads: got {parts!r}, expected {example}") from None
    if not triples:
        raise InputError(f"heads: got no ranges, expected {example}")
    for first, last, part in triples:
        if type(first) is not int or type(last) is not int or not 0 <= first < last:
            raise InputError(
                f"heads: got the range ({first!r}, {last!r}), expected whole numbers 0 <= first < last"
            )
        if not isinstance(part, Program):
            raise InputError(f"heads: got {part!r} for ({first}, {last}), expected a Program")
    triples.sort(key=lambda triple: triple[:2])
    end = 0
    for first, last, _ in triples:
        if first != end:
            what = "overlap" if first < end else "leave a gap"
            raise InputError(
                f"heads: the ranges {what} at head {min(first, end)}: ({first}, {last}) follows {end}"
            )
        end = last
    return tuple(triples)
