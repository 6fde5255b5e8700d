"""Words of one's own: a mask or a score as a pure function, under a name.

The function is the term's eager form, and the reference runs it as it stands. A program that uses the
word can be printed, parsed and stored like any other; where the word is missing, loading says how to
get it.
"""

from __future__ import annotations

import dataclasses
import inspect
import keyword
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmattn.attention.language.mask_algebra import Mask
from mmattn.attention.language.scores import ScoreModifier
from mmattn.attention.language.serialization import missing_extension_message
from mmattn.attention.language.term import NullaryTerm, Term, register_term, registered_terms
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = ["Extension", "register_mask", "register_score"]


class Extension(Term):
    """Base of the terms that were registered. `install` is the command that brings the word."""

    install: str = ""
    function: Callable[..., Tensor]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "extension": self.install}

    def arguments(self) -> dict[str, Any]:
        """The term's arguments by name."""
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:  # the class is made at run time: pickle finds it by its word
        return _unpickle, (self.term_name, self.install, self.arguments())


class _MaskExtension(Extension, Mask):
    def allow(self, pairs: Pairs) -> Tensor:
        return type(self).function(pairs, **self.arguments())


class _ScoreExtension(Extension, ScoreModifier):
    def modify(self, score: Tensor, pairs: Pairs) -> Tensor:
        return type(self).function(score, pairs, **self.arguments())


def register_mask(name: str, function: Callable[..., Tensor], install: str = "") -> Any:
    """Add a mask to the language.

    Args:
        name: the word.
        function: `function(pairs, ...) -> boolean tensor [..., Q, K]`, from `pairs.query` and `pairs.key`
            (see `pairs.Fields`) without side effects. Its further parameters become the word's arguments.
        install: the command that installs the package that registers the word.

    Returns:
        What to write in programs.

    Raises:
        InputError: the name is taken or no identifier, or the function takes no `pairs`.

    Example:
        >>> from mmattn import attention as A
        >>> every_other = A.register_mask(
        ...     "every_other", lambda pairs: (pairs.query.position - pairs.key.position) % 2 == 0
        ... )
        >>> print(A.Program(mask=every_other & A.causal).mask)
        every_other & causal
    """
    return _register(name, function, install, _MaskExtension, num_leading=1)


def register_score(name: str, function: Callable[..., Tensor], install: str = "") -> Any:
    """Add a change of the scores to the language, to be written after `>>`.

    Args:
        name: the word.
        function: `function(score, pairs, ...) -> score`, [..., H, Q, K], differentiable and without side
            effects. Its further parameters become the word's arguments.
        install: the command that installs the package that registers the word.

    Returns:
        What to write in programs.

    Raises:
        InputError: the name is taken or no identifier, or the function does not take score and pairs.

    Example:
        >>> from mmattn import attention as A
        >>> shift = A.register_score("shift", lambda score, pairs, by: score + by)
        >>> print(A.dot() >> shift(0.5))
        dot() >> shift(0.5)
    """
    return _register(name, function, install, _ScoreExtension, num_leading=2)


def _register(
    name: str, function: Callable[..., Tensor], install: str, base_class: type, num_leading: int
) -> Any:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(f"attention language: got the word {name!r}, expected an identifier")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < num_leading:
        raise InputError(
            f"attention language: {name!r} takes {len(parameters)} arguments, expected {num_leading} or more"
        )
    arguments = parameters[num_leading:]
    fields = [
        (item.name, Any)
        if item.default is item.empty
        else (item.name, Any, dataclasses.field(default=item.default))
        for item in arguments
    ]
    needs_nothing = all(item.default is not item.empty for item in arguments)
    cls = dataclasses.make_dataclass(
        name,
        fields,
        bases=(NullaryTerm, base_class) if needs_nothing else (base_class,),
        namespace={"term_name": name, "install": install, "function": staticmethod(function)},
        frozen=True,
        repr=False,
    )
    register_term(cls)
    return cls() if needs_nothing else cls


def _unpickle(name: str, install: str, arguments: dict[str, Any]) -> Term:
    if name not in registered_terms():
        raise InputError(missing_extension_message(name, install))
    return registered_terms()[name](**arguments)
