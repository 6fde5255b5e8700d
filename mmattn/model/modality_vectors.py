"""Vectors of samples from one modality or a subset of modalities, for cross-modal retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from mmattn.encoders.model_inputs import ModelInputs
    from mmattn.model.model import Model

__all__ = ["modality_vectors", "subset_vectors"]


@torch.no_grad()
def subset_vectors(
    model: Model,
    inputs: ModelInputs,
    samples: Tensor,
    modalities: Sequence[str],
    head: str = "alignment",
    batch_size: int = 256,
) -> NDArray[np.floating]:
    """Compute the vectors of samples from a subset of their modalities.

    Args:
        model: the model; evaluated in inference mode.
        inputs: encoder inputs of all samples.
        samples: [n] sample indices.
        modalities: names of the modalities that are fused.
        head: name of the head that makes the vectors.
        batch_size: samples per forward pass.

    Returns:
        [n, D] vectors.
    """
    was_training = model.training
    model.eval()
    vectors = []
    for batch in samples.split(batch_size):
        tokens = model.tokens(inputs, batch)
        vectors.append(model.head(head)(model.fuse({name: tokens[name] for name in modalities})).cpu())
    model.train(was_training)
    return torch.cat(vectors).numpy()


@torch.no_grad()
def modality_vectors(
    model: Model, inputs: ModelInputs, samples: Tensor, head: str = "alignment", batch_size: int = 256
) -> tuple[dict[str, NDArray[np.floating]], dict[str, NDArray[np.integer]]]:
    """Compute one vector per modality for the samples that have it.

    Args:
        model: the model; evaluated in inference mode.
        inputs: encoder inputs of all samples.
        samples: [n] sample indices.
        head: name of the head that makes the vectors.
        batch_size: samples per forward pass.

    Returns:
        modality -> [m, D] vectors, and modality -> [m] sample index of each vector.
    """
    was_training = model.training
    model.eval()
    vectors: dict[str, list[Tensor]] = {name: [] for name in inputs.modalities}
    owners: dict[str, list[Tensor]] = {name: [] for name in inputs.modalities}
    for batch in samples.split(batch_size):
        for name, tokens in model.tokens(inputs, batch).items():
            present = (tokens.lengths > 0).cpu()
            vectors[name].append(model.head(head)(model.fuse({name: tokens})).cpu()[present])
            owners[name].append(batch[present])
    model.train(was_training)
    return (
        {name: torch.cat(batches).numpy() for name, batches in vectors.items()},
        {name: torch.cat(batches).numpy() for name, batches in owners.items()},
    )
