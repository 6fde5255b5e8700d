"""From the weights of single layers to what each token is made of after all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmattn.errors import InputError
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.analysis.recording import LayerWeights

__all__ = ["Paths", "relevance", "rollout"]

# What a query keeps of itself, [Q], and what it takes of each key, [Q, K].
_Mixing = Callable[[int, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Paths:
    """Where the tokens after the last layer come from.

    Args:
        query: the tokens of the last layer's queries.
        key: the tokens that everything came from, before the first layer: those that the first layer
            read, and those of any other stream that a later layer met first (latents, for example).
        matrices: [Q_b, K_b] for each sample b.
    """

    query: Tokens
    key: Tokens
    matrices: tuple[Tensor, ...]


def rollout(layers: Sequence[LayerWeights], residual: float | Sequence[float] = 0.5) -> Paths:
    """How much of each source token there is in each token, by the weights of all layers in turn.

    A layer's token is taken to be `residual` parts itself and the rest what it attends to, the mean over
    the heads (each counted by its gate). Where a row's weights do not add up to one (`sigmoid`, a sink,
    nothing to attend to), the two are brought to one together, so a token that attends to nothing stays
    itself. Layers that let latents read the tokens, or tokens the latents, are followed as they are:
    tokens that share a layout are one stream, and a stream that no earlier layer wrote is a source.

    These are proportions of attention. They know nothing of how long the values are, of what the
    token-wise networks do, or of the sign of an effect; see Jain and Wallace, "Attention is not Explanation",
    2019, and hold them against what happens when a token is left out.

    Paper: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", 2020.

    Args:
        layers: as `record` gives them, first layer first.
        residual: share of a token that is itself, 0 to 1, for all layers or one a layer; 0 where a stack
            has no residual connections.

    Returns:
        `Paths` whose rows sum to one (to zero without residual and without a key).

    Raises:
        InputError: no layer, another number of samples in one of them, or a share outside 0 to 1.

    Example:
        >>> from mmattn.attention.analysis.recording import LayerWeights
        >>> import torch
        >>> from mmattn.types import Tokens
        >>> two = Tokens.from_sequences([torch.zeros(2, 1)], "text")
        >>> layer = LayerWeights(two, two, (torch.tensor([[[1.0, 0.0], [0.5, 0.5]]]),))
        >>> rollout([layer]).matrices[0].tolist()
        [[1.0, 0.0], [0.25, 0.75]]
        >>> rollout([layer, layer]).matrices[0].tolist()
        [[1.0, 0.0], [0.4375, 0.5625]]
    """
    shares = [residual] * len(layers) if isinstance(residual, (int, float)) else list(residual)
    if len(shares) != len(layers) or not all(0 <= share <= 1 for share in shares):
        raise InputError(f"rollout: got residual {residual}, expected 0 to 1, one number or one a layer")

    def mixing(layer: int, sample: int) -> tuple[Tensor, Tensor]:
        share = shares[layer]
        through_QK = (1 - share) * _mean_over_heads(layers[layer], sample)
        total_Q = through_QK.sum(-1) + share
        total_Q = total_Q.masked_fill(total_Q == 0, 1.0)
        return share / total_Q, through_QK / total_Q[:, None]

    return _compose_layers(layers, mixing)


def relevance(layers: Sequence[LayerWeights]) -> Paths:
    """How much each source token matters to a score through each token: weights times their gradients.

    Each layer adds, for every query, the positive part of weight times gradient, the mean over the heads:
    only attention that pushes the score up counts, however much attention there is elsewhere.

    Paper: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers", 2021, equations 5 and 6; streams are followed as in `rollout`.

    Args:
        layers: as `Recording.weights(score)` gives them, first layer first.

    Returns:
        `Paths` of numbers from 0; each token's own is 1 before anything is added, so they are to be
        compared within a row, not across samples.

    Raises:
        InputError: no layer, or one without gradients.

    Example:
        >>> from mmattn.attention.analysis.recording import LayerWeights
        >>> import torch
        >>> from mmattn.types import Tokens
        >>> two = Tokens.from_sequences([torch.zeros(2, 1)], "text")
        >>> weights = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])
        >>> gradient = torch.tensor([[[2.0, 9.0], [-3.0, 4.0]]])
        >>> layer = LayerWeights(two, two, (weights,), gradient=(gradient,))
        >>> relevance([layer]).matrices[0].tolist()
        [[3.0, 0.0], [0.0, 3.0]]
    """
    if any(layer.gradient is None for layer in layers):
        raise InputError(
            "relevance: got weights without a gradient, expected those of Recording.weights(score)"
        )

    def mixing(layer: int, sample: int) -> tuple[Tensor, Tensor]:
        seen = layers[layer]
        assert seen.gradient is not None
        through_QK = (seen.matrices[sample] * seen.gradient[sample]).clamp(min=0).mean(0)
        return through_QK.new_ones(len(through_QK)), through_QK

    return _compose_layers(layers, mixing)


def _mean_over_heads(layer: LayerWeights, sample: int) -> Tensor:
    """[Q, K], the mean over the heads, each counted by its gate."""
    weights_HQK = layer.matrices[sample]
    if layer.gate is None:
        return weights_HQK.mean(0)
    gate_H = layer.gate / layer.gate.sum().clamp(min=1e-12)
    return torch.einsum("h,hqk->qk", gate_H.to(weights_HQK), weights_HQK)


def _compose_layers(layers: Sequence[LayerWeights], mixing: _Mixing) -> Paths:
    """Compose the layers: a query becomes what it was, plus what its keys were, as `mixing` says."""
    if not layers:
        raise InputError("rollout: got no layer, expected at least one")
    samples = len(layers[0].query)
    streams: dict[int, Tokens] = {}
    for number, layer in enumerate(layers):
        if len(layer.query) != samples:
            raise InputError(
                f"rollout: layer {number} has {len(layer.query)} samples, expected {samples} as layer 0"
            )
        for tokens in (layer.key, layer.query):
            streams.setdefault(id(tokens.position), tokens)
    composed = []
    for sample in range(samples):
        made = _identity_contributions(streams, sample, layers[0].matrices[sample])
        for number, layer in enumerate(layers):
            own_Q, through_QK = mixing(number, sample)
            query, key = id(layer.query.position), id(layer.key.position)
            made[query] = own_Q[:, None] * made[query] + through_QK @ made[key]
        composed.append(made[id(layers[-1].query.position)])
    bare = [tokens.with_values(tokens.values.new_zeros(len(tokens.values), 0)) for tokens in streams.values()]
    return Paths(layers[-1].query, Tokens.cat(bare), tuple(composed))


def _identity_contributions(streams: dict[int, Tokens], sample: int, like: Tensor) -> dict[int, Tensor]:
    """Before any layer each token of each stream is itself: [T, S] of ones and zeros."""
    sizes = [tokens.length_list[sample] for tokens in streams.values()]
    itself_SS = torch.eye(sum(sizes), dtype=like.dtype, device=like.device)
    return dict(zip(streams, itself_SS.split(sizes), strict=True))
