"""The inputs of a model: stored tokens of frozen encoders, contents for trainable ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mmattn.encoders.base import Encoder, Unreadable
from mmattn.encoders.store.feature_store import FeatureStore
from mmattn.encoders.store.rejected_content import RejectedContent
from mmattn.errors import InputError, did_you_mean
from mmattn.types import Sample, Tokens

__all__ = ["ModelInputs", "prepare_inputs"]


@dataclass(frozen=True)
class ModelInputs:
    """All samples of a dataset, ready for the model.

    Args:
        tokens: modality -> tokens of all samples, from a frozen encoder.
        contents: modality -> contents of all samples, read by the trainable encoder; None where absent.
        rejected: contents that could not be read; their samples keep their other modalities.

    Raises:
        InputError: modalities with different numbers of samples, or a modality in both mappings.
    """

    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    contents: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rejected: tuple[RejectedContent, ...] = ()

    def __post_init__(self) -> None:
        sizes = {name: len(part) for name, part in self._parts.items()}
        if len(set(sizes.values())) > 1 or set(self.tokens) & set(self.contents):
            raise InputError(f"inputs: got {sizes} samples, expected one number and each modality once")

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self._parts.values()), ()))

    @property
    def _parts(self) -> dict[str, Sized]:
        return {**self.tokens, **self.contents}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities."""
        return (*self.tokens, *self.contents)

    def without_modality(self, modality: str) -> ModelInputs:
        """Return the same samples without a modality.

        Args:
            modality: name of the modality.

        Raises:
            InputError: no such modality.
        """
        self._check_modality(modality)
        return replace(
            self,
            tokens={name: part for name, part in self.tokens.items() if name != modality},
            contents={name: part for name, part in self.contents.items() if name != modality},
        )

    def shuffled(self, modality: str, order: Sequence[int] | np.ndarray) -> ModelInputs:
        """Permute one modality over the samples, to measure how much a result depends on it.

        Args:
            modality: name of the modality.
            order: [n] permutation; sample b gets the modality of sample `order[b]`.

        Raises:
            InputError: no such modality.
        """
        self._check_modality(modality)
        index = np.asarray(order, np.int64)
        if modality in self.tokens:
            return replace(
                self, tokens={**self.tokens, modality: self.tokens[modality].select(index.tolist())}
            )
        shuffled = [self.contents[modality][number] for number in index]
        return replace(self, contents={**self.contents, modality: shuffled})

    def subset(self, indices: Tensor) -> ModelInputs:
        """Select samples.

        Args:
            indices: [n] int64 indices of the samples, in the order of the result.

        Returns:
            Inputs of the n samples, without `rejected`.

        Example:
            >>> import torch
            >>> ModelInputs(contents={"text": ["a", "b", None]}).subset(torch.tensor([2, 0])).contents
            {'text': [None, 'a']}
        """
        numbers = indices.tolist()
        return ModelInputs(
            {name: tokens.select(indices) for name, tokens in self.tokens.items()},
            {name: [contents[number] for number in numbers] for name, contents in self.contents.items()},
        )

    def select_tokens(self, indices: Tensor, encoders: Mapping[str, Encoder]) -> dict[str, Tokens]:
        """Return the tokens of some samples; trainable encoders run, so that gradients reach them.

        Args:
            indices: [n] int64 indices of the samples.
            encoders: modality -> encoder.

        Returns:
            modality -> tokens of the n samples, of those modalities that are present here and in `encoders`.
        """
        numbers = indices.tolist()
        selected = {}
        for name, encoder in encoders.items():
            if name in self.tokens:
                selected[name] = self.tokens[name].select(indices)
            elif name in self.contents:
                selected[name] = encoder([self.contents[name][number] for number in numbers])
        return selected

    def _check_modality(self, modality: str) -> None:
        if modality not in self.modalities:
            raise InputError(f"inputs: no modality {modality!r}.{did_you_mean(modality, self.modalities)}")


def prepare_inputs(
    samples: Sequence[Sample],
    encoders: Mapping[str, Encoder],
    features: str | Path,
    sources: Mapping[str, str] | None = None,
    *,
    progress: bool = True,
) -> ModelInputs:
    """Run the frozen encoders, or load their stored tokens, and read the contents for trainable ones.

    Args:
        samples: all samples.
        encoders: modality -> encoder.
        features: folder of the feature store.
        sources: modality -> key of `Sample.content`, where it differs from the modality's name.
        progress: show a progress bar while encoding.

    Returns:
        The inputs; contents that cannot be read are listed in `rejected`.

    Raises:
        InputError: the feature store cannot be written.
    """
    ids = [sample.id for sample in samples]
    tokens: dict[str, Tokens] = {}
    contents: dict[str, Sequence[Any]] = {}
    rejected: list[RejectedContent] = []
    for name, encoder in encoders.items():
        raw = [sample.content.get((sources or {}).get(name, name)) for sample in samples]
        if encoder.frozen:
            store = FeatureStore(features, encoder, progress=progress)
            tokens[name] = store.tokens(raw, ids)
            rejected.extend(store.rejected)
        else:
            contents[name] = _read_contents(raw, ids, name, encoder, rejected)
    return ModelInputs(tokens, contents, tuple(rejected))


def _read_contents(
    raw: Sequence[Any], ids: Sequence[str], modality: str, encoder: Encoder, rejected: list[RejectedContent]
) -> list[Any]:
    """Decode every content once; one that cannot be read becomes None and is added to `rejected`."""
    decoded = []
    for sample, content in zip(ids, raw, strict=True):
        try:
            decoded.append(None if content is None else encoder.read(content))
        except Unreadable as error:
            rejected.append(RejectedContent(sample, modality, str(error)))
            decoded.append(None)
    return decoded
