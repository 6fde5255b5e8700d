"""Batches that the attention tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from mmattn.types import Tokens


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors on several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def words() -> Callable[..., Tokens]:
    """Float64 tokens of one modality from lengths."""

    def make(lengths: list[int], dim: int, name: str = "text", seed: int = 0) -> Tokens:
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(sum(lengths), dim, generator=generator, dtype=torch.float64)
        return Tokens.from_lengths(values, torch.tensor(lengths, dtype=torch.int64), name)

    return make


@pytest.fixture
def scene() -> Tokens:
    """One sample: two words, then three patches, then one sound; width 6."""
    generator = torch.Generator().manual_seed(1)
    parts = [
        Tokens.from_lengths(
            torch.randn(count, 6, generator=generator, dtype=torch.float64), torch.tensor([count]), name
        )
        for name, count in (("text", 2), ("image", 3), ("audio", 1))
    ]
    return Tokens.cat(parts)
