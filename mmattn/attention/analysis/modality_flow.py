"""How much of one modality's attention goes to another: weights summed up by modality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.analysis.recording import LayerWeights
    from mmattn.attention.analysis.rollout import Paths

__all__ = ["flow"]


def flow(weights: LayerWeights | Paths) -> Tensor:
    """The modality-to-modality flow matrix of each sample.

    Entry (m, n) is the mass that a token of modality m sends to all tokens of modality n, the mean over
    the tokens of m. A row sums to what its tokens' weights sum to: one under a softmax, zero for a
    modality that is absent or may attend to nothing.

    Args:
        weights: of one layer, for a matrix a head; or what `rollout` or `relevance` made of several.

    Returns:
        [B, H, M, M'] of a layer, [B, M, M'] of paths; M the queries' modalities, M' the keys', in the
        order of their `Tokens.modalities`.

    Example:
        >>> from mmattn.attention.analysis.recording import LayerWeights
        >>> import torch
        >>> from mmattn.types import Tokens
        >>> parts = [Tokens.from_sequences([torch.zeros(n, 1)], m) for m, n in (("text", 2), ("image", 1))]
        >>> scene = Tokens.cat(parts)
        >>> weights = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.25, 0.5, 0.25]]])
        >>> layer = LayerWeights(scene, scene, (weights,))
        >>> flow(layer)[0, 0].tolist()
        [[0.5, 0.5], [0.75, 0.25]]
    """
    queries, keys = _modality_one_hot(weights.query), _modality_one_hot(weights.key)
    flows = []
    for matrix, query_QM, key_KM in zip(weights.matrices, queries, keys, strict=True):
        mean_QM = (query_QM / query_QM.sum(0).clamp(min=1)).to(matrix)
        flows.append(mean_QM.T @ matrix @ key_KM.to(matrix))
    if flows:
        return torch.stack(flows)
    return torch.zeros(0, len(weights.query.modalities), len(weights.key.modalities))


def _modality_one_hot(tokens: Tokens) -> tuple[Tensor, ...]:
    """[T, M] of ones and zeros for each sample: which token is of which modality."""
    result: tuple[Tensor, ...] = (
        F.one_hot(tokens.modality, max(len(tokens.modalities), 1)).float().split(tokens.length_list)
    )
    return result
