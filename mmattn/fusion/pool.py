"""From tokens to vectors: one a sample, and one a modality of each sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn.types import Fused, Tokens

__all__ = ["AttentionPool", "MeanPool", "segment_mean", "segment_softmax"]


def segment_softmax(logits: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Softmax over the rows that share a segment.

    Args:
        logits: [N, ...].
        segment: [N] int64, the segment of each row.
        segments: how many there are; a segment without rows is no problem.

    Returns:
        [N, ...], adding up to one in each segment.

    Example:
        >>> import torch
        >>> segment_softmax(torch.zeros(3, 1), torch.tensor([0, 0, 1]), 2)[:, 0].tolist()
        [0.5, 0.5, 1.0]
    """
    index = segment.view(-1, *[1] * (logits.dim() - 1)).expand_as(logits)
    highest = logits.new_full((segments, *logits.shape[1:]), float("-inf"))
    highest = highest.scatter_reduce(0, index, logits.detach(), "amax")
    weights = (logits - highest[segment]).exp()
    total = weights.new_zeros(segments, *logits.shape[1:]).index_add(0, segment, weights)
    return weights / total[segment]


def segment_mean(values: Tensor, segment: Tensor, segments: int) -> Tensor:
    """[N, D] -> [segments, D], the mean of each segment's rows; zeros where there are none."""
    total = values.new_zeros(segments, values.shape[1]).index_add(0, segment, values)
    count = values.new_zeros(segments).index_add(0, segment, torch.ones_like(values[:, 0]))
    return total / count.clamp_min(1)[:, None]


class _Pool(nn.Module):
    """Pools over whole samples and over each modality of each sample, by the same rule."""

    def forward(self, tokens: Tokens) -> Fused:
        """Tokens of width D -> `Fused` with vectors of width D."""
        samples, kinds = len(tokens), len(tokens.modalities)
        part = tokens.sample * kinds + tokens.modality
        return Fused(
            tokens=tokens,
            pooled=self.pool(tokens.values, tokens.sample, samples),
            by_modality=self.pool(tokens.values, part, samples * kinds).view(samples, kinds, tokens.dim),
            presence=tokens.presence,
        )

    def pool(self, values: Tensor, segment: Tensor, segments: int) -> Tensor:
        raise NotImplementedError


class MeanPool(_Pool):
    """The plain mean of the tokens.

    Example:
        >>> import torch
        >>> from mmattn import Tokens
        >>> tokens = Tokens.from_sequences([torch.tensor([[1.0], [3.0]]), torch.zeros(0, 1)], "text")
        >>> MeanPool()(tokens).pooled.tolist()
        [[2.0], [0.0]]
    """

    def pool(self, values: Tensor, segment: Tensor, segments: int) -> Tensor:
        return segment_mean(values, segment, segments)


class AttentionPool(_Pool):
    """A learned weighted mean: each head gives its share of the width its own weights.

    Starts as the plain mean. Paper: Lin et al., "A Structured Self-attentive Sentence Embedding", 2017.

    Args:
        dim: width D, divisible by `heads`.
        heads: number of heads H.
    """

    def __init__(self, dim: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.score = nn.Linear(dim, heads, bias=False)
        nn.init.zeros_(self.score.weight)

    def pool(self, values: Tensor, segment: Tensor, segments: int) -> Tensor:
        weights_NH = segment_softmax(self.score(values).float(), segment, segments).to(values.dtype)
        weighted_NHK = values.unflatten(1, (self.heads, -1)) * weights_NH[..., None]
        return values.new_zeros(segments, values.shape[1]).index_add(0, segment, weighted_NHK.flatten(1))
