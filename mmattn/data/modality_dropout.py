"""Drop modalities at random in training, so that a model learns to work without them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import overload

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.types import Tokens

__all__ = ["drop_modalities"]


@overload
def drop_modalities(
    tokens: Tokens, probability: float, generator: torch.Generator | None = None
) -> Tokens: ...


@overload
def drop_modalities(
    tokens: Mapping[str, Tokens], probability: float, generator: torch.Generator | None = None
) -> dict[str, Tokens]: ...


def drop_modalities(
    tokens: Tokens | Mapping[str, Tokens], probability: float, generator: torch.Generator | None = None
) -> Tokens | dict[str, Tokens]:
    """Drop whole modalities of single samples at random, so that a model learns to work without them.

    Each present modality of a sample is dropped independently; where all would be dropped, one of them, drawn
    uniformly, is kept.

    Args:
        tokens: a batch of B samples, or modality -> batch of the same B samples.
        probability: probability of dropping a modality, from 0 to 1.
        generator: a CPU generator; the same state drops the same modalities.

    Returns:
        The same samples with fewer tokens, in the form of `tokens`.

    Raises:
        InputError: a probability outside 0 to 1, or batches with different numbers of samples.

    Example:
        >>> both = Tokens.cat([Tokens.from_sequences([torch.ones(2, 3)], name) for name in ("text", "image")])
        >>> drop_modalities(both, 1.0, torch.Generator().manual_seed(0)).presence.sum().item()
        1
    """
    if isinstance(tokens, Tokens):
        keep_BM = _draw_keep_mask(tokens.presence, probability, generator)
        return tokens.filter(keep_BM[tokens.sample, tokens.modality])
    sizes = {name: len(part) for name, part in tokens.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(f"drop_modalities: got samples {sizes}, expected the same number in each modality")
    if not tokens:
        return {}
    presence_BM = torch.stack([part.lengths > 0 for part in tokens.values()], dim=1)
    keep_BM = _draw_keep_mask(presence_BM, probability, generator)
    return {
        name: part.filter(keep_B[part.sample])
        for (name, part), keep_B in zip(tokens.items(), keep_BM.unbind(1), strict=True)
    }


def _draw_keep_mask(presence_BM: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    """Draw the present modalities [B, M] to keep, at least one per sample that has any."""
    if not 0 <= probability <= 1:
        raise InputError(f"modality dropout: got probability {probability}, expected 0 to 1")
    draw_BM = torch.rand(presence_BM.shape, generator=generator).to(presence_BM.device)
    keep_BM = presence_BM & (draw_BM >= probability)
    if not presence_BM.shape[1]:
        return keep_BM
    # The modality with the largest draw is always kept; it is uniform over those present.
    last_B1 = draw_BM.masked_fill(~presence_BM, -1.0).argmax(1, keepdim=True)
    return keep_BM | (torch.zeros_like(keep_BM).scatter(1, last_B1, True) & presence_BM)
