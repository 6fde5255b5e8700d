"""What every word of the language is: an immutable value that prints, hashes and turns into JSON.

A term is a frozen dataclass that names its word. Its fields are its arguments: numbers, names, other
terms. It holds no tensors, so it can be compared, stored and sent; what it does to scores stands in
`allow`, `bias`, `change` or `weigh` of its kind (masks.py, biases.py, scores.py, norms.py).
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterator
from dataclasses import MISSING, fields
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, TypeVar

from mmattn.errors import InputError

__all__ = ["MAX_DEPTH", "NullaryTerm", "Term", "format_argument", "register_term", "registered_terms"]

# Deep enough for anything a person writes; shallow enough that every recursion over a program is safe.
MAX_DEPTH = 64

_REGISTERED_TERMS: dict[str, type[Term]] = {}


class Term:
    """Base of all words. Subclasses are frozen dataclasses with `term_name` and `kind`."""

    term_name: ClassVar[str] = ""
    kind: ClassVar[str] = ""

    def __str__(self) -> str:
        return f"{self.term_name}({', '.join(self._formatted_arguments())})"

    def __repr__(self) -> str:
        return str(self)

    def describe(self) -> str:
        """The term in plain English, a phrase."""
        return str(self)

    def named_modalities(self) -> tuple[str, ...]:
        """The modalities that this term itself names."""
        return ()

    def children(self) -> Iterator[Term]:
        """The terms directly inside this one."""
        for item in fields(self):  # type: ignore[arg-type]
            yield from _terms_in(getattr(self, item.name))

    @cached_property
    def _descendants(self) -> tuple[Term, ...]:
        # Terms do not change, and a layer asks for them at every call.
        return tuple(term for child in self.children() for term in (child, *child._descendants))

    def walk(self) -> Iterator[Term]:
        """Iterate over this term and every term below it."""
        return chain((self,), self._descendants)

    def __getstate__(self) -> dict[str, Any]:
        # Fields only: what is derived, such as the hash of a text, differs from process to process.
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; arguments that stand at their default are left out."""
        arguments = {
            item.name: _to_json(value)
            for item in fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, item.name)) != item.default or item.default is MISSING
        }
        return {"term": self.term_name, **arguments}

    def _formatted_arguments(self) -> Iterator[str]:
        """Required arguments by place, the others by name where they differ from their default."""
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            if item.default is MISSING:
                yield format_argument(value)
            elif value != item.default:
                yield f"{item.name}={format_argument(value)}"

    def _check_depth(self) -> None:
        if (depth := _depth(self)) > MAX_DEPTH:
            raise InputError(f"{self.term_name}: got terms nested {depth} deep, expected at most {MAX_DEPTH}")

    # --- argument checks, for the subclasses ------------------------------------------------------

    def _argument_error(self, argument: str, expected: str) -> InputError:
        got = getattr(self, argument)
        return InputError(f"{self.term_name}({argument}): got {got!r}, expected {expected}")

    def _check_integer(self, argument: str, minimum: int) -> None:
        value = getattr(self, argument)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < minimum:
            raise self._argument_error(argument, f"a whole number from {minimum}")
        object.__setattr__(self, argument, int(value))

    def _check_float(self, argument: str, positive: bool = True) -> None:
        value = getattr(self, argument)
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise self._argument_error(argument, "a finite number")
        if positive and value <= 0:
            raise self._argument_error(argument, "a number above 0")
        object.__setattr__(self, argument, float(value))

    def _check_name(self, argument: str) -> None:
        value = getattr(self, argument)
        # A name becomes a key of the layer's state dict, where a dot would open a new level.
        if not isinstance(value, str) or not value or not value.isprintable() or "." in value:
            raise self._argument_error(argument, "a printable name without dots")

    def _check_term(self, argument: str, kind: str) -> None:
        value = getattr(self, argument)
        if not isinstance(value, Term) or value.kind != kind:
            raise self._argument_error(argument, f"a {kind} such as {_EXAMPLES[kind]}")


class NullaryTerm(Term):
    """A word that needs no argument: `causal` and `causal()` are the same value."""

    def __str__(self) -> str:
        arguments = ", ".join(self._formatted_arguments())
        return f"{self.term_name}({arguments})" if arguments else self.term_name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return type(self)(*arguments, **named)


T = TypeVar("T", bound=type[Term])


def register_term(cls: T) -> T:
    """Enter a term into the vocabulary, under which JSON and `parse` find it.

    Args:
        cls: frozen dataclass with a `term_name`.

    Raises:
        InputError: the name is taken.
    """
    if cls.term_name in _REGISTERED_TERMS:
        raise InputError(
            f"attention language: the word {cls.term_name!r} is taken by {_REGISTERED_TERMS[cls.term_name]}"
        )
    _REGISTERED_TERMS[cls.term_name] = cls
    return cls


def registered_terms() -> dict[str, type[Term]]:
    """Every word that is known now, by name."""
    return dict(_REGISTERED_TERMS)


_EXAMPLES = {
    "mask": "window(64)",
    "score": "dot()",
    "norm": "softmax()",
    "program": "Program()",
    "change": "softcap(30.0)",
}


def _terms_in(value: Any) -> Iterator[Term]:
    if isinstance(value, Term):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _terms_in(part)


def _depth(term: Term) -> int:
    """Depth of a term; each child was already checked, so this recursion is shallow."""
    return 1 + max((_depth(child) for child in term.children()), default=0)


def _to_json(value: Any) -> Any:
    if isinstance(value, Term):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_to_json(part) for part in value]
    return value


def format_argument(value: Any) -> str:
    """An argument as it stands in a program's text.

    Args:
        value: of a term's argument.
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"[{', '.join(format_argument(part) for part in value)}]"
    return str(value) if isinstance(value, Term) else repr(value)
