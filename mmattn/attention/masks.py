"""Masks: which key a query may attend to. Tokens of two samples never meet; nobody has to write that.

Every mask says so twice: `allow` for single pairs, and `bounds` for whole blocks of tokens, from which
the fast backends know what they can skip without looking at a pair (see blocks.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmattn.attention.blocks import BlockPairs, Bounds
from mmattn.attention.pairs import Fields, Pairs
from mmattn.attention.terms import Constant, Term, word
from mmattn.errors import InputError, nearest

__all__ = [
    "And",
    "Mask",
    "Not",
    "Or",
    "blocks",
    "causal",
    "dilated",
    "full",
    "global_tokens",
    "present",
    "route",
    "where",
    "window",
]


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


@word
@dataclass(frozen=True, repr=False)
class Full(Constant, Mask):
    """Every key of the sample."""

    word: ClassVar[str] = "full"

    def allow(self, pairs: Pairs) -> Tensor:
        return torch.ones_like(pairs.query.position | pairs.key.position, dtype=torch.bool)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds.everything(pairs)

    def words(self) -> str:
        return "every key of the sample"


@word
@dataclass(frozen=True, repr=False)
class Causal(Constant, Mask):
    """Keys at the query's position or before it."""

    word: ClassVar[str] = "causal"

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.key.position <= pairs.query.position

    def bounds(self, pairs: BlockPairs) -> Bounds:
        return Bounds(pairs.key.low <= pairs.query.high, pairs.key.high <= pairs.query.low)

    @property
    def looks_back_only(self) -> bool:
        return True

    def words(self) -> str:
        return "keys at the query's position or before it"


@word
@dataclass(frozen=True, repr=False)
class Window(Mask):
    """Keys at most `n` positions away, on either side (Longformer, https://arxiv.org/abs/2004.05150)."""

    n: int

    word: ClassVar[str] = "window"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)

    def allow(self, pairs: Pairs) -> Tensor:
        return (pairs.query.position - pairs.key.position).abs() <= self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest <= self.n)

    def words(self) -> str:
        return f"keys at most {self.n} positions away"


