"""A range of heads that run one program: how it is named, and what a picture draws of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmattn.attention.language.mask_algebra import Mask
    from mmattn.attention.language.parameters import ParameterSpec
    from mmattn.attention.language.scores import Chain

__all__ = ["DEFAULT_HEADS", "PlotRow", "describe_heads"]

DEFAULT_HEADS = 4
"""How many heads are drawn of a program that would run on any number."""


@dataclass(frozen=True)
class PlotRow:
    """What is drawn in one row: the score and the mask of the heads first to last - 1."""

    first: int
    last: int
    score: Chain
    mask: Mask
    parameters: tuple[ParameterSpec, ...]


def describe_heads(first: int, last: int) -> str:
    """The heads first to last - 1 in words.

    Args:
        first: first head.
        last: last head + 1.
    """
    return f"head {first}" if last == first + 1 else f"heads {first} to {last - 1}"
