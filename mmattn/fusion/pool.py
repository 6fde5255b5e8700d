"""From tokens to vectors: one a modality of each sample, and from these one a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmattn.types import Fused, Tokens

__all__ = ["AttentionPool", "segment_mean", "segment_softmax"]


def segment_softmax(logits: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Softmax over the rows that share a segment.

    Args:
        logits: [N, ...].
        segment: [N] int64, the segment of each row.
        num_segments: how many there are; a segment without rows is no problem.

    Returns:
        [N, ...], adding up to one in each segment.

    Example:
        >>> import torch
        >>> segment_softmax(torch.zeros(3, 1), torch.tensor([0, 0, 1]), 2)[:, 0].tolist()
        [0.5, 0.5, 1.0]
    """
    index = segment.view(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    highest = logits.new_full((num_segments, *logits.shape[1:]), float("-inf"))
    highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
    weights = (logits - highest[segment]).exp()
    total = weights.new_zeros(num_segments, *logits.shape[1:]).index_add(0, segment, weights)
    return weights / total[segment]


def segment_mean(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """[N, D] -> [segments, D], the mean of each segment's rows; zeros where there are none.

    Args:
        values: [N, D].
        segment: [N] int64 index of the segment of each row.
        num_segments: number of segments.
    """
    total = values.new_zeros(num_segments, values.shape[1]).index_add(0, segment, values)
    count = values.new_zeros(num_segments).index_add(0, segment, torch.ones_like(values[:, 0]))
    return total / count.clamp_min(1)[:, None]


class AttentionPool(nn.Module):
    """A learned weighted mean of each modality's tokens; the joint vector is their weighted sum.

    Each head gives its share of the width weights of its own; they start equal, as the plain mean. In
    the joint vector a modality counts by a learned gain and by the root of its number of tokens, the
    length that a sum of as many unrelated vectors has. What is absent adds nothing.

    Paper: Lin et al., "A Structured Self-attentive Sentence Embedding", 2017 (the weighted mean).

    Args:
        dim: width D, divisible by `heads`.
        num_modalities: number of modalities M.
        heads: number of heads H.
        initial_gains: what the modalities' gains start at, by default 1.

    Example:
        >>> import torch
        >>> from mmattn import Tokens
        >>> tokens = Tokens.from_sequences([torch.tensor([[1.0], [3.0]]), torch.zeros(0, 1)], "text")
        >>> fused = AttentionPool(dim=1, num_modalities=1, heads=1)(tokens)
        >>> fused.by_modality[:, 0].tolist(), fused.pooled[1].tolist()
        ([[2.0], [0.0]], [0.0])
    """

    def __init__(
        self, dim: int, num_modalities: int, heads: int = 4, initial_gains: Sequence[float] | None = None
    ):
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(dim, heads, bias=False)
        self.modality_gains = nn.Parameter(
            torch.ones(num_modalities) if initial_gains is None else torch.tensor(initial_gains)
        )
        nn.init.zeros_(self.score.weight)

    def forward(self, tokens: Tokens) -> Fused:
        """Tokens of width D -> `Fused` with vectors of width D.

        Args:
            tokens: B samples of width D.
        """
        samples, kinds = len(tokens), len(tokens.modalities)
        weights_NH, share_BM = self._weights(tokens)
        weighted_NHK = tokens.values.unflatten(1, (self.heads, -1)) * weights_NH[..., None]
        empty_PD = tokens.values.new_zeros(samples * kinds, tokens.dim)
        summed_PD = empty_PD.index_add(0, _group_index(tokens), weighted_NHK.flatten(1))
        vectors_BMD = summed_PD.view(samples, kinds, tokens.dim)
        return Fused(
            tokens=tokens,
            pooled=torch.einsum("bmd,bm->bd", vectors_BMD, share_BM),
            by_modality=vectors_BMD,
            presence=tokens.presence,
        )

    def token_weights(self, tokens: Tokens) -> Tensor:
        """What each token counts in the joint vector: head h of `pooled` is the sum of these times head h of
        the tokens.

        Args:
            tokens: B samples of width D.

        Returns:
            [N, H].
        """
        weights_NH, share_BM = self._weights(tokens)
        return weights_NH * share_BM[tokens.sample, tokens.modality][:, None]

    def _weights(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """[N, H] weights within each modality of a sample, and [B, M] what its vector counts."""
        parts = len(tokens) * len(tokens.modalities)
        part_N = _group_index(tokens)
        weights_NH = segment_softmax(self.score(tokens.values).float(), part_N, parts)
        count_BM = part_N.bincount(minlength=parts).view(len(tokens), len(tokens.modalities))
        return weights_NH.to(tokens.dtype), count_BM.to(tokens.dtype).sqrt() * self.modality_gains.to(
            tokens.dtype
        )


def _group_index(tokens: Tokens) -> Tensor:
    """[N] int64, one number for each modality of each sample."""
    return tokens.sample * len(tokens.modalities) + tokens.modality
