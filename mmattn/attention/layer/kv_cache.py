"""Step by step decoding: keys and values of the past are kept, and only new tokens are projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mmattn.attention.language.mask_algebra import largest_lookback
from mmattn.attention.language.program import Heads, Program
from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["Cache", "append_to_cache", "check_supports_decoding", "drop_unreachable"]


@dataclass(frozen=True, eq=False)
class Cache:
    """Keys and values of the tokens so far.

    Args:
        tokens: their layout and fields; `values` [N, 2 D] are the projected keys beside the values.
    """

    tokens: Tokens

    def __len__(self) -> int:
        """Number of tokens that are kept."""
        return len(self.tokens.values)

    def select(self, samples: torch.Tensor) -> Cache:
        """Of the named samples alone, in that order; one that is named twice goes on in two ways.

        Args:
            samples: int64 indices of samples.
        """
        return Cache(self.tokens.select(samples))


def append_to_cache(cache: Cache | None, new: Tokens, k: torch.Tensor, v: torch.Tensor) -> Cache:
    """The cache with the keys and values [N, H, K] of the new tokens after those of each sample.

    Args:
        cache: cache so far; None begins one.
        new: the new tokens.
        k: [N, H, K] their keys.
        v: [N, H, K] their values.

    Raises:
        InputError: another number of samples, or new tokens that do not come after the old ones.
    """
    kept = new.with_values(torch.cat([k.flatten(1), v.flatten(1)], dim=1))
    if cache is None:
        return Cache(kept)
    if len(cache.tokens) != len(new):
        raise InputError(f"decode: got {len(new)} samples, expected {len(cache.tokens)} as in the cache")
    latest_B = _extreme_position(cache.tokens, "amax", -1)
    earliest_B = _extreme_position(new, "amin", torch.iinfo(torch.int64).max)
    if bool((earliest_B <= latest_B).any()):
        sample = int((earliest_B <= latest_B).nonzero()[0])
        raise InputError(
            f"decode: sample {sample} got a new token at position {int(earliest_B[sample])}, "
            f"expected positions after {int(latest_B[sample])}, the latest in the cache"
        )
    return Cache(Tokens.cat([cache.tokens, kept]))


def drop_unreachable(cache: Cache, program: Program | Heads) -> Cache:
    """The cache without what no later token can attend to: in a program with a window it stops growing.

    Args:
        cache: keys and values so far.
        program: program of the layer.
    """
    masks = [part.mask for part in program.walk() if isinstance(part, Program)]
    reach = largest_lookback(masks)
    if reach is None:
        return cache
    # The latest token stays, whatever the reach: later ones are held against its position.
    oldest_B = _extreme_position(cache.tokens, "amax", -1) - max(reach - 1, 0)
    kept_N = cache.tokens.position >= oldest_B[cache.tokens.sample]
    return cache if bool(kept_N.all()) else Cache(cache.tokens.filter(kept_N))


def check_supports_decoding(program: Program | Heads) -> None:
    """Refuse programs whose results for old tokens would change when new ones come.

    Args:
        program: program of the layer.

    Raises:
        InputError: a mask that looks ahead, or a number that depends on all queries.
        InputError: results for old tokens would change when new ones come.
    """
    parts = [part for part in program.walk() if isinstance(part, Program)]
    for part in parts:
        if not part.mask.is_causal:
            raise InputError(
                f"decode: the mask {part.mask} may look ahead, expected one such as causal & window(64)"
            )
    for term in program.walk():
        if term.term_name == "dynamic" and term.on == "input":  # type: ignore[attr-defined]
            raise InputError(f"decode: {term} depends on tokens that are not there yet")


def _extreme_position(tokens: Tokens, reduce: str, initial: int) -> Any:
    """[B], the largest or smallest position of each sample."""
    return tokens.position.new_full((len(tokens),), initial).scatter_reduce(
        0, tokens.sample, tokens.position, reduce, include_self=True
    )
