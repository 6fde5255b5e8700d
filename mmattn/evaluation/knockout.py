"""Inputs with a modality taken away, exchanged or drowned in noise: what does each one contribute?

The three ask different things. Dropped: can the rest do without? Shuffled: is it this sample's content that
helps, or only that there is some? Noise: does the model notice that the content says nothing?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import torch

from mmattn.encoders.inputs import Inputs
from mmattn.errors import InputError, nearest

__all__ = ["How", "knock_out", "subsets"]

How = Literal["drop", "shuffle", "noise"]


def knock_out(inputs: Inputs, modality: str, how: How = "drop", *, seed: int = 0) -> Inputs:
    """The inputs without what a modality says.

    Args:
        inputs: of all samples.
        modality: which one.
        how: "drop", as if no sample had it; "shuffle", each sample that has it gets another one's, so
            that presence stays as it is; "noise", normal numbers with the mean and spread of each
            coordinate, for modalities of frozen encoders.
        seed: of the exchange or the noise.

    Raises:
        InputError: an unknown modality or way, noise for contents that an encoder reads in training, nobody
            to exchange with.
    """
    if how not in get_args(How):
        raise InputError(f"knockout: got {how!r}.{nearest(str(how), get_args(How))}")
    if modality not in inputs.modalities:
        raise InputError(f"knockout: no modality {modality!r}.{nearest(modality, inputs.modalities)}")
    if how == "drop":
        return inputs.without(modality)
    if how == "shuffle":
        return inputs.exchanged(modality, _exchange(len(inputs), _present(inputs, modality), modality, seed))
    if modality not in inputs.tokens:
        raise InputError(
            f"knockout: {modality!r} has no stored vectors to replace by noise; drop or shuffle it"
        )
    tokens = inputs.tokens[modality]
    generator = torch.Generator().manual_seed(seed)
    noise_ND = torch.randn(tokens.values.shape, generator=generator).to(tokens.values)
    spread_D = tokens.values.std(0, correction=0)
    noisy = tokens.with_values(noise_ND * spread_D + tokens.values.mean(0))
    return replace(inputs, tokens={**inputs.tokens, modality: noisy})


def subsets(inputs: Inputs) -> Mapping[tuple[str, ...], Inputs]:
    """Every non-empty subset of the modalities, from one alone to all, as inputs that have only these."""
    names = inputs.modalities
    found = {}
    for size in range(1, len(names) + 1):
        for kept in combinations(names, size):
            left = inputs
            for name in names:
                if name not in kept:
                    left = left.without(name)
            found[kept] = left
    return found


def _present(inputs: Inputs, modality: str) -> np.ndarray:
    """Samples that have the modality."""
    if modality in inputs.tokens:
        return np.flatnonzero(inputs.tokens[modality].lengths.cpu().numpy())
    return np.flatnonzero([content is not None for content in inputs.contents[modality]])


def _exchange(count: int, present: np.ndarray, modality: str, seed: int) -> np.ndarray:
    """An order of the samples in which none of these keeps its own: one round through all of them."""
    if len(present) < 2:
        raise InputError(f"knockout: {len(present)} samples have {modality!r}, expected two to exchange")
    order = np.arange(count)
    ring = np.random.default_rng(seed).permutation(present)
    order[ring] = np.roll(ring, 1)
    return order
