"""Why a model gives an item its score: attention, gradients, and what happens when a part is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from mmattn import attention as A
from mmattn.array_types import Floats
from mmattn.attention.analysis.modality_flow import flow
from mmattn.attention.analysis.recording import LayerWeights, record
from mmattn.attention.analysis.rollout import Paths, relevance, rollout
from mmattn.errors import InputError
from mmattn.explain.targets import ExplanationTarget
from mmattn.explain.token_spans import TokenSpan
from mmattn.fusion.core import FusionCore
from mmattn.types import Fused, Tokens

__all__ = ["Attribution", "AttributionResult", "explain"]


@dataclass(frozen=True, eq=False)
class Attribution:
    """One way to weigh the parts of an item, over its U units and M modalities.

    Args:
        total: [U], what each unit counts for the item as a whole (in its joint vector).
        pairwise: [U, U], what each unit takes of each other one; None where there is no such thing.
        flow: [M, M], the same by modality.
        agreement: rank correlation of `total` with the effect of leaving units out, None below three.
    """

    total: Floats
    pairwise: Floats | None = None
    flow: Floats | None = None
    agreement: float | None = None


@dataclass(frozen=True, eq=False)
class AttributionResult:
    """What `explain` found.

    Args:
        score: of the whole item.
        modalities: M names.
        spans: modality -> its units; all units are numbered through in this order.
        layers: [L] of [H] readings, the weights of each head.
        attributions: "rollout", "relevance", "pool" and "left out" (how much lower the score is without it).
        leave_out_changes: modality -> change of the score when all of it is left out.
        layer_update_ratios: [L], how long what each layer adds is, as a share of its tokens; None where nobody knows.
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
        """(modality, unit), by unit number."""
        return [(name, unit) for name in self.modalities for unit in self.spans[name]]

    def modality_shares(self, method: str) -> dict[str, float]:
        """Modality -> sum of its units' totals."""
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
    """Explain one item's score.

    Args:
        core: the fusion core, in evaluation.
        modality_tokens: modality -> tokens of the one sample, of the encoders.
        spans: modality -> what these tokens stand for.
        target: the score.
        batch_size: versions of the item that are fused at a time.

    Raises:
        InputError: more than one sample, no token at all, or a pool that does not say what tokens count.
    """
    names = tuple(core.input_projection.input_dims)
    sizes = {name: len(modality_tokens[name].values) if name in modality_tokens else 0 for name in names}
    if any(len(tokens) != 1 for tokens in modality_tokens.values()) or not sum(sizes.values()):
        raise InputError("explain: expected the tokens of one sample, and at least one token")
    if not hasattr(core.pool, "modality_shares"):
        raise InputError(f"explain: {type(core.pool).__name__} does not say what each token counts (shares)")
    attends = any(isinstance(part, A.Attention) for part in core.modules())
    with (
        torch.enable_grad(),
        record(core) if attends else nullcontext() as heard,
        _record_layer_updates(core) as changes,
    ):
        fused = core(modality_tokens)
        score = target.score(fused)[0]
    layers = heard.weights(score) if heard is not None else []
    look = _SpanAttributor(
        membership=_membership_matrix(spans, names, sizes).to(score),
        leave_out_effects=_leave_out_effects(core, modality_tokens, spans, names, target, batch_size),
        pool_weights=_pool_weights(core, fused),
    )
    found = {
        "rollout": look.path_attribution(rollout(layers) if layers else _identity_paths(fused.tokens)),
        "relevance": look.path_attribution(
            relevance(layers) if layers else _identity_paths(fused.tokens),
            _pool_relevance(core, fused, score),
        ),
        "pool": look.attribution(look.pool_weights),
        "left out": Attribution(_to_numpy(look.leave_out_effects[1 : 1 + look.membership.shape[1]])),
    }
    return AttributionResult(
        score=score.item(),
        modalities=names,
        spans={name: tuple(spans.get(name, ())) for name in names},
        layers=tuple(
            tuple(look.head_attribution(layer, head) for head in range(layer.heads)) for layer in layers
        ),
        attributions=found,
        leave_out_changes={
            name: -float(change)
            for name, change in zip(
                names, look.leave_out_effects[1 + look.membership.shape[1] :], strict=True
            )
            if sizes[name]
        },
        layer_update_ratios=tuple(changes),
    )


@dataclass(frozen=True, eq=False)
class _SpanAttributor:
    """From tokens to units.

    Args:
        membership: [N, U] ones where the token belongs to the unit.
        leave_out_effects: [1 + U + M], how much lower the score is without nothing, each unit, each modality.
        pool_weights: [N], what each token counts in the joint vector; adds up to one.
    """

    membership: Tensor
    leave_out_effects: Tensor
    pool_weights: Tensor

    def attribution(
        self, total_N: Tensor, rows_NN: Tensor | None = None, flow_MM: Tensor | None = None
    ) -> Attribution:
        """What tokens count, and what they take of each other, by unit."""
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
        """One head of one layer, read from the joint vector."""
        rows_NN = layer.matrices[0][head]
        return self.attribution(self.pool_weights @ rows_NN, rows_NN, flow(layer)[0, head])

    def path_attribution(self, paths: Paths, start: Tensor | None = None) -> Attribution:
        """All layers, read from the joint vector or from where the score comes from; rows add up to one."""
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
    """The paths of a core without attention: every token stays itself."""
    return Paths(tokens, tokens, (torch.eye(len(tokens.values)).to(tokens.values),))


@torch.no_grad()
def _pool_weights(core: FusionCore, fused: Fused) -> Tensor:
    """[N], what each token counts in the joint vector, the mean over the pool's heads."""
    counts_N = core.pool.shares(fused.tokens).abs().mean(1)  # type: ignore[operator]
    return counts_N / counts_N.sum().clamp(min=1e-12)


def _pool_relevance(core: FusionCore, fused: Fused, score: Tensor) -> Tensor:
    """[N], weight times gradient in the pool, where positive: the same rule as in the layers."""
    (of_pooled,) = torch.autograd.grad(score, fused.pooled, retain_graph=True)
    with torch.no_grad():
        shares_NH = core.pool.shares(fused.tokens)  # type: ignore[operator]
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
    """[1 + U + M], how much lower the score is without nothing, without each unit, without each modality."""
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
    """How long what each block adds is, as a share of its tokens' length, the mean over the tokens."""
    found: list[float | None] = []

    def measure(block: nn.Module, given: Any, result: Any) -> None:
        before, after = given[0].values.detach(), result.values.detach()
        alike = before.shape == after.shape
        share = (after - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-12) if alike else None
        found.append(None if share is None else float(share.mean()))

    handles = [block.register_forward_hook(measure) for block in core.blocks]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _to_numpy(tensor: Tensor) -> Floats:
    return tensor.detach().double().cpu().numpy()
