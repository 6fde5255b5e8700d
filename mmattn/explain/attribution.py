"""Attribute an item's score to its token spans: attention, gradients and leave-out effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from mmattn.array_types import Floats
from mmattn.attention.analysis.modality_flow import flow
from mmattn.attention.analysis.recording import LayerWeights, record
from mmattn.attention.analysis.rollout import Paths, relevance, rollout
from mmattn.attention.layer.attention import Attention
from mmattn.errors import InputError
from mmattn.explain.targets import ExplanationTarget
from mmattn.explain.token_spans import TokenSpan
from mmattn.fusion.core import FusionCore
from mmattn.types import Fused, Tokens

__all__ = ["Attribution", "AttributionResult", "explain"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """Weights of the U spans and M modalities of an item by one method.

    Args:
        total: [U] weight of each span in the joint vector.
        pairwise: [U, U] weight of each span (column) for each other span (row); None if undefined.
        flow: [M, M] the same by modality.
        agreement: Spearman correlation of `total` with the leave-out effects; None below three spans.
    """

    total: Floats
    pairwise: Floats | None = None
    flow: Floats | None = None
    agreement: float | None = None


@dataclass(frozen=True, eq=False)
class AttributionResult:
    """Result of `explain`.

    Args:
        score: score of the complete item.
        modalities: names of the M modalities.
        spans: modality -> its spans; spans are numbered in this order.
        layers: attribution of each head of each layer.
        attributions: "rollout", "relevance", "pool" and "leave_out" (decrease of the score without the span).
        leave_out_changes: modality -> change of the score without the modality.
        layer_update_ratios: norm of each layer's update relative to its tokens; None if undefined.
    """

    score: float
    modalities: tuple[str, ...]
    spans: Mapping[str, tuple[TokenSpan, ...]]
    layers: tuple[tuple[Attribution, ...], ...]
    attributions: Mapping[str, Attribution]
    leave_out_changes: Mapping[str, float]
    layer_update_ratios: tuple[float | None, ...] = ()

    @property
    def numbered_spans(self) -> list[tuple[str, TokenSpan]]:
        """Modality and span of each span index."""
        return [(name, unit) for name in self.modalities for unit in self.spans[name]]

    def modality_shares(self, method: str) -> dict[str, float]:
        """Sum the weights of each modality.

        Args:
            method: key of `attributions`.
        """
        total, sums, first = self.attributions[method].total, {}, 0
        for name in self.modalities:
            sums[name] = float(total[first : first + len(self.spans[name])].sum())
            first += len(self.spans[name])
        return sums


def explain(
    core: FusionCore,
    modality_tokens: Mapping[str, Tokens],
    spans: Mapping[str, Sequence[TokenSpan]],
    target: ExplanationTarget,
    *,
    batch_size: int = 64,
) -> AttributionResult:
    """Explain one item's score by attention, attention times gradient and leave-out effects.

    Papers: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (rollout); Chefer et
    al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers",
    ICCV 2021 (relevance).

    Args:
        core: fusion core in evaluation mode.
        modality_tokens: modality -> encoder tokens of one sample.
        spans: modality -> spans of these tokens.
        target: the score to explain.
        batch_size: number of reduced versions of the item per forward pass.

    Raises:
        InputError: more than one sample, no token, or a pool without token shares.
    """
    names = tuple(core.input_projection.input_dims)
    sizes = {name: len(modality_tokens[name].values) if name in modality_tokens else 0 for name in names}
    if any(len(tokens) != 1 for tokens in modality_tokens.values()) or not sum(sizes.values()):
        raise InputError("explain: expected the tokens of one sample, and at least one token")
    if not hasattr(core.pool, "token_weights"):
        raise InputError(
            f"explain: {type(core.pool).__name__} does not define the weight of each token (token_weights)"
        )
    attends = any(isinstance(part, Attention) for part in core.modules())
    with (
        torch.enable_grad(),
        record(core) if attends else nullcontext() as recorded,
        _record_layer_updates(core) as changes,
    ):
        fused = core(modality_tokens)
        score = target.score(fused)[0]
    layers = recorded.weights(score) if recorded is not None else []
    attributor = _SpanAttributor(
        membership=_membership_matrix(spans, names, sizes).to(score),
        leave_out_effects=_leave_out_effects(core, modality_tokens, spans, names, target, batch_size),
        pool_weights=_pool_weights(core, fused),
    )
    attributions = {
        "rollout": attributor.path_attribution(rollout(layers) if layers else _identity_paths(fused.tokens)),
        "relevance": attributor.path_attribution(
            relevance(layers) if layers else _identity_paths(fused.tokens),
            _pool_relevance(core, fused, score),
        ),
        "pool": attributor.attribution(attributor.pool_weights),
        "leave_out": Attribution(
            _to_numpy(attributor.leave_out_effects[1 : 1 + attributor.membership.shape[1]])
        ),
    }
    return AttributionResult(
        score=score.item(),
        modalities=names,
        spans={name: tuple(spans.get(name, ())) for name in names},
        layers=tuple(
            tuple(attributor.head_attribution(layer, head) for head in range(layer.heads)) for layer in layers
        ),
        attributions=attributions,
        leave_out_changes={
            name: -float(change)
            for name, change in zip(
                names, attributor.leave_out_effects[1 + attributor.membership.shape[1] :], strict=True
            )
            if sizes[name]
        },
        layer_update_ratios=tuple(changes),
    )


@dataclass(frozen=True, eq=False)
class _SpanAttributor:
    """Aggregates token weights by span.

    Args:
        membership: [N, U] 1 where the token belongs to the span.
        leave_out_effects: [1 + U + M] decrease of the score when leaving out nothing, each span, each
            modality.
        pool_weights: [N] pooling weight of each token; sums to one.
    """

    membership: Tensor
    leave_out_effects: Tensor
    pool_weights: Tensor

    def attribution(
        self, total_N: Tensor, rows_NN: Tensor | None = None, flow_MM: Tensor | None = None
    ) -> Attribution:
        """Aggregate token weights and pairwise token weights by span."""
        total_N = total_N / total_N.sum().clamp(min=1e-12)
        total_U = total_N @ self.membership
        rows_UU = None
        if rows_NN is not None:
            mean_UN = self.membership.T / self.membership.sum(0)[:, None]
            rows_UU = _to_numpy(mean_UN @ rows_NN @ self.membership)
        return Attribution(
            _to_numpy(total_U),
            rows_UU,
            None if flow_MM is None else _to_numpy(flow_MM),
            self._agreement(total_U),
        )

    def head_attribution(self, layer: LayerWeights, head: int) -> Attribution:
        """Attribute one head of one layer, starting at the joint vector."""
        rows_NN = layer.matrices[0][head]
        return self.attribution(self.pool_weights @ rows_NN, rows_NN, flow(layer)[0, head])

    def path_attribution(self, paths: Paths, start: Tensor | None = None) -> Attribution:
        """Attribute all layers, starting at the joint vector or at `start`; rows sum to one."""
        (rows_NN,) = paths.matrices
        if rows_NN.shape != (len(self.membership), len(self.membership)):
            raise InputError("explain: the core's layers exchange the tokens, expected them to stay the same")
        flow_MM = flow(paths)[0]
        return self.attribution(
            (self.pool_weights if start is None else start) @ rows_NN,
            rows_NN / rows_NN.sum(1, keepdim=True),
            flow_MM / flow_MM.sum(1, keepdim=True).clamp(min=1e-12),
        )

    def _agreement(self, total_U: Tensor) -> float | None:
        effect_U = self.leave_out_effects[1 : 1 + len(total_U)]
        if len(total_U) < 3 or not total_U.std() > 0 or not effect_U.std() > 0:
            return None
        return float(spearmanr(_to_numpy(total_U), _to_numpy(effect_U)).statistic)


def _membership_matrix(
    spans: Mapping[str, Sequence[TokenSpan]], names: Sequence[str], sizes: Mapping[str, int]
) -> Tensor:
    members_NU = torch.zeros(sum(sizes.values()), sum(len(spans.get(name, ())) for name in names))
    first = column = 0
    for name in names:
        for unit in spans.get(name, ()):
            members_NU[[first + token for token in unit.tokens], column] = 1.0
            column += 1
        first += sizes[name]
    return members_NU


def _identity_paths(tokens: Tokens) -> Paths:
    """Return the paths of a core without attention: the identity."""
    return Paths(tokens, tokens, (torch.eye(len(tokens.values)).to(tokens.values),))


@torch.no_grad()
def _pool_weights(core: FusionCore, fused: Fused) -> Tensor:
    """Return the pooling weight of each token, averaged over heads, [N]."""
    counts_N = core.pool.token_weights(fused.tokens).abs().mean(1)  # type: ignore[operator]
    return counts_N / counts_N.sum().clamp(min=1e-12)


def _pool_relevance(core: FusionCore, fused: Fused, score: Tensor) -> Tensor:
    """Return positive pooling weight times gradient, [N]: the same rule as in the layers."""
    (of_pooled,) = torch.autograd.grad(score, fused.pooled, retain_graph=True)
    with torch.no_grad():
        shares_NH = core.pool.token_weights(fused.tokens)  # type: ignore[operator]
        heads = shares_NH.shape[1]
        toward_NH = (fused.tokens.values * of_pooled[0]).unflatten(1, (heads, -1)).sum(-1)
        return (shares_NH * toward_NH).clamp(min=0).mean(1)


@torch.no_grad()
def _leave_out_effects(
    core: FusionCore,
    modality_tokens: Mapping[str, Tokens],
    spans: Mapping[str, Sequence[TokenSpan]],
    names: Sequence[str],
    target: ExplanationTarget,
    batch_size: int,
) -> Tensor:
    """Decrease of the score when leaving out nothing, each span, and each modality, [1 + U + M]."""
    groups: list[tuple[str, tuple[int, ...]]] = [("", ())]
    groups += [(name, unit.tokens) for name in names for unit in spans.get(name, ())]
    groups += [
        (name, tuple(range(len(modality_tokens[name].values))) if name in modality_tokens else ())
        for name in names
    ]
    scores = []
    for start in range(0, len(groups), batch_size):
        versions = groups[start : start + batch_size]
        kept = {}
        for name, tokens in modality_tokens.items():
            keep_BT = torch.ones(len(versions), len(tokens.values), dtype=torch.bool, device=tokens.device)
            for row, (gone, numbers) in enumerate(versions):
                if gone == name:
                    keep_BT[row, list(numbers)] = False
            kept[name] = tokens.select([0] * len(versions)).filter(keep_BT.flatten())
        scores.append(target.score(core(kept)))
    score_V = torch.cat(scores)
    return score_V[0] - score_V


@contextmanager
def _record_layer_updates(core: FusionCore) -> Iterator[list[float | None]]:
    """Record the norm of each block's update relative to its tokens, averaged over tokens."""
    ratios: list[float | None] = []

    def measure(block: nn.Module, given: Any, result: Any) -> None:
        before, after = given[0].values.detach(), result.values.detach()
        alike = before.shape == after.shape
        share = (after - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-12) if alike else None
        ratios.append(None if share is None else float(share.mean()))

    handles = [block.register_forward_hook(measure) for block in core.blocks]
    try:
        yield ratios
    finally:
        for handle in handles:
            handle.remove()


def _to_numpy(tensor: Tensor) -> Floats:
    return tensor.detach().double().cpu().numpy()
