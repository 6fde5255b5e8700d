"""Masks by modality: which kind of token may attend to which other kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.mask_algebra import Mask, farthest
from mmattn.attention.language.pairs import Fields, Pairs
from mmattn.attention.language.term import Constant, printed, word
from mmattn.errors import InputError, nearest

__all__ = ["Route", "global_tokens", "present", "route", "where"]


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
        yield f"{{{', '.join(f'{printed(query)}: {printed(keys)}' for query, keys in self.routes)}}}"

    def named(self) -> tuple[str, ...]:
        names = (name for query, keys in self.routes for name in (query, *keys))
        return tuple(dict.fromkeys(name for name in names if name != "*"))

    def check(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        routes = dict(self.routes)
        known = (*query, *key)
        for name in self.named():
            if name not in known:
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

    def named(self) -> tuple[str, ...]:
        return (self.modality,)

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

    def named(self) -> tuple[str, ...]:
        return (self.modality,)

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

    @property
    def reach(self) -> int | None:
        return farthest((self.a, self.b))

    def words(self) -> str:
        return f"for {self.modality!r} queries ({self.a.words()}), for others ({self.b.words()})"


# The words as one writes them.
present = Present()
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