@word
@dataclass(frozen=True, repr=False)
class Dilated(Mask):
    """Keys at most `n` positions and a multiple of `step` away."""

    n: int
    step: int

    word: ClassVar[str] = "dilated"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=0)
        self._check_integer("step", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        distance = (pairs.query.position - pairs.key.position).abs()
        return (distance <= self.n) & (distance % self.step == 0)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        nearest, farthest = pairs.distances()
        return Bounds(nearest <= self.n, farthest == 0)

    def words(self) -> str:
        return f"keys at most {self.n} positions and a multiple of {self.step} away"


@word
@dataclass(frozen=True, repr=False)
class Blocks(Mask):
    """Keys of the query's own block of `n` positions."""

    n: int

    word: ClassVar[str] = "blocks"

    def __post_init__(self) -> None:
        self._check_integer("n", minimum=1)

    def allow(self, pairs: Pairs) -> Tensor:
        return pairs.query.position // self.n == pairs.key.position // self.n

    def bounds(self, pairs: BlockPairs) -> Bounds:
        q_low, q_high = pairs.query.low // self.n, pairs.query.high // self.n
        k_low, k_high = pairs.key.low // self.n, pairs.key.high // self.n
        alone = (q_low == q_high) & (k_low == k_high) & (q_low == k_low)
        return Bounds((q_low <= k_high) & (k_low <= q_high), alone)

    def words(self) -> str:
        return f"keys of the same block of {self.n} positions"


@word
@dataclass(frozen=True, repr=False)
class Present(Constant, Mask):
    """Keys of modalities that count as present.

    A modality that is absent has no tokens, so this allows everything until `context["presence"]`,
    [B, M] boolean over the keys' modalities, takes some away: modality dropout and knockouts without
    building the batch again.
    """

    word: ClassVar[str] = "present"

    def allow(self, pairs: Pairs) -> Tensor:
        if pairs.key.present is None:
            return torch.ones_like(pairs.query.position | pairs.key.position, dtype=torch.bool)
        return pairs.key.present | torch.zeros_like(pairs.query.position, dtype=torch.bool)

    def words(self) -> str:
        return "keys of the modalities that count as present"


@word
@dataclass(frozen=True, repr=False)
class Route(Mask):
    """Query modality -> key modalities, `"*"` for all.

    Args:
        routes: for example `{"text": ["text", "image"], "image": ["image"], "*": ["*"]}`. The query
            `"*"` stands for every modality that is not named itself.
    """

    routes: tuple[tuple[str, tuple[str, ...]], ...]

    word: ClassVar[str] = "route"

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", _sorted_routes(self.routes))

    def _printed_arguments(self) -> Iterator[str]:
        pairs = (
            f'"{query}": [{", ".join(chr(34) + key + chr(34) for key in keys)}]'
            for query, keys in self.routes
        )
        yield f"{{{', '.join(pairs)}}}"

    def check(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        routes = dict(self.routes)
        known = (*query, *key)
        for name in dict.fromkeys([*routes, *(name for keys in routes.values() for name in keys)]):
            if name != "*" and name not in known:
                raise InputError(
                    f"route: it names {name!r}, expected modalities that the tokens know (a modality may be "
                    f"known and have no token).{nearest(name, known)}"
                )
        for name in query:
            if name not in routes and "*" not in routes:
                raise InputError(
                    f'route: the queries have the modality {name!r}, not routed, and there is no "*"; '
                    f"expected one of {', '.join(routes)}"
                )

    def table(self, query: tuple[str, ...], key: tuple[str, ...]) -> tuple[tuple[bool, ...], ...]:
        """[Mq][Mk]: may this modality attend to that one?"""
        routes = dict(self.routes)
        targets = [routes.get(name, routes.get("*", ())) for name in query]
        return tuple(
            tuple("*" in names or name in names for name in key or ("",)) for names in targets or [()]
        )

    def allow(self, pairs: Pairs) -> Tensor:
        table_MM = pairs.constant(self.table(pairs.query.names, pairs.key.names), torch.bool)
        return table_MM[pairs.query.modality, pairs.key.modality]

    def bounds(self, pairs: BlockPairs) -> Bounds:
        table_MM = torch.tensor(self.table(pairs.query.names, pairs.key.names), device=pairs.query.low.device)
        query_QM, key_MK = pairs.query.kinds[..., 0, :].float(), pairs.key.kinds[..., 0, :, :].float().mT
        allowed, refused = table_MM.float(), (~table_MM).float()
        return Bounds(query_QM @ allowed @ key_MK > 0, query_QM @ refused @ key_MK == 0)

    def words(self) -> str:
        return "; ".join(
            f"{'others' if query == '*' else query} to "
            f"{'everything' if '*' in keys else ', '.join(keys) or 'nothing'}"
            for query, keys in self.routes
        )


@word
@dataclass(frozen=True, repr=False)
class GlobalTokens(Mask):
    """Tokens of the modality `kind` see everything and are seen by everything in their sample."""

    modality: str

    word: ClassVar[str] = "global_tokens"

    def __post_init__(self) -> None:
        self._check_name("modality")

    def check(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        _check_known(self.word, self.modality, (*query, *key))

    def allow(self, pairs: Pairs) -> Tensor:
        return _is(pairs.query, self.modality) | _is(pairs.key, self.modality)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        query, key = pairs.query.has(self.modality), pairs.key.has(self.modality)
        return Bounds(query.may | key.may, query.must | key.must)

    def words(self) -> str:
        return f"anything from and to tokens of {self.modality!r}"


@word
@dataclass(frozen=True, repr=False)
class Where(Mask):
    """Mask `a` for queries of that modality, `b` for the others."""

    modality: str
    a: Mask
    b: Mask

    word: ClassVar[str] = "where"

    def __post_init__(self) -> None:
        self._check_name("modality")
        self._check_term("a", "mask")
        self._check_term("b", "mask")
        self._check_depth()

    def check(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        _check_known(self.word, self.modality, query)
        super().check(query, key)

    def allow(self, pairs: Pairs) -> Tensor:
        chosen = _is(pairs.query, self.modality)
        return (chosen & self.a.allow(pairs)) | (~chosen & self.b.allow(pairs))

    def bounds(self, pairs: BlockPairs) -> Bounds:
        chosen, a, b = pairs.query.has(self.modality), self.a.bounds(pairs), self.b.bounds(pairs)
        may = (chosen.may & a.may) | (~chosen.must & b.may)
        return Bounds(may, (~chosen.may | a.must) & (chosen.must | b.must))

    @property
    def looks_back_only(self) -> bool:
        return self.a.looks_back_only and self.b.looks_back_only

    def words(self) -> str:
        return f"for {self.modality!r} queries ({self.a.words()}), for others ({self.b.words()})"


# The words as one writes them.
full = Full()
causal = Causal()
present = Present()
window = Window
dilated = Dilated
blocks = Blocks
global_tokens = GlobalTokens
where = Where


def route(routes: Mapping[str, Sequence[str]]) -> Route:
    """See `Route`."""
    return Route(_sorted_routes(routes))


def _is(side: Fields, modality: str) -> Tensor:
    return side.modality == side.index(modality)


def _check_known(word: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(
            f"{word}: it names {name!r}, expected a modality that the tokens know.{nearest(name, known)}"
        )


def _in_brackets(mask: Mask, inside: Mask) -> str:
    loose = isinstance(mask, _Joined) and not (isinstance(inside, Or) and isinstance(mask, And))
    return f"({mask})" if loose else str(mask)


def _phrase(mask: Mask, inside: Mask) -> str:
    return f"({mask.words()})" if isinstance(mask, _Joined) else mask.words()


def _sorted_routes(routes: Any) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Any spelling of routes as sorted pairs, so that equal routes are equal values."""
    pairs = routes.items() if isinstance(routes, Mapping) else routes
    expected = 'a mapping such as {"text": ["text", "image"]}'
    try:
        named = dict(pairs)
    except (TypeError, ValueError):
        raise InputError(f"route: got {routes!r}, expected {expected}") from None
    if not named:
        raise InputError(f"route: got no routes, expected {expected}")
    for query, keys in named.items():
        if isinstance(keys, str) or not isinstance(keys, (list, tuple, set, frozenset)):
            raise InputError(f"route: got {keys!r} for {query!r}, expected a list of modalities")
        for name in (query, *keys):
            if not isinstance(name, str) or not name or not name.isprintable():
                raise InputError(f"route: got the name {name!r}, expected a printable string")
    return tuple((query, tuple(sorted(set(keys)))) for query, keys in sorted(named.items()))
