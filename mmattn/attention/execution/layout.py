"""Who may meet whom, before any program is asked: the samples of the queries and of the keys.

A layout depends on the tokens' fields alone, never on their values, so it is derived once and kept
with the tokens: a stack of layers over the same tokens shares it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["Layout", "TokenLayout"]

_LAYOUT_CACHE_KEY = "attention.layouts"


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """The fields of the queries' or of the keys' tokens, [N] each, as in `Tokens`."""

    offsets: Tensor
    modality: Tensor
    position: Tensor
    modalities: tuple[str, ...]
    time: Tensor | None
    entity: Tensor | None
    length_list: list[int]

    @classmethod
    def from_tokens(cls, tokens: Tokens) -> TokenLayout:
        return cls(
            tokens.offsets,
            tokens.modality,
            tokens.position,
            tokens.modalities,
            tokens.time,
            tokens.entity,
            tokens.length_list,
        )

    @cached_property
    def starts(self) -> list[int]:
        """Where each sample begins, and the number of all tokens at the end."""
        starts = [0]
        for size in self.length_list:
            starts.append(starts[-1] + size)
        return starts

    @cached_property
    def sample(self) -> Tensor:
        """[N], the sample of each token."""
        sizes = self.offsets.diff()
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(
            sizes, output_size=self.starts[-1]
        )


@dataclass(eq=False)
class Layout:
    """The queries' side, the keys' side, and what has been derived from the two (`cache`)."""

    query: TokenLayout
    key: TokenLayout
    cache: dict[Any, Any] = field(default_factory=dict)

    @staticmethod
    def from_tokens(q: Tokens, kv: Tokens) -> Layout:
        """The layout of these tokens, derived at the first call.

        Args:
            q: queries.
            kv: keys and values.

        Raises:
            InputError: queries and keys differ in their number of samples.
        """
        known = q._layout.setdefault(_LAYOUT_CACHE_KEY, {})
        # Identities are safe as a key: the layout holds the very tensors, so none of them is reused.
        key = (
            id(q.position),
            id(q.modality),
            *map(id, (kv.offsets, kv.position, kv.modality, kv.time, kv.entity)),
        )
        if key not in known:
            if kv is not q and len(q) != len(kv):
                raise InputError(
                    f"attention: got queries of {len(q)} samples and keys of {len(kv)}, expected as many"
                )
            query = TokenLayout.from_tokens(q)
            known[key] = Layout(
                query, query if kv is q or kv.position is q.position else TokenLayout.from_tokens(kv)
            )
        result: Layout = known[key]
        return result

    @property
    def num_samples(self) -> int:
        return len(self.query.length_list)

    @property
    def is_self_attention(self) -> bool:
        """Do the tokens attend to themselves?"""
        return self.query is self.key

    @cached_property
    def cache_by_length(self) -> dict[Any, Any]:
        """Where to keep what lengths and modality names decide: one sample is planned once a length."""
        if self.num_samples != 1:
            return self.cache
        query, key = self.query, self.key
        return _single_sample_cache(
            *query.length_list, *key.length_list, query.modalities, key.modalities, query.offsets.device
        )

    @cached_property
    def num_pairs(self) -> int:
        """Number of query-key pairs that belong to one sample."""
        return sum(q * k for q, k in zip(self.query.length_list, self.key.length_list, strict=True))

    @cached_property
    def uniform_shape(self) -> tuple[int, int] | None:
        """(Q, K) where all samples have as many tokens, otherwise None."""
        shapes = set(zip(self.query.length_list, self.key.length_list, strict=True))
        return shapes.pop() if len(shapes) == 1 else None

    @cached_property
    def has_increasing_positions(self) -> bool:
        """Do the tokens attend to themselves, with positions that grow along every sample?

        Then "position at or before" is the lower triangle, which SDPA knows without a mask.
        """
        if not self.is_self_attention:
            return False
        position_N = self.query.position
        if self.num_samples == 1 and torch.equal(
            position_N, torch.arange(len(position_N), device=position_N.device)
        ):
            return True
        sample_N = self.query.sample
        return not bool(((position_N.diff() <= 0) & (sample_N.diff() == 0)).any())


@lru_cache(maxsize=1024)
def _single_sample_cache(queries: int, keys: int, *key_parts: Any) -> dict[Any, Any]:
    """What is known of all layouts of one sample with so many queries and keys, and the `key_parts` else."""
    return {}
