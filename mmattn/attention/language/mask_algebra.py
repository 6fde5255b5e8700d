"""What masks have in common, and the operators `&`, `|` and `~` that join them.

Every mask says so twice: `allow` for single pairs, and `bounds` for whole blocks of tokens, from which
the fast backends know what they can skip without looking at a pair (see blocks.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.term import Term, register_term
from mmattn.errors import InputError

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs

__all__ = ["And", "Mask", "Not", "Or", "largest_lookback"]


class Mask(Term):
    """Base of the masks, which combine with `&`, `|` and `~`."""

    kind: ClassVar[str] = "mask"

    def allow(self, pairs: Pairs) -> Tensor:
        """Boolean, broadcastable to [..., Q, K]: may this query attend to this key?

        Args:
            pairs: fields of queries and keys.

        Raises:
            NotImplementedError: a subclass does not implement it.
        """
        raise NotImplementedError

    def bounds(self, pairs: BlockPairs) -> Bounds:
        """For every two blocks: may a pair of them be allowed, and are all for certain?

        Args:
            pairs: blocks of queries and keys.
        """
        return Bounds.unknown(pairs)

    @property
    def is_causal(self) -> bool:
        """Is no key after the query's position ever allowed? Such programs can decode step by step."""
        return False

    @property
    def max_lookback(self) -> int | None:
        """Positions that a query may look back; None where there is no limit. Older keys can be forgotten."""
        return None

    def check_modalities(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        """Refuse names of modalities that the tokens do not know.

        Args:
            query: modalities of the queries.
            key: modalities of the keys.

        Raises:
            InputError: the mask names a modality that neither side has.
        """
        for child in self.children():
            if isinstance(child, Mask):
                child.check_modalities(query, key)

    def __and__(self, other: Mask) -> Mask:
        return And((self, other)) if isinstance(other, Mask) else NotImplemented

    def __or__(self, other: Mask) -> Mask:
        return Or((self, other)) if isinstance(other, Mask) else NotImplemented

    def __invert__(self) -> Mask:
        return Not(self)


@dataclass(frozen=True, repr=False)
class _MaskOperator(Mask):
    """Two or more masks under one operator; nested ones of the same operator become flat."""

    masks: tuple[Mask, ...]

    symbol: ClassVar[str] = ""

    def __post_init__(self) -> None:
        flat: list[Mask] = []
        for mask in self.masks:
            if not isinstance(mask, Mask):
                raise InputError(f"{self.symbol}: got {mask!r}, expected a mask such as window(64)")
            flat.extend(mask.masks if type(mask) is type(self) else [mask])
        if len(flat) < 2:
            raise InputError(f"{self.symbol}: got {len(flat)} masks, expected at least two")
        object.__setattr__(self, "masks", tuple(flat))
        self._check_depth()

    def __str__(self) -> str:
        return f" {self.symbol} ".join(_parenthesized(mask, parent=self) for mask in self.masks)


@register_term
@dataclass(frozen=True, repr=False)
class And(_MaskOperator):
    """Both: `window(64) & causal`."""

    term_name: ClassVar[str] = "and"
    symbol: ClassVar[str] = "&"

    def allow(self, pairs: Pairs) -> Tensor:
        allowed = self.masks[0].allow(pairs)
        for mask in self.masks[1:]:
            allowed = allowed & mask.allow(pairs)
        return allowed

    def bounds(self, pairs: BlockPairs) -> Bounds:
        first, *others = (mask.bounds(pairs) for mask in self.masks)
        for other in others:
            first = Bounds(first.may_hold & other.may_hold, first.must_hold & other.must_hold)
        return first

    @property
    def is_causal(self) -> bool:
        return any(mask.is_causal for mask in self.masks)

    @property
    def max_lookback(self) -> int | None:
        return min((mask.max_lookback for mask in self.masks if mask.max_lookback is not None), default=None)

    def describe(self) -> str:
        return " and ".join(_describe_operand(mask, parent=self) for mask in self.masks)


@register_term
@dataclass(frozen=True, repr=False)
class Or(_MaskOperator):
    """Either: `window(64) | global_tokens("cls")`."""

    term_name: ClassVar[str] = "or"
    symbol: ClassVar[str] = "|"

    def allow(self, pairs: Pairs) -> Tensor:
        allowed = self.masks[0].allow(pairs)
        for mask in self.masks[1:]:
            allowed = allowed | mask.allow(pairs)
        return allowed

    def bounds(self, pairs: BlockPairs) -> Bounds:
        first, *others = (mask.bounds(pairs) for mask in self.masks)
        for other in others:
            first = Bounds(first.may_hold | other.may_hold, first.must_hold | other.must_hold)
        return first

    @property
    def is_causal(self) -> bool:
        return all(mask.is_causal for mask in self.masks)

    @property
    def max_lookback(self) -> int | None:
        return largest_lookback(self.masks)

    def describe(self) -> str:
        return " or ".join(_describe_operand(mask, parent=self) for mask in self.masks)


@register_term
@dataclass(frozen=True, repr=False)
class Not(Mask):
    """The opposite: `~causal`."""

    mask: Mask

    term_name: ClassVar[str] = "not"

    def __post_init__(self) -> None:
        self._check_term("mask", "mask")
        self._check_depth()

    def __str__(self) -> str:
        return f"~{_parenthesized(self.mask, parent=self)}"

    def allow(self, pairs: Pairs) -> Tensor:
        return ~self.mask.allow(pairs)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        inner = self.mask.bounds(pairs)
        return Bounds(~inner.must_hold, ~inner.may_hold)

    def describe(self) -> str:
        return f"not ({self.mask.describe()})"


def largest_lookback(masks: Iterable[Mask]) -> int | None:
    """The largest reach; None where one of them has no limit.

    Args:
        masks: masks of a program.
    """
    reaches = [mask.max_lookback for mask in masks]
    return None if None in reaches else max(reach for reach in reaches if reach is not None)


def _parenthesized(mask: Mask, parent: Mask) -> str:
    loose = isinstance(mask, _MaskOperator) and not (isinstance(parent, Or) and isinstance(mask, And))
    return f"({mask})" if loose else str(mask)


def _describe_operand(mask: Mask, parent: Mask) -> str:
    return f"({mask.describe()})" if isinstance(mask, _MaskOperator) else mask.describe()
