"""Which backend runs a program, and why not the others. The choice never depends on luck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmattn.attention.backends import BACKENDS, Backend, Conditions, Estimate
from mmattn.attention.language.position_masks import Full
from mmattn.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout
    from mmattn.attention.language.program import Program

__all__ = ["Plan", "ProgramPlan", "backends", "get_backend", "plan_program", "select_backend"]


@dataclass(frozen=True)
class ProgramPlan:
    """How one program of a layer runs.

    Args:
        heads: first and last + 1.
        backend: the chosen backend's name.
        reason: why this one.
        density: pairs that it scores, as a share of the pairs of one sample: below 1 where the mask lets
            it leave blocks out, above 1 with padding.
        unsupported: backend -> why it cannot run this.
        estimates: backend -> what it would cost, of those that can.
    """

    heads: tuple[int, int]
    backend: str
    reason: str
    density: float
    unsupported: dict[str, str]
    estimates: dict[str, Estimate]

    @property
    def seconds(self) -> float:
        """Estimated cost of the chosen backend."""
        return self.estimates[self.backend].seconds

    def __str__(self) -> str:
        first, last = self.heads
        heads = f"head {first}" if last == first + 1 else f"heads {first} to {last - 1}"
        lines = [f"{heads}: {self.backend} ({self.reason}), scores {_format_density(self.density)}"]
        lines += [
            f"  {name}: able, estimated {_format_milliseconds(estimate)}, scores "
            f"{_format_density(estimate.density)}"
            for name, estimate in self.estimates.items()
            if name != self.backend
        ]
        lines += [f"  {name}: refused, {why}" for name, why in self.unsupported.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """How a layer's program runs over some tokens; `str(plan)` tells it."""

    parts: tuple[ProgramPlan, ...]

    @property
    def backend(self) -> str:
        """The backend's name; several are joined with " + "."""
        return " + ".join(dict.fromkeys(part.backend for part in self.parts))

    @property
    def seconds(self) -> float:
        """Estimated cost, without the projections."""
        return sum(part.seconds for part in self.parts)

    def __iter__(self) -> Iterator[ProgramPlan]:
        return iter(self.parts)

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))


def backends() -> tuple[str, ...]:
    """Names of all backends. "reference" is always there."""
    return tuple(backend.name for backend in BACKENDS)


def get_backend(name: str) -> Backend:
    """Return the backend of a name.

    Args:
        name: of the backend.

    Raises:
        InputError: no backend of that name.
    """
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise InputError(f"attention: no backend {name!r}.{did_you_mean(name, backends())}")


def select_backend(
    program: Program,
    layout: Layout,
    conditions: Conditions,
    context_tensors: ContextTensors,
    requested: str = "auto",
) -> Backend:
    """The backend for this program on these tokens, chosen once a layout.

    Args:
        program: program of the heads.
        layout: layout of queries and keys.
        conditions: device, dtype and what is needed of the result.
        context_tensors: what the context gives.
        requested: "auto" for the cheapest able one, or the name of the one that has to run.

    Raises:
        InputError: the wanted backend cannot run this; the message says why and names those that can.
    """
    if context_tensors.present is not None:  # other pairs may be left out at every call
        return _select_backend(program, layout, conditions, context_tensors, requested)
    alike = isinstance(program.mask, Full) and not context_tensors.edges
    cache = layout.cache_by_length if alike else layout.cache
    key = ("backend", program, conditions, requested, *context_tensors.edges.values())
    if key not in cache:
        cache[key] = _select_backend(program, layout, conditions, context_tensors, requested)
    result: Backend = cache[key]
    return result


def _select_backend(
    program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors, requested: str
) -> Backend:
    program.mask.check_modalities(layout.query.modalities, layout.key.modalities)
    refused = _unsupported_reasons(program, layout, conditions, context_tensors)
    if requested in refused:
        names = ", ".join(name for name in backends() if name not in refused)
        raise InputError(
            f"attention: the backend {requested!r} cannot run this: {refused[requested]}; able: {names}"
        )
    if requested != "auto":
        return get_backend(requested)
    able = {backend.name: backend for backend in BACKENDS if backend.name not in refused}
    candidates = [backend for backend in able.values() if not backend.dominated_by & able.keys()]
    if len(candidates) == 1:
        return candidates[0]
    return min(
        candidates, key=lambda backend: backend.estimate(program, layout, conditions, context_tensors).seconds
    )


def plan_program(
    program: Program,
    layout: Layout,
    conditions: Conditions,
    context_tensors: ContextTensors,
    requested: str,
    heads: tuple[int, int],
) -> ProgramPlan:
    """Plan one program: the backend that `select_backend` chooses, its cost, and why the others do not run.

    Args:
        program: program of the heads.
        layout: layout of queries and keys.
        conditions: device, dtype and what is needed of the result.
        context_tensors: what the context gives.
        requested: "auto", or the name of the backend that has to run.
        heads: first head and last head + 1.

    Raises:
        InputError: as in `select_backend`.
    """
    name = select_backend(program, layout, conditions, context_tensors, requested).name
    refused = _unsupported_reasons(program, layout, conditions, context_tensors)
    estimates = {
        backend.name: backend.estimate(program, layout, conditions, context_tensors)
        for backend in BACKENDS
        if backend.name not in refused
    }
    reason = "asked for"
    if requested == "auto":
        reason = f"cheapest of {len(estimates)}, estimated {_format_milliseconds(estimates[name])}"
    return ProgramPlan(heads, name, reason, estimates[name].density, refused, estimates)


def _unsupported_reasons(
    program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
) -> dict[str, str]:
    """Backend -> why it cannot run this."""
    reasons = {
        backend.name: backend.unsupported_reason(program, layout, conditions, context_tensors)
        for backend in BACKENDS
    }
    return {name: why for name, why in reasons.items() if why is not None}


def _format_density(density: float) -> str:
    """How many pairs are scored, beside those of one sample."""
    if density <= 1:
        return f"{density:.0%} of the pairs"
    return f"all pairs and {density - 1:.0%} more, of padding or of samples that share a row"


def _format_milliseconds(estimate: Estimate) -> str:
    return f"{estimate.seconds * 1e3:.3g} ms"
