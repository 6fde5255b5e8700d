"""What masks have in common, and the operators `&`, `|` and `~` that join them.

Every mask says so twice: `allow` for single pairs, and `bounds` for whole blocks of tokens, from which
the fast backends know what they can skip without looking at a pair (see blocks.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.pairs import Pairs
from mmattn.attention.language.term import Term, word
from mmattn.errors import InputError

__all__ = ["And", "Mask", "Not", "Or", "farthest"]


class Mask(Term):
    """Base of the masks, which combine with `&`, `|` and `~`."""

    kind: ClassVar[str] = "mask"

    def allow(self, pairs: Pairs) -> Tensor:
        """Boolean, broadcastable to [..., Q, K]: may this query attend to this key?"""
        raise NotImplementedError

    def bounds(self, pairs: BlockPairs) -> Bounds:
        """For every two blocks: may a pair of them be allowed, and are all for certain?"""
        return Bounds.unknown(pairs)

    @property
    def looks_back_only(self) -> bool:
        """Is no key after the query's position ever allowed? Such programs can decode step by step."""
        return False

    @property
    def reach(self) -> int | None:
        """Positions that a query may look back; None where there is no limit. Older keys can be forgotten."""
        return None

    def check(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        """Refuse names of modalities that the tokens do not know."""
        for child in self.children():
            if isinstance(child, Mask):
                child.check(query, key)

    def __and__(self, other: Mask) -> Mask:
        return And((self, other)) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        return Or((self, other)) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return Not(self)


@dataclass(frozen=True, repr=False)
class _Joined(Mask):
    """Two or more masks under one operator; nested ones of the same operator become flat."""

    masks: tuple[Mask, ...]

    sign: ClassVar[str] = ""

    def __post_init__(self) -> None:
        flat: list[Mask] = []
        for mask in self.masks:
            if not isinstance(mask, Mask):
                raise InputError(f"{self.sign}: got {mask!r}, expected a mask such as window(64)")
            flat.extend(mask.masks if type(mask) is type(self) else [mask])
        if len(flat) < 2:
            raise InputError(f"{self.sign}: got {len(flat)} masks, expected at least two")
        object.__setattr__(self, "masks", tuple(flat))
        self._check_depth()

    def __str__(self) -> str:
        return f" {self.sign} ".join(_in_brackets(mask, inside=self) for mask in self.masks)


@word
@dataclass(frozen=True, repr=False)
class And(_Joined):
    """Both: `window(64) & causal`."""

    word: ClassVar[str] = "and"
    sign: ClassVar[str] = "&"

    def allow(self, pairs: Pairs) -> Tensor:
        allowed = self.masks[0].allow(pairs)
        for mask in self.masks[1:]:
            allowed = allowed & mask.allow(pairs)
        return allowed

    def bounds(self, pairs: BlockPairs) -> Bounds:
        first, *others = (mask.bounds(pairs) for mask in self.masks)
        for other in others:
            first = Bounds(first.may & other.may, first.must & other.must)
        return first

    @property
    def looks_back_only(self) -> bool:
        return any(mask.looks_back_only for mask in self.masks)

    @property
    def reach(self) -> int | None:
        return min((mask.reach for mask in self.masks if mask.reach is not None), default=None)

    def words(self) -> str:
        return " and ".join(_phrase(mask, inside=self) for mask in self.masks)


@word
@dataclass(frozen=True, repr=False)
class Or(_Joined):
    """Either: `window(64) | global_tokens("cls")`."""

    word: ClassVar[str] = "or"
    sign: ClassVar[str] = "|"

    def allow(self, pairs: Pairs) -> Tensor:
        allowed = self.masks[0].allow(pairs)
        for mask in self.masks[1:]:
            allowed = allowed | mask.allow(pairs)
        return allowed

    def bounds(self, pairs: BlockPairs) -> Bounds:
        first, *others = (mask.bounds(pairs) for mask in self.masks)
        for other in others:
            first = Bounds(first.may | other.may, first.must | other.must)
        return first

    @property
    def looks_back_only(self) -> bool:
        return all(mask.looks_back_only for mask in self.masks)

    @property
    def reach(self) -> int | None:
        return farthest(self.masks)

    def words(self) -> str:
        return " or ".join(_phrase(mask, inside=self) for mask in self.masks)


@word
@dataclass(frozen=True, repr=False)
class Not(Mask):
    """The opposite: `~causal`."""

    mask: Mask

    word: ClassVar[str] = "not"

    def __post_init__(self) -> None:
        self._check_term("mask", "mask")
        self._check_depth()

    def __str__(self) -> str:
        return f"~{_in_brackets(self.mask, inside=self)}"

    def allow(self, pairs: Pairs) -> Tensor:
        return ~self.mask.allow(pairs)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        inner = self.mask.bounds(pairs)
        return Bounds(~inner.must, ~inner.may)

    def words(self) -> str:
        return f"not ({self.mask.words()})"


def farthest(masks: Iterable[Mask]) -> int | None:
    """The largest reach; None where one of them has no limit."""
    reaches = [mask.reach for mask in masks]
    return None if None in reaches else max(reach for reach in reaches if reach is not None)


def _in_brackets(mask: Mask, inside: Mask) -> str:
    loose = isinstance(mask, _Joined) and not (isinstance(inside, Or) and isinstance(mask, And))
    return f"({mask})" if loose else str(mask)


def _phrase(mask: Mask, inside: Mask) -> str:
    return f"({mask.words()})" if isinstance(mask, _Joined) else mask.words()
