"""Inputs with a modality taken away, exchanged or drowned in noise: what does each one contribute?

The three ask different things. Dropped: can the rest do without? Shuffled: is it this sample's content that
helps, or only that there is some? Noise: does the model notice that the content says nothing?
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import torch

from mmattn.encoders.model_inputs import ModelInputs
from mmattn.errors import InputError, did_you_mean

__all__ = ["ABLATION_PREFIXES", "AblationMethod", "ablate", "ablations", "samples_with"]

AblationMethod = Literal["drop", "shuffle", "noise"]
ABLATION_PREFIXES: Mapping[AblationMethod, str] = {"drop": "without", "shuffle": "shuffled", "noise": "noise"}

_MAX_SUBSETS = 62  # all but the empty and the whole one of six contents


def ablate(
    inputs: ModelInputs, modality: str | Sequence[str], method: AblationMethod = "drop", *, seed: int = 0
) -> ModelInputs:
    """The inputs without what a modality says.

    Args:
        inputs: of all samples.
        modality: which one, or several that say the same content in other ways and go together.
        method: "drop", as if no sample had it; "shuffle", each sample that has it gets another one's, so
            that presence stays as it is; "noise", normal numbers with the mean and spread of each
            coordinate, for modalities of frozen encoders.
        seed: of the exchange or the noise.

    Raises:
        InputError: an unknown modality or way, noise for contents that an encoder reads in training, nobody
            to exchange with.
    """
    names = (modality,) if isinstance(modality, str) else tuple(modality)
    if method not in get_args(AblationMethod):
        raise InputError(f"ablation: got {method!r}.{did_you_mean(str(method), get_args(AblationMethod))}")
    for name in names:
        if name not in inputs.modalities:
            raise InputError(f"ablation: no modality {name!r}.{did_you_mean(name, inputs.modalities)}")
    order = _shuffle_order(inputs, names, seed) if method == "shuffle" else None
    for name in names:
        if method == "drop":
            inputs = inputs.without_modality(name)
        elif order is not None:
            inputs = inputs.shuffled(name, order)
        else:
            inputs = _replace_with_noise(inputs, name, seed)
    return inputs


def ablations(
    inputs: ModelInputs,
    contents: Mapping[str, Sequence[str]],
    methods: Sequence[AblationMethod] = ("drop", "shuffle", "noise"),
    *,
    include_encoders: bool = True,
    include_subsets: bool = True,
    seed: int = 0,
) -> Iterator[tuple[str, ModelInputs]]:
    """All the ablations of a report, one after the other, by name.

    Named "without-image", "shuffled-image", "noise-image" for a content, "without-table.year" for one of
    several encoders of a content, "only-text+image" for a subset. A subset that lacks one content alone is
    the drop of that content and comes once, under that name. What cannot be done is left out: noise for
    encoders that are trained along, an exchange among fewer than two samples, dropping all there is.

    Args:
        inputs: of all samples.
        contents: content -> the modalities that read it.
        methods: of taking away.
        include_encoders: take away single modalities of a content too, where it has several.
        include_subsets: at most 62 of them, the smallest first.
        seed: of exchanges and noise.

    Example:
        >>> from mmattn.types import Tokens
        >>> text = Tokens.from_sequences([torch.ones(1, 2), torch.zeros(1, 2)], "text")
        >>> both = ModelInputs({"text": text}, {"image": ["a", "b"]})
        >>> [name for name, _ in ablations(both, {"text": ["text"], "image": ["image"]}, ["drop", "noise"])]
        ['without-text', 'without-image', 'noise-text']
    """
    parts = {name: tuple(names) for name, names in contents.items()}
    if include_encoders:
        for content, current in contents.items():
            parts |= {f"{content}.{name}": (name,) for name in current if len(current) > 1}
    for how in methods:
        for name, current in parts.items():
            if _is_applicable(inputs, current, how):
                yield f"{ABLATION_PREFIXES[how]}-{name}", ablate(inputs, current, how, seed=seed)
    largest = len(contents) - (1 if "drop" in methods else 0)
    kept = [names for size in range(1, largest) for names in combinations(contents, size)]
    for names in kept[:_MAX_SUBSETS] if include_subsets else ():
        gone = [
            modality for content, values in contents.items() if content not in names for modality in values
        ]
        yield "only-" + "+".join(names), ablate(inputs, gone)


def _samples_with_modality(inputs: ModelInputs, modality: str) -> np.ndarray:
    """Samples that have the modality."""
    if modality in inputs.tokens:
        return np.flatnonzero(inputs.tokens[modality].lengths.cpu().numpy())
    return np.flatnonzero([content is not None for content in inputs.contents[modality]])


def _is_applicable(inputs: ModelInputs, modalities: Sequence[str], method: AblationMethod) -> bool:
    if method == "drop":
        return set(modalities) != set(inputs.modalities)
    if method == "noise":
        return set(modalities) <= set(inputs.tokens)
    return len(samples_with(inputs, modalities)) >= 2


def samples_with(inputs: ModelInputs, modalities: Sequence[str]) -> np.ndarray:
    """Return the samples that have any of the modalities, ascending.

    Args:
        inputs: of all samples.
        modalities: their names.
    """
    return np.unique(np.concatenate([_samples_with_modality(inputs, name) for name in modalities]))


def _shuffle_order(inputs: ModelInputs, modalities: Sequence[str], seed: int) -> np.ndarray:
    """An order of the samples in which no holder keeps its own: one round through all of them."""
    present = samples_with(inputs, modalities)
    if len(present) < 2:
        names = " and ".join(map(repr, modalities))
        raise InputError(f"ablation: {len(present)} samples have {names}, expected two to exchange")
    order = np.arange(len(inputs))
    ring = np.random.default_rng(seed).permutation(present)
    order[ring] = np.roll(ring, 1)
    return order


def _replace_with_noise(inputs: ModelInputs, modality: str, seed: int) -> ModelInputs:
    if modality not in inputs.tokens:
        raise InputError(
            f"ablation: {modality!r} has no stored vectors to replace by noise; drop or shuffle it"
        )
    tokens = inputs.tokens[modality]
    generator = torch.Generator().manual_seed(seed)
    noise_ND = torch.randn(tokens.values.shape, generator=generator).to(tokens.values)
    spread_D = tokens.values.std(0, correction=0)
    noisy = tokens.with_values(noise_ND * spread_D + tokens.values.mean(0))
    return replace(inputs, tokens={**inputs.tokens, modality: noisy})
