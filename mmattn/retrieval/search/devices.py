"""Where an index searches: on the CPU, or on a GPU that has room for its vectors. Chosen, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmattn.errors import InputError

__all__ = ["Placement", "free_memory", "place"]

_SMALL = 2**20  # numbers: fewer are searched on the CPU before a GPU has been told what to do
_SCRATCH = 2**31  # bytes that a search takes beside the vectors, at most
_MB = 2**20


@dataclass(frozen=True)
class Placement:
    """A device and why it was taken; `str(placement)` is a line for people."""

    device: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}: {self.reason}"


def free_memory() -> list[int]:
    """Free bytes of each CUDA device, in their order; none where torch sees none."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]


def place(asked: str, count: int, dim: int, free: Sequence[int] | None = None) -> Placement:
    """Where `count` vectors of width `dim` are searched.

    Args:
        asked: "auto" (a GPU where one has room and the vectors are many), "cpu", "cuda" (the one with the
            most free memory) or "cuda:1".
        count: vectors.
        dim: numbers of each, in float32.
        free: free bytes of each CUDA device; left out, what torch says.

    Raises:
        InputError: no such device, or no room on the one that was asked for.

    Example:
        >>> str(place("auto", 1_000_000, 64, free=[]))
        'cpu: there is no CUDA device'
        >>> place("auto", 1_000_000, 64, free=[2**30, 2**33]).device
        'cuda:1'
    """
    if asked == "cpu":
        return Placement("cpu", "as asked")
    free = free_memory() if free is None else free
    names = [f"cuda:{number}" for number in range(len(free))]
    if asked not in ("auto", "cuda", *names):
        raise InputError(f"index: no device {asked!r}, expected one of {', '.join(('auto', 'cpu', *names))}")
    if not free:
        if asked == "auto":
            return Placement("cpu", "there is no CUDA device")
        raise InputError(f"index: got device {asked!r}, but torch sees no CUDA device; expected auto or cpu")
    number = names.index(asked) if asked in names else max(range(len(free)), key=lambda each: free[each])
    if asked == "auto" and count * dim < _SMALL:
        return Placement("cpu", f"only {count:,} vectors, which a GPU finds no sooner")
    needed = 4 * count * dim + _SCRATCH
    room = f"the search needs {needed // _MB:,} MB and {names[number]} has {free[number] // _MB:,} MB free"
    if needed <= free[number]:
        return Placement(names[number], room if asked == "auto" else "as asked")
    if asked == "auto":
        return Placement("cpu", room)
    raise InputError(f"index: got device {asked!r}, but {room}; expected auto or cpu")
