"""Numbers that are not fixed: learned ones, and ones that depend on the task or on the sample.

A program holds names and starting values only; the layer owns the tensors. Both kinds of number are
`start * exp(theta)` with `theta` starting at zero: the program begins exactly as it is written, and a
temperature can neither reach zero nor change its sign while it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from mmattn.attention.language.term import Term, register_term
from mmattn.errors import InputError

__all__ = [
    "Dynamic",
    "Learned",
    "Number",
    "ParameterSpec",
    "check_number",
    "collect_parameter_specs",
    "dynamic",
    "learned",
]


@dataclass(frozen=True)
class ParameterSpec:
    """A parameter that a term asks its layer for.

    Args:
        name: the term's name, under which `program_parameters()` lists it.
        shape: without the leading H. Strings stand for sizes that only the layer knows: "K" the head's
            width, "D" the tokens' width, "M" the number of modalities.
        init: "zero", "identity", "random" (scaled by 1 / sqrt(fan in)) or a number.
    """

    name: str
    shape: tuple[int | str, ...] = ()
    init: str | float = "zero"


@register_term
@dataclass(frozen=True, repr=False)
class Learned(Term):
    """A number a head that is trained; it starts at `init`.

    Example:
        >>> from mmattn import attention as A
        >>> str(A.softcap(A.learned("cap", 30.0)))
        'softcap(learned("cap", 30.0))'
    """

    name: str
    start: float

    term_name: ClassVar[str] = "learned"
    kind: ClassVar[str] = "number"

    def __post_init__(self) -> None:
        self._check_name("name")
        self._check_float("start")

    def describe(self) -> str:
        return f"a learned number a head ({self.name!r}, from {self.start:g})"

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name),)


@register_term
@dataclass(frozen=True, repr=False)
class Dynamic(Term):
    """A number a head and sample, predicted from the task or from a summary of the sample.

    `on="task"` reads `context["task"]`, [B, D] or [D]; `on="input"` the mean of the sample's query
    tokens. The prediction starts at `init` for every sample.

    Example:
        >>> from mmattn import attention as A
        >>> print(A.temperature(A.dynamic("t", on="task")).describe())
        divided by a number predicted from the task ('t', from 1)
    """

    name: str
    on: str = "input"
    start: float = 1.0

    term_name: ClassVar[str] = "dynamic"
    kind: ClassVar[str] = "number"

    def __post_init__(self) -> None:
        self._check_name("name")
        self._check_float("start")
        if self.on not in ("task", "input"):
            raise self._argument_error("on", '"task" or "input"')

    def describe(self) -> str:
        return f"a number predicted from the {self.on} ({self.name!r}, from {self.start:g})"

    def parameters(self) -> tuple[ParameterSpec, ...]:
        return (ParameterSpec(self.name, ("D",)),)


learned = Learned
dynamic = Dynamic

Number = float | Learned | Dynamic


def check_number(term: Term, argument: str) -> None:
    """A number above 0, learned or dynamic; whole numbers become floats.

    Args:
        term: term with the argument.
        argument: its name.

    Raises:
        InputError: the number is not above 0.
    """
    if not isinstance(getattr(term, argument), (Learned, Dynamic)):
        term._check_float(argument)


def describe_number(value: Number) -> str:
    """The number in plain English.

    Args:
        value: constant, learned or dynamic number.
    """
    return value.describe() if isinstance(value, Term) else f"{value:g}"


def collect_parameter_specs(terms: Iterable[Term]) -> dict[str, ParameterSpec]:
    """The parameters that the terms ask for, by name. Terms that agree on a name and a shape share it.

    Args:
        terms: terms of a program.

    Raises:
        InputError: one name for two parameters of other shapes.
        InputError: two terms give one name to parameters of different shapes.
    """
    specs: dict[str, ParameterSpec] = {}
    for term in terms:
        for spec in getattr(term, "parameters", tuple)():
            known = specs.setdefault(spec.name, spec)
            if known != spec:
                raise InputError(
                    f"attention program: the name {spec.name!r} stands for two parameters, {known.shape} "
                    f"and {spec.shape}, expected one name each"
                )
    return specs
