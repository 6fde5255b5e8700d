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
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from mmattn.attention.backends.base import Conditions, Estimate
from mmattn.attention.backends.costs import fused_settings
from mmattn.attention.backends.flex_edges import find_edges
from mmattn.attention.backends.flex_pairs import Captured, capture, flex_pairs, padded_rows
from mmattn.attention.execution.attention_call import Call
from mmattn.attention.execution.context_tensors import Extras
from mmattn.attention.execution.layout import Layout, Side
from mmattn.attention.language.biases import GraphBias
from mmattn.attention.language.block_bounds import BlockFields, BlockPairs, summarise
from mmattn.attention.language.extensions import Extension
from mmattn.attention.language.norms import Softmax
from mmattn.attention.language.parameters import Dynamic
from mmattn.attention.language.position_masks import Mask
from mmattn.attention.language.program import Program
from mmattn.attention.language.scores import DotLike

__all__ = ["BUDGET", "Flex", "FlexBudgetWarning"]

_BLOCK = 128
# Triton multiplies no narrower matrices.
_NARROWEST = 16
# Kernels that may be compiled in one process; PyTorch's own limit is 8, past which it runs dense.
BUDGET = 64


class FlexBudgetWarning(UserWarning):
    """FlexAttention's budget of compiled kernels is spent: new programs run on another backend."""


