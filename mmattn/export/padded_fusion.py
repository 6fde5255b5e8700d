"""The fusion core over padded tokens: entry, blocks and pooling as one graph for every batch and length.

Each function takes a trained part as it is and says over a rectangle what the part says over jagged tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.attention.execution.padded import PaddedTokens, attend_padded
from mmattn.errors import InputError
from mmattn.fusion.block import BottleneckBlock, FusionBlock
from mmattn.fusion.core import FusionCore
from mmattn.fusion.input_projection import InputProjection, ModalityProjection, sinusoidal_encoding
from mmattn.fusion.pool import AttentionPool

__all__ = ["PaddedFused", "fuse_padded"]


@dataclass(frozen=True, eq=False)
class PaddedFused:
    """What heads are given, as `mmattn.types.Fused`, but for single tokens.

    Args:
        padded: the fused tokens, width D.
        pooled: [B, D].
        by_modality: [B, M, D].
        presence: [B, M] boolean.
        head: name of the head that reads it, for errors.
    """

    padded: PaddedTokens
    pooled: Tensor
    by_modality: Tensor
    presence: Tensor
    head: str = ""

    @property
    def tokens(self) -> Any:
        raise InputError(
            f"export: the head {self.head!r} reads single tokens, which are padded here; expected heads that "
            "read `pooled` or `by_modality`, or have `forward_padded`; name those in `heads`"
        )

    def __len__(self) -> int:
        return len(self.pooled)


def fuse_padded(core: FusionCore, parts: Mapping[str, PaddedTokens], task: str | None = None) -> PaddedFused:
    """`core(parts)` for padded tokens.

    Args:
        core: in evaluation mode.
        parts: all modalities of the core, in any order; what is absent has a mask that is False.
        task: name of the task, for programs that ask for one.

    Raises:
        InputError: the core pools in another way than `AttentionPool`.
    """
    tokens = _project_inputs(core.input_projection, parts)
    context = None if task is None else core._with_task_embeddings({"task": task})
    for block in core.blocks:
        tokens = _apply_block(block, tokens, context)
    if not isinstance(core.pool, AttentionPool):
        raise InputError(f"export: got the pool {type(core.pool).__name__}, expected AttentionPool")
    return _pool(core.pool, tokens)


def _project_inputs(entry: InputProjection, parts: Mapping[str, PaddedTokens]) -> PaddedTokens:
    """All modalities side by side, in the entry's order."""
    entered = []
    for kind, name in enumerate(entry.input_dims):
        part = parts[name]
        code_BTD = sinusoidal_encoding(part.position.flatten(), entry.dim).unflatten(0, part.position.shape)
        projected_BTD = _project(entry.projections[name], part)  # type: ignore[arg-type]
        x_BTD = projected_BTD + entry.modality_embeddings[kind] + entry.position_scale[kind] * code_BTD
        # What is absent has tokens of nothing here: zeros keep whatever stands there out of every sum.
        entered.append(torch.where(part.mask[:, :, None], x_BTD, 0.0))
    ordered = [parts[name] for name in entry.input_dims]
    modality = [torch.full_like(part.modality, kind) for kind, part in enumerate(ordered)]
    return PaddedTokens(
        torch.cat(entered, dim=1),
        torch.cat([part.mask for part in ordered], dim=1),
        torch.cat(modality, dim=1),
        torch.cat([part.position for part in ordered], dim=1),
        tuple(entry.input_dims),
        _times(ordered),
    )


def _times(parts: list[PaddedTokens]) -> Tensor | None:
    if all(part.time is None for part in parts):
        return None
    unknown = [torch.full_like(part.values[:, :, 0], torch.nan) for part in parts]
    return torch.cat(
        [none if part.time is None else part.time for part, none in zip(parts, unknown, strict=True)], dim=1
    )


def _project(projection: ModalityProjection, part: PaddedTokens) -> Tensor:
    field_BT = part.position.clamp(0, projection.fields - 1)
    x_BTW = part.values * projection.scale[field_BT][:, :, None]
    if projection.input_norm is not None:
        x_BTW = (
            projection.input_norm(x_BTW.flatten(0, 1)).unflatten(0, field_BT.shape) * x_BTW.shape[2] ** -0.5
        )
    if projection.fields == 1:
        return x_BTW @ projection.weight[0]
    fields = [(field_BT == field)[:, :, None] * (x_BTW @ w) for field, w in enumerate(projection.weight)]
    return torch.stack(fields).sum(0)


def _apply_block(block: nn.Module, tokens: PaddedTokens, context: Mapping[str, Any] | None) -> PaddedTokens:
    if isinstance(block, BottleneckBlock):
        task = (context or {}).get("task")
        narrow = None if task is None else {"task": block.down(task)}
        inner = _apply_block(block.block, tokens.with_values(block.down(tokens.values)), narrow)
        return tokens.with_values(tokens.values + block.up(inner.values))
    if not isinstance(block, FusionBlock):
        raise InputError(
            f"export: got the block {type(block).__name__}, expected FusionBlock or BottleneckBlock"
        )
    normed = tokens.with_values(block.attention_norm(tokens.values))
    attended = attend_padded(block.attention, normed, context=context)
    return tokens.with_values(block._after_attention(tokens.values, attended))


def _pool(pool: AttentionPool, tokens: PaddedTokens) -> PaddedFused:
    score_BTH = pool.score(tokens.values)
    split_BTHK = tokens.values.unflatten(2, (pool.heads, -1))
    vectors, counts = [], []
    for kind in range(len(tokens.modalities)):
        own_BT1 = (tokens.mask & (tokens.modality == kind))[:, :, None]
        floor = torch.finfo(score_BTH.dtype).min / 2
        weight_BTH = score_BTH.masked_fill(~own_BT1, floor).softmax(1).masked_fill(~own_BT1, 0.0)
        vectors.append((split_BTHK * weight_BTH[:, :, :, None]).sum(1).flatten(1))
        counts.append(own_BT1[:, :, 0].sum(1))
    vectors_BMD, count_BM = torch.stack(vectors, dim=1), torch.stack(counts, dim=1)
    share_BM = count_BM.to(vectors_BMD.dtype).sqrt() * pool.modality_gains
    return PaddedFused(tokens, (vectors_BMD * share_BM[:, :, None]).sum(1), vectors_BMD, count_BM > 0)
