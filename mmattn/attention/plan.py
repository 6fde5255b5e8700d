"""Which backend runs a program, and why not the others. The choice never depends on luck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmattn.attention.backends import BACKENDS, Backend, Conditions, Estimate
from mmattn.attention.layout import Layout
from mmattn.attention.program import Program
from mmattn.errors import InputError, nearest

__all__ = ["PartPlan", "Plan", "backends", "choose"]

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class PartPlan:
    """How one program of a layer runs.

    Args:
        heads: first and last + 1.
        backend: the chosen backend's name.
        reason: why this one.
        density: pairs that it scores, as a share of the pairs of one sample.
        refused: backend -> why it cannot run this.
        estimates: backend -> what it would cost, of those that can.
    """

    heads: tuple[int, int]
    backend: str
    reason: str
    density: float
    refused: dict[str, str]
    estimates: dict[str, Estimate]

    def __str__(self) -> str:
        first, last = self.heads
        lines = [
            f"heads {first} to {last - 1}: {self.backend} ({self.reason}), {self.density:.0%} of the pairs"
        ]
        lines += [
            f"  {name}: able, estimated {estimate.seconds * 1e3:.3g} ms, scoring {estimate.density:.0%}"
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
    program: Program, layout: Layout, conditions: Conditions, wanted: str = "auto"
) -> tuple[Backend, PartPlan]:
    """The backend for this program on these tokens, chosen once a layout.

    Args:
        wanted: "auto" for the cheapest able one, or the name of the one that has to run.

    Raises:
        InputError: the wanted backend cannot run this; the message says why and names those that can.
    """
    key = (program, conditions, wanted)
    if key not in layout.cache:
        layout.cache[key] = _choose(program, layout, conditions, wanted)
    return layout.cache[key]


def _choose(
    program: Program, layout: Layout, conditions: Conditions, wanted: str
) -> tuple[Backend, PartPlan]:
    program.mask.check(layout.query.modalities, layout.key.modalities)
    refused: dict[str, str] = {}
    estimates: dict[str, Estimate] = {}
    for backend in BACKENDS:
        if (why := backend.refuses(program, layout, conditions)) is not None:
            refused[backend.name] = why
        else:
            estimates[backend.name] = backend.estimate(program, layout, conditions)
    if wanted == "auto":
        name = min(estimates, key=lambda name: estimates[name].seconds)
        reason = f"cheapest of {len(estimates)}, estimated {estimates[name].seconds * 1e3:.3g} ms"
    else:
        name, reason = find(wanted).name, "asked for"
        if name in refused:
            raise InputError(
                f"attention: the backend {name!r} cannot run this: {refused[name]}; "
                f"able: {', '.join(estimates)}"
            )
    density = estimates[name].density
    return find(name), PartPlan((0, conditions.heads), name, reason, density, refused, estimates)