class Flex:
    """See the module."""

    name = "flex"
    beaten_by: frozenset[str] = frozenset()
    allow_cpu = False

    def __init__(self) -> None:
        self.kernels: set[tuple[Any, ...]] = set()

    def refuses(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> str | None:
        why = self._unable(conditions, layout) or _unsaid(program)
        if why is not None:
            return why
        if len(self.kernels) < BUDGET or self._kernel(program, layout, conditions, extras) in self.kernels:
            return None
        _say_once(BUDGET)
        return f"its budget of {BUDGET} compiled kernels is spent"

    def _unable(self, conditions: Conditions, layout: Layout) -> str | None:
        if conditions.device != "cuda":
            if not self.allow_cpu:
                return "FlexAttention on the CPU is a parity target for tests only: forward, slow to compile"
            if conditions.gradient:
                return "FlexAttention has no gradient on the CPU"
        if conditions.dtype == torch.float64:
            return "FlexAttention does not compute in float64"
        if conditions.dropout:
            return "FlexAttention drops no weights: they exist inside of its kernel only"
        return None if layout.pairs else "there are no pairs to score"

    def estimate(self, program: Program, layout: Layout, conditions: Conditions, extras: Extras) -> Estimate:
        settings = fused_settings(conditions)
        blocks = _blocks(layout, program.mask)
        pairs = int(blocks.partial.sum() + blocks.full.sum()) * _BLOCK * _BLOCK
        # Half of the speed of a fused kernel without modifications, and the block mask to build.
        return Estimate(20 * settings.call + 2 * pairs * settings.pair, pairs / max(layout.pairs, 1))

    def run(self, call: Call, conditions: Conditions) -> Tensor:
        self.kernels.add(self._kernel(call.program, call.layout, conditions, call.extras))
        program, norm = call.program, call.program.norm
        assert isinstance(norm, Softmax)
        q_HNK, k_HNK, scale = _scaled(call)
        lengths = _rounded(call.layout)
        captured = capture(call, *lengths)
        out, lse = _compiled()(
            _padded(q_HNK, lengths[0]),
            _padded(k_HNK, lengths[1]),
            _padded(call.v.transpose(0, 1), lengths[1]),
            score_mod=_score_mod(program, captured) if program.chain.changes else None,
            block_mask=_block_mask(call, captured, lengths),
            scale=scale,
            sink=norm.sink is not None,
        )
        if norm.sink is not None:
            # One more key with this score and a value of zero only makes the other weights smaller.
            out = out * torch.sigmoid(lse - captured.parameters[norm.sink][:, None])[..., None].to(out.dtype)
        return out[0, :, : len(call.q), : call.v.shape[-1]].transpose(0, 1)

    def _kernel(
        self, program: Program, layout: Layout, conditions: Conditions, extras: Extras
    ) -> tuple[Any, ...]:
        """What PyTorch compiles one kernel for: the program, and the shapes of all that it captures."""
        lengths = _rounded(layout)
        edges = tuple(
            find_edges(extras.edges[term.name], term.relations, layout, lengths[0]).shape
            for term in program.chain.changes
            if isinstance(term, GraphBias) and term.name in extras.edges
        )
        samples = padded_rows(layout.samples) if _has_dynamic(program) else 0
        names = (layout.query.modalities, layout.key.modalities)
        return program, names, conditions, lengths, edges, samples, extras.present is None


def _unsaid(program: Program) -> str | None:
    """Why FlexAttention cannot say this program, or None where it can."""
    norm = program.norm
    if not isinstance(norm, Softmax):
        return f"FlexAttention has no norm {norm}"
    if norm.sink is not None and not hasattr(torch_flex, "AuxRequest"):
        return f"this PyTorch ({torch.__version__}) does not give the softmax's divisor, which a sink needs"
    if not isinstance(program.chain.base, DotLike):
        return f"FlexAttention has no score {program.chain.base}"
    for term in program.walk():
        if isinstance(term, Extension):
            return f"{term} is an extension, which nobody promised to be traceable"
    return None


@lru_cache(maxsize=256)
def _has_dynamic(program: Program) -> bool:
    return any(isinstance(term, Dynamic) for term in program.walk())


def _scaled(call: Call) -> tuple[Tensor, Tensor, float]:
    """Queries and keys [H, N, K], and the scale of their product."""
    base = call.program.chain.base
    assert isinstance(base, DotLike)
    q, k = base.fold(call.q.transpose(0, 1), call.k.transpose(0, 1), call.parameters, call.head)
    scale = call.q.shape[-1] ** -0.5 if base.scale is None else call.query_number(base.scale)
    if isinstance(scale, Tensor):
        return q * scale.expand(*call.q.shape[:2], 1).transpose(0, 1), k, 1.0
    return q, k, scale


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    # Without this PyTorch would silently run dense after eight programs or lengths.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 2 * BUDGET)
    torch._dynamo.config.accumulated_recompile_limit = max(
        torch._dynamo.config.accumulated_recompile_limit, 4 * BUDGET
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
def _say_once(budget: int) -> None:
    warnings.warn(
        f"mmattn: FlexAttention has compiled {budget} kernels and takes no new program or length; other "
        "backends run those, see layer.plan(tokens)",
        FlexBudgetWarning,
        stacklevel=2,
    )


def _rounded(layout: Layout) -> tuple[int, int]:
    """Numbers of query and key tokens, rounded up to three leading bits of blocks."""
    return _round(layout.query.starts[-1]), _round(layout.key.starts[-1])


def _round(tokens: int) -> int:
    blocks = max(1, -(-tokens // _BLOCK))
    step = 1 << max(0, blocks.bit_length() - 3)
    return -(-blocks // step) * step * _BLOCK


def _padded(x_HNK: Tensor, length: int) -> Tensor:
    """[1, H, length, K'], with zeros behind the tokens and, in narrow heads, beside their columns."""
    columns = max(0, _NARROWEST - x_HNK.shape[2])
    return F.pad(x_HNK, (0, columns, 0, length - x_HNK.shape[1]))[None].contiguous()


def _score_mod(program: Program, captured: Captured) -> Callable[..., Tensor]:
    changes = program.chain.changes

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        pairs = flex_pairs(captured, head, query, key)
        for change in changes:
            if isinstance(change, GraphBias):
                score = score + captured.edges[change.name].look_up(head, query, key)
            else:
                score = change.change(score, pairs)
        return score

    return score_mod


class _Blocks:
    """Which blocks of the packed tokens meet: some pairs of them, or all."""

    def __init__(self, partial: Tensor, full: Tensor) -> None:
        self.partial, self.full = partial, full


def _blocks(layout: Layout, mask: Mask) -> _Blocks:
    """From the offsets and the mask's bounds alone, once a layout."""
    key = ("flex blocks", mask)
    if key not in layout.cache:
        (query, q_first, q_last), (keys, k_first, k_last) = (
            _side(layout.query, True),
            _side(layout.key, False),
        )
        bounds = mask.bounds(BlockPairs(query, keys))
        meet = (q_first <= k_last) & (k_first <= q_last)
        alone = (q_first == q_last) & (k_first == k_last) & (q_first == k_first)
        full = bounds.must & alone & _whole(layout.query, True) & _whole(layout.key, False)
        layout.cache[key] = _Blocks((bounds.may & meet & ~full), full.expand_as(meet))
    return layout.cache[key]


def _side(side: Side, query: bool) -> tuple[BlockFields, Tensor, Tensor]:
    low, high, kinds = summarise(side.position, side.modality, side.modalities, _BLOCK)
    first, last, _ = summarise(side.sample, torch.zeros_like(side.sample), (), _BLOCK)
    if query:
        low, high, kinds = low[:, None], high[:, None], kinds[:, None]
        first, last = first[:, None], last[:, None]
    else:
        low, high, kinds, first, last = (x[None] for x in (low, high, kinds, first, last))
    return BlockFields(low, high, kinds, side.modalities), first, last


def _whole(side: Side, query: bool) -> Tensor:
    """Blocks that hold no padding."""
    tokens = side.starts[-1]
    whole = torch.arange(-(-tokens // _BLOCK), device=side.position.device) < tokens // _BLOCK
    return whole[:, None] if query else whole[None]


def _block_mask(call: Call, captured: Captured, lengths: tuple[int, int]) -> BlockMask:
    mask, blocks = call.program.mask, _blocks(call.layout, call.program.mask)
    partial, full = blocks.partial, blocks.full
    if call.extras.present is not None:
        partial, full = partial | full, torch.zeros_like(full)

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = captured.query.sample[query] == captured.key.sample[key]
        return same & mask.allow(flex_pairs(captured, head, query, key))

    shape = (lengths[0] // _BLOCK, lengths[1] // _BLOCK)
    return BlockMask.from_kv_blocks(
        *_ordered(partial, shape),
        *_ordered(full, shape),
        BLOCK_SIZE=_BLOCK,
        mask_mod=mask_mod,
        seq_lengths=lengths,
    )


def _ordered(blocks: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """[1, 1, nQ] numbers and [1, 1, nQ, nK] indices of the marked blocks, marked ones first."""
    dense = torch.zeros(shape, dtype=torch.bool, device=blocks.device)
    dense[: blocks.shape[0], : blocks.shape[1]] = blocks
    indices = dense.to(torch.int32).argsort(dim=1, descending=True, stable=True)
    return dense.sum(1).to(torch.int32)[None, None], indices.to(torch.int32)[None, None].contiguous()
