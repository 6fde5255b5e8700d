"""Choice of the search device: the CPU, or a GPU with enough free memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mmattn.errors import InputError

__all__ = ["Placement", "choose_placement", "free_gpu_memory"]

_MIN_GPU_NUMBERS = 2**20  # values in the vectors; below, the CPU is faster than the launch of a GPU kernel
_SCRATCH_BYTES = 2**31  # most bytes that a search needs in addition to the vectors
_MB = 2**20


@dataclass(frozen=True)
class Placement:
    """A search device and why it was chosen; `str(placement)` is one line for display.

    Args:
        device: "cpu" or for example "cuda:0".
        reason: why it was chosen.
    """

    device: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}: {self.reason}"


def free_gpu_memory() -> list[int]:
    """Free bytes of each CUDA device, by device number; empty if torch sees no CUDA device."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count())]


def choose_placement(
    requested: str, num_vectors: int, dim: int, free_bytes: Sequence[int] | None = None
) -> Placement:
    """Choose the device for a search over `num_vectors` vectors of width `dim`.

    Args:
        requested: "auto" (a GPU if one has room and there are enough vectors), "cpu", "cuda" (the one with
            the most free memory) or for example "cuda:1".
        num_vectors: number of vectors.
        dim: width of a vector, in float32 values.
        free_bytes: free bytes of each CUDA device; None means as torch reports.

    Raises:
        InputError: unknown device, or not enough memory on the requested one.

    Example:
        >>> str(choose_placement("auto", 1_000_000, 64, free_bytes=[]))
        'cpu: there is no CUDA device'
        >>> choose_placement("auto", 1_000_000, 64, free_bytes=[2**30, 2**33]).device
        'cuda:1'
    """
    if requested == "cpu":
        return Placement("cpu", "as asked")
    free_bytes = free_gpu_memory() if free_bytes is None else free_bytes
    names = [f"cuda:{number}" for number in range(len(free_bytes))]
    if requested not in ("auto", "cuda", *names):
        raise InputError(
            f"index: no device {requested!r}, expected one of {', '.join(('auto', 'cpu', *names))}"
        )
    if not free_bytes:
        if requested == "auto":
            return Placement("cpu", "there is no CUDA device")
        raise InputError(
            f"index: got device {requested!r}, but torch sees no CUDA device; expected auto or cpu"
        )
    number = (
        names.index(requested)
        if requested in names
        else max(range(len(free_bytes)), key=lambda each: free_bytes[each])
    )
    if requested == "auto" and num_vectors * dim < _MIN_GPU_NUMBERS:
        return Placement("cpu", f"only {num_vectors:,} vectors, too few for a GPU to be faster")
    needed = 4 * num_vectors * dim + _SCRATCH_BYTES
    room = (
        f"the search needs {needed // _MB:,} MB and {names[number]} has {free_bytes[number] // _MB:,} MB free"
    )
    if needed <= free_bytes[number]:
        return Placement(names[number], room if requested == "auto" else "as asked")
    if requested == "auto":
        return Placement("cpu", room)
    raise InputError(f"index: got device {requested!r}, but {room}; expected auto or cpu")
