"""FlexAttention on CUDA: masks and biases compiled into one kernel, over the packed tokens of a batch.

All samples form one sequence; which blocks of it can meet is derived from the offsets and the program's
own bounds (see blocks.py), so that no pair is looked at while planning. What the program adds to scores
is traced once with every number in captured tensors. Lengths are rounded up, and the number of kernels
is bounded: past the budget this backend refuses and says so once, and `plan` names what runs instead.
A sink is put beside the kernel, which also gives the logarithm of what its softmax divided by.

On the CPU it computes forward only and compiles for many seconds: it is refused there, except where a
parity test allows it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import sdpa_costs
from mmattn.attention.backends.flex_edges import build_edge_table
from mmattn.attention.backends.flex_pairs import (
    CapturedTensors,
    capture_tensors,
    flex_pairs,
    padded_num_samples,
)
from mmattn.attention.language.biases import GraphBias
from mmattn.attention.language.block_bounds import BlockFields, BlockPairs, summarize_blocks
from mmattn.attention.language.extensions import Extension
from mmattn.attention.language.norms import Softmax
from mmattn.attention.language.parameters import Dynamic
from mmattn.attention.language.scores import DotProductScore

if TYPE_CHECKING:
    from mmattn.attention.execution.attention_call import AttentionCall
    from mmattn.attention.execution.context_tensors import ContextTensors
    from mmattn.attention.execution.layout import Layout, TokenLayout
    from mmattn.attention.language.position_masks import Mask
    from mmattn.attention.language.program import Program

__all__ = ["MAX_KERNELS", "FlexAttention", "FlexKernelLimitWarning"]

_BLOCK = 128
# Triton multiplies no narrower matrices.
_MIN_HEAD_WIDTH = 16
# Kernels that may be compiled in one process; PyTorch's own limit is 8, past which it runs dense.
MAX_KERNELS = 64


class FlexKernelLimitWarning(UserWarning):
    """FlexAttention's budget of compiled kernels is spent: new programs run on another backend."""


