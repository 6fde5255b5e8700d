"""Masks by modality: which kind of token may attend to which other kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from mmattn.attention.language.block_bounds import BlockPairs, Bounds
from mmattn.attention.language.mask_algebra import Mask, largest_lookback
from mmattn.attention.language.term import NullaryTerm, format_argument, register_term
from mmattn.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs, TokenFields

__all__ = ["Route", "global_tokens", "present", "route", "where"]


@register_term
@dataclass(frozen=True, repr=False)
class Present(NullaryTerm, Mask):
    """Keys of modalities that count as present.

    A modality that is absent has no tokens, so this allows everything until `context["presence"]`,
    [B, M] boolean over the keys' modalities, takes some away: modality dropout and ablations without
    building the batch again.
    """

    term_name: ClassVar[str] = "present"

    def allow(self, pairs: Pairs) -> Tensor:
        if pairs.key.present is None:
            return torch.ones_like(pairs.query.position | pairs.key.position, dtype=torch.bool)
        return pairs.key.present | torch.zeros_like(pairs.query.position, dtype=torch.bool)

    def describe(self) -> str:
        return "keys of the modalities that count as present"


@register_term
@dataclass(frozen=True, repr=False)
class Route(Mask):
    """Query modality -> key modalities, `"*"` for all.

    Args:
        routes: for example `{"text": ["text", "image"], "image": ["image"], "*": ["*"]}`. The query
            `"*"` stands for every modality that is not named itself.
    """

    routes: tuple[tuple[str, tuple[str, ...]], ...]

    term_name: ClassVar[str] = "route"

    def __post_init__(self) -> None:
        object.__setattr__(self, "routes", _sorted_routes(self.routes))

    def _formatted_arguments(self) -> Iterator[str]:
        routes = (f"{format_argument(query)}: {format_argument(keys)}" for query, keys in self.routes)
        yield f"{{{', '.join(routes)}}}"

    def named_modalities(self) -> tuple[str, ...]:
        names = (name for query, keys in self.routes for name in (query, *keys))
        return tuple(dict.fromkeys(name for name in names if name != "*"))

    def check_modalities(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        routes = dict(self.routes)
        known = (*query, *key)
        for name in self.named_modalities():
            if name not in known:
                raise InputError(
                    f"route: it names {name!r}, expected modalities that the tokens know (a modality may be "
                    f"known and have no token).{did_you_mean(name, known)}"
                )
        for name in query:
            if name not in routes and "*" not in routes:
                raise InputError(
                    f'route: the queries have the modality {name!r}, not routed, and there is no "*"; '
                    f"expected one of {', '.join(routes)}"
                )

    def allowed_table(self, query: tuple[str, ...], key: tuple[str, ...]) -> tuple[tuple[bool, ...], ...]:
        """[Mq][Mk]: may this modality attend to that one?

        Args:
            query: modalities of the queries.
            key: modalities of the keys.
        """
        routes = dict(self.routes)
        targets = [routes.get(name, routes.get("*", ())) for name in query]
        return tuple(
            tuple("*" in names or name in names for name in key or ("",)) for names in targets or [()]
        )

    def allow(self, pairs: Pairs) -> Tensor:
        table_MM = pairs.constant(
            self.allowed_table(pairs.query.modalities, pairs.key.modalities), torch.bool
        )
        return table_MM[pairs.query.modality, pairs.key.modality]

    def bounds(self, pairs: BlockPairs) -> Bounds:
        table_MM = torch.tensor(
            self.allowed_table(pairs.query.modalities, pairs.key.modalities),
            device=pairs.query.min_position.device,
        )
        query_QM, key_MK = (
            pairs.query.modality_present[..., 0, :].float(),
            pairs.key.modality_present[..., 0, :, :].float().mT,
        )
        allowed, refused = table_MM.float(), (~table_MM).float()
        return Bounds(query_QM @ allowed @ key_MK > 0, query_QM @ refused @ key_MK == 0)

    def describe(self) -> str:
        return "; ".join(
            f"{'others' if query == '*' else query} to "
            f"{'everything' if '*' in keys else ', '.join(keys) or 'nothing'}"
            for query, keys in self.routes
        )


@register_term
@dataclass(frozen=True, repr=False)
class GlobalTokens(Mask):
    """Tokens of the modality `kind` see everything and are seen by everything in their sample."""

    modality: str

    term_name: ClassVar[str] = "global_tokens"

    def __post_init__(self) -> None:
        self._check_name("modality")

    def named_modalities(self) -> tuple[str, ...]:
        return (self.modality,)

    def check_modalities(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        _check_known(self.term_name, self.modality, (*query, *key))

    def allow(self, pairs: Pairs) -> Tensor:
        return _is_modality(pairs.query, self.modality) | _is_modality(pairs.key, self.modality)

    def bounds(self, pairs: BlockPairs) -> Bounds:
        query, key = pairs.query.has_modality(self.modality), pairs.key.has_modality(self.modality)
        return Bounds(query.may_hold | key.may_hold, query.must_hold | key.must_hold)

    def describe(self) -> str:
        return f"anything from and to tokens of {self.modality!r}"


@register_term
@dataclass(frozen=True, repr=False)
class Where(Mask):
    """Mask `a` for queries of that modality, `b` for the others."""

    modality: str
    a: Mask
    b: Mask

    term_name: ClassVar[str] = "where"

    def __post_init__(self) -> None:
        self._check_name("modality")
        self._check_term("a", "mask")
        self._check_term("b", "mask")
        self._check_depth()

    def named_modalities(self) -> tuple[str, ...]:
        return (self.modality,)

    def check_modalities(self, query: tuple[str, ...], key: tuple[str, ...]) -> None:
        _check_known(self.term_name, self.modality, query)
        super().check_modalities(query, key)

    def allow(self, pairs: Pairs) -> Tensor:
        chosen = _is_modality(pairs.query, self.modality)
        return (chosen & self.a.allow(pairs)) | (~chosen & self.b.allow(pairs))

    def bounds(self, pairs: BlockPairs) -> Bounds:
        chosen, a, b = pairs.query.has_modality(self.modality), self.a.bounds(pairs), self.b.bounds(pairs)
        may = (chosen.may_hold & a.may_hold) | (~chosen.must_hold & b.may_hold)
        return Bounds(may, (~chosen.may_hold | a.must_hold) & (chosen.must_hold | b.must_hold))

    @property
    def is_causal(self) -> bool:
        return self.a.is_causal and self.b.is_causal

    @property
    def max_lookback(self) -> int | None:
        return largest_lookback((self.a, self.b))

    def describe(self) -> str:
        return f"for {self.modality!r} queries ({self.a.describe()}), for others ({self.b.describe()})"


# The words as one writes them.
present = Present()
global_tokens = GlobalTokens
where = Where


def route(routes: Mapping[str, Sequence[str]]) -> Route:
    """See `Route`.

    Args:
        routes: query modality -> key modalities that it attends to; "*" stands for all others.
    """
    return Route(_sorted_routes(routes))


def _is_modality(side: TokenFields, modality: str) -> Tensor:
    return side.modality == side.modality_index(modality)


def _check_known(term_name: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(
            f"{term_name}: it names {name!r}, expected a modality that the tokens "
            f"know.{did_you_mean(name, known)}"
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
