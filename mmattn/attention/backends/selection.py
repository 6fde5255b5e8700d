"""Which backend runs a program, and why not the others. The choice never depends on luck."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmattn.attention.backends import BACKENDS, Backend, Conditions, Estimate
from mmattn.attention.execution.context_tensors import Extras
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.position_masks import Full
from mmattn.attention.language.program import Program
from mmattn.errors import InputError, nearest

__all__ = ["PartPlan", "Plan", "backends", "choose", "find", "plan_part"]


@dataclass(frozen=True)
class PartPlan:
    """How one program of a layer runs.

    Args:
        heads: first and last + 1.
        backend: the chosen backend's name.
        reason: why this one.
        density: pairs that it scores, as a share of the pairs of one sample: below 1 where the mask lets
            it leave blocks out, above 1 with padding.
        refused: backend -> why it cannot run this.
        estimates: backend -> what it would cost, of those that can.
    """

    heads: tuple[int, int]
    backend: str
    reason: str
    density: float
    refused: dict[str, str]
    estimates: dict[str, Estimate]

    @property
    def seconds(self) -> float:
        """Estimated cost of the chosen backend."""
        return self.estimates[self.backend].seconds

    def __str__(self) -> str:
        first, last = self.heads
        heads = f"head {first}" if last == first + 1 else f"heads {first} to {last - 1}"
        lines = [f"{heads}: {self.backend} ({self.reason}), scores {_share(self.density)}"]
        lines += [
            f"  {name}: able, estimated {_milliseconds(estimate)}, scores {_share(estimate.density)}"
            for name, estimate in self.estimates.items()
            if name != self.backend
        ]
        lines += [f"  {name}: refused, {why}" for name, why in self.refused.items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """How a layer's program runs over some tokens; `str(plan)` tells it."""

    parts: tuple[PartPlan, ...]

    @property
    def backend(self) -> str:
        """The backend's name; several are joined with " + "."""
        return " + ".join(dict.fromkeys(part.backend for part in self.parts))

    @property
    def seconds(self) -> float:
        """Estimated cost, without the projections."""
        return sum(part.seconds for part in self.parts)

    def __iter__(self) -> Iterator[PartPlan]:
        return iter(self.parts)

    def __str__(self) -> str:
        return "\n".join(map(str, self.parts))


def backends() -> tuple[str, ...]:
    """Names of all backends. "reference" is always there."""
    return tuple(backend.name for backend in BACKENDS)


def find(name: str) -> Backend:
    """The backend of that name."""
    for backend in BACKENDS:
        if backend.name == name:
            return backend
    raise InputError(f"attention: no backend {name!r}.{nearest(name, backends())}")


def choose(
    program: Program, layout: Layout, conditions: Conditions, extras: Extras, wanted: str = "auto"
) -> Backend:
    """The backend for this program on these tokens, chosen once a layout.

    Args:
        extras: what the context gives.
        wanted: "auto" for the cheapest able one, or the name of the one that has to run.

    Raises:
        InputError: the wanted backend cannot run this; the message says why and names those that can.
    """
    if extras.present is not None:  # other pairs may be left out at every call
        return _choose(program, layout, conditions, extras, wanted)
    alike = isinstance(program.mask, Full) and not extras.edges
    cache = layout.by_length if alike else layout.cache
    key = ("backend", program, conditions, wanted, *extras.edges.values())
    if key not in cache:
        cache[key] = _choose(program, layout, conditions, extras, wanted)
    return cache[key]


def _choose(program: Program, layout: Layout, conditions: Conditions, extras: Extras, wanted: str) -> Backend:
    program.mask.check(layout.query.modalities, layout.key.modalities)
    refused = _refusals(program, layout, conditions, extras)
    if wanted in refused:
        names = ", ".join(name for name in backends() if name not in refused)
        raise InputError(
            f"attention: the backend {wanted!r} cannot run this: {refused[wanted]}; able: {names}"
        )
    if wanted != "auto":
        return find(wanted)
    able = {backend.name: backend for backend in BACKENDS if backend.name not in refused}
    candidates = [backend for backend in able.values() if not backend.beaten_by & able.keys()]
    if len(candidates) == 1:
        return candidates[0]
    return min(candidates, key=lambda backend: backend.estimate(program, layout, conditions, extras).seconds)


def plan_part(
    program: Program,
    layout: Layout,
    conditions: Conditions,
    extras: Extras,
    wanted: str,
    heads: tuple[int, int],
) -> PartPlan:
    """What `choose` chooses, and all that can be said about it.

    Raises:
        InputError: as in `choose`.
    """
    name = choose(program, layout, conditions, extras, wanted).name
    refused = _refusals(program, layout, conditions, extras)
    estimates = {
        backend.name: backend.estimate(program, layout, conditions, extras)
        for backend in BACKENDS
        if backend.name not in refused
    }
    reason = "asked for"
    if wanted == "auto":
        reason = f"cheapest of {len(estimates)}, estimated {_milliseconds(estimates[name])}"
    return PartPlan(heads, name, reason, estimates[name].density, refused, estimates)


def _refusals(program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> dict[str, str]:
    """Backend -> why it cannot run this."""
    reasons = {backend.name: backend.refuses(program, layout, conditions, extras) for backend in BACKENDS}
    return {name: why for name, why in reasons.items() if why is not None}


def _share(density: float) -> str:
    """How many pairs are scored, beside those of one sample."""
    if density <= 1:
        return f"{density:.0%} of the pairs"
    return f"all pairs and {density - 1:.0%} more, of padding or of samples that share a row"


def _milliseconds(estimate: Estimate) -> str:
    return f"{estimate.seconds * 1e3:.3g} ms"