class FlexAttention:
    """See the module."""

    name = "flex"
    dominated_by: frozenset[str] = frozenset()
    allow_cpu = False

    def __init__(self) -> None:
        self.kernels: set[tuple[Any, ...]] = set()

    def unsupported_reason(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> str | None:
        why = self._conditions_unsupported_reason(conditions, layout) or _program_unsupported_reason(program)
        if why is not None:
            return why
        if (
            len(self.kernels) < MAX_KERNELS
            or self._kernel_key(program, layout, conditions, context_tensors) in self.kernels
        ):
            return None
        _warn_once(MAX_KERNELS)
        return f"its budget of {MAX_KERNELS} compiled kernels is spent"

    def _conditions_unsupported_reason(self, conditions: Conditions, layout: Layout) -> str | None:
        if conditions.device != "cuda":
            if not self.allow_cpu:
                return "FlexAttention on the CPU is a parity target for tests only: forward, slow to compile"
            if conditions.gradient:
                return "FlexAttention has no gradient on the CPU"
        if conditions.dtype == torch.float64:
            return "FlexAttention does not compute in float64"
        if conditions.dropout:
            return "FlexAttention drops no weights: they exist inside of its kernel only"
        return None if layout.num_pairs else "there are no pairs to score"

    def estimate(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> Estimate:
        settings = sdpa_costs(conditions)
        blocks = _block_sparsity(layout, program.mask)
        pairs = int(blocks.partial.sum() + blocks.full.sum()) * _BLOCK * _BLOCK
        # Half of the speed of a fused kernel without modifications, and the block mask to build.
        return Estimate(
            20 * settings.seconds_per_step + 2 * pairs * settings.seconds_per_pair,
            pairs / max(layout.num_pairs, 1),
        )

    def run(self, call: AttentionCall, conditions: Conditions) -> Tensor:
        self.kernels.add(self._kernel_key(call.program, call.layout, conditions, call.context_tensors))
        program, norm = call.program, call.program.norm
        assert isinstance(norm, Softmax)
        q_HNK, k_HNK, scale = _scaled_queries_and_keys(call)
        lengths = _padded_lengths(call.layout)
        captured = capture_tensors(call, *lengths)
        out, lse = _compiled()(
            _pad_tokens(q_HNK, lengths[0]),
            _pad_tokens(k_HNK, lengths[1]),
            _pad_tokens(call.v.transpose(0, 1), lengths[1]),
            score_mod=_score_mod(program, captured) if program.chain.modifiers else None,
            block_mask=_block_mask(call, captured, lengths),
            scale=scale,
            sink=norm.sink is not None,
        )
        if norm.sink is not None:
            # One more key with this score and a value of zero only makes the other weights smaller.
            out = out * torch.sigmoid(lse - captured.parameters[norm.sink][:, None])[..., None].to(out.dtype)
        result: Tensor = out[0, :, : len(call.q), : call.v.shape[-1]].transpose(0, 1)
        return result

    def _kernel_key(
        self, program: Program, layout: Layout, conditions: Conditions, context_tensors: ContextTensors
    ) -> tuple[Any, ...]:
        """What PyTorch compiles one kernel for: the program, and the shapes of all that it captures."""
        lengths = _padded_lengths(layout)
        edges = tuple(
            build_edge_table(context_tensors.edges[term.name], term.relations, layout, lengths[0]).shape
            for term in program.chain.modifiers
            if isinstance(term, GraphBias) and term.name in context_tensors.edges
        )
        samples = padded_num_samples(layout.num_samples) if _has_dynamic(program) else 0
        names = (layout.query.modalities, layout.key.modalities)
        return program, names, conditions, lengths, edges, samples, context_tensors.present is None


def _program_unsupported_reason(program: Program) -> str | None:
    """Why FlexAttention cannot say this program, or None where it can."""
    norm = program.norm
    if not isinstance(norm, Softmax):
        return f"FlexAttention has no norm {norm}"
    if norm.sink is not None and not hasattr(torch_flex, "AuxRequest"):
        return f"this PyTorch ({torch.__version__}) does not give the softmax's divisor, which a sink needs"
    if not isinstance(program.chain.base, DotProductScore):
        return f"FlexAttention has no score {program.chain.base}"
    for term in program.walk():
        if isinstance(term, Extension):
            return f"{term} is an extension, which nobody promised to be traceable"
    return None


@lru_cache(maxsize=256)
def _has_dynamic(program: Program) -> bool:
    return any(isinstance(term, Dynamic) for term in program.walk())


def _scaled_queries_and_keys(call: AttentionCall) -> tuple[Tensor, Tensor, float]:
    """Queries and keys [H, N, K], and the scale of their product."""
    base = call.program.chain.base
    assert isinstance(base, DotProductScore)
    q, k = base.transform_qk(call.q.transpose(0, 1), call.k.transpose(0, 1), call.parameters, call.head)
    scale = call.q.shape[-1] ** -0.5 if base.scale is None else call.number_per_query(base.scale)
    if isinstance(scale, Tensor):
        return q * scale.expand(*call.q.shape[:2], 1).transpose(0, 1), k, 1.0
    return q, k, scale


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    # Without this PyTorch would silently run dense after eight programs or lengths.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * MAX_KERNELS)
    torch._dynamo.config.accumulated_recompile_limit = max(
        torch._dynamo.config.accumulated_recompile_limit, 4 * MAX_KERNELS
    )
    return torch.compile(_attend, dynamic=False, fullgraph=True)


def _attend(q: Tensor, k: Tensor, v: Tensor, sink: bool, **options: Any) -> tuple[Tensor, Tensor | None]:
    """The result, and the logarithm of the softmax's divisor where a sink wants it."""
    attend: Callable[..., Any] = flex_attention
    if not sink:
        return attend(q, k, v, **options), None
    out, aux = attend(q, k, v, return_aux=torch_flex.AuxRequest(lse=True), **options)
    return out, aux.lse


@lru_cache(maxsize=1)
def _warn_once(budget: int) -> None:
    warnings.warn(
        f"mmattn: FlexAttention has compiled {budget} kernels and takes no new program or length; other "
        "backends run those, see layer.plan(tokens)",
        FlexKernelLimitWarning,
        stacklevel=2,
    )


def _padded_lengths(layout: Layout) -> tuple[int, int]:
    """Numbers of query and key tokens, rounded up to three leading bits of blocks."""
    return _round_up(layout.query.starts[-1]), _round_up(layout.key.starts[-1])


def _round_up(tokens: int) -> int:
    blocks = max(1, -(-tokens // _BLOCK))
    step = 1 << max(0, blocks.bit_length() - 3)
    return -(-blocks // step) * step * _BLOCK


def _pad_tokens(x_HNK: Tensor, length: int) -> Tensor:
    """[1, H, length, K'], with zeros behind the tokens and, in narrow heads, beside their columns."""
    columns = max(0, _MIN_HEAD_WIDTH - x_HNK.shape[2])
    return F.pad(x_HNK, (0, columns, 0, length - x_HNK.shape[1]))[None].contiguous()


def _score_mod(program: Program, captured: CapturedTensors) -> Callable[..., Tensor]:
    changes = program.chain.modifiers

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        pairs = flex_pairs(captured, head, query, key)
        for change in changes:
            if isinstance(change, GraphBias):
                score = score + captured.edges[change.name].edge_bias(head, query, key)
            else:
                score = change.modify(score, pairs)
        return score

    return score_mod


class _BlockSparsity:
    """Which blocks of the packed tokens meet: some pairs of them, or all."""

    def __init__(self, partial: Tensor, full: Tensor) -> None:
        self.partial, self.full = partial, full


def _block_sparsity(layout: Layout, mask: Mask) -> _BlockSparsity:
    """From the offsets and the mask's bounds alone, once a layout."""
    key = ("flex blocks", mask)
    if key not in layout.cache:
        (query, q_first, q_last), (keys, k_first, k_last) = (
            _block_fields(layout.query, True),
            _block_fields(layout.key, False),
        )
        bounds = mask.bounds(BlockPairs(query, keys))
        meet = (q_first <= k_last) & (k_first <= q_last)
        alone = (q_first == q_last) & (k_first == k_last) & (q_first == k_first)
        full = (
            bounds.must_hold
            & alone
            & _unpadded_blocks(layout.query, True)
            & _unpadded_blocks(layout.key, False)
        )
        layout.cache[key] = _BlockSparsity((bounds.may_hold & meet & ~full), full.expand_as(meet))
    result: _BlockSparsity = layout.cache[key]
    return result


def _block_fields(side: TokenLayout, is_query: bool) -> tuple[BlockFields, Tensor, Tensor]:
    low, high, kinds = summarize_blocks(side.position, side.modality, side.modalities, _BLOCK)
    first, last, _ = summarize_blocks(side.sample, torch.zeros_like(side.sample), (), _BLOCK)
    if is_query:
        low, high, kinds = low[:, None], high[:, None], kinds[:, None]
        first, last = first[:, None], last[:, None]
    else:
        low, high, kinds, first, last = (x[None] for x in (low, high, kinds, first, last))
    return BlockFields(low, high, kinds, side.modalities), first, last


def _unpadded_blocks(side: TokenLayout, is_query: bool) -> Tensor:
    """Blocks that hold no padding."""
    tokens = side.starts[-1]
    whole = torch.arange(-(-tokens // _BLOCK), device=side.position.device) < tokens // _BLOCK
    return whole[:, None] if is_query else whole[None]


def _block_mask(call: AttentionCall, captured: CapturedTensors, lengths: tuple[int, int]) -> BlockMask:
    mask, blocks = call.program.mask, _block_sparsity(call.layout, call.program.mask)
    partial, full = blocks.partial, blocks.full
    if call.context_tensors.present is not None:
        partial, full = partial | full, torch.zeros_like(full)

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = captured.query.sample[query] == captured.key.sample[key]
        return same & mask.allow(flex_pairs(captured, head, query, key))

    shape = (lengths[0] // _BLOCK, lengths[1] // _BLOCK)
    result: BlockMask = BlockMask.from_kv_blocks(
        *_block_indices(partial, shape),
        *_block_indices(full, shape),
        BLOCK_SIZE=_BLOCK,
        mask_mod=mask_mod,
        seq_lengths=lengths,
    )
    return result


def _block_indices(blocks: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[1, 1, nQ] numbers and [1, 1, nQ, nK] indices of the marked blocks, marked ones first."""
    dense = torch.zeros(shape, dtype=torch.bool, device=blocks.device)
    dense[: blocks.shape[0], : blocks.shape[1]] = blocks
    indices = dense.to(torch.int32).argsort(dim=1, descending=True, stable=True)
    return dense.sum(1).to(torch.int32)[None, None], indices.to(torch.int32)[None, None].contiguous()
