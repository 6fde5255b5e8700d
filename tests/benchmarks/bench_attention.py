"""Attention programs against padded attention: time and peak memory, forward and with backward.

    mmattn bench attention [--repeat 7] [--device cpu] [--cases window route] [--projections]

Every baseline gets what it is best at: padded batches made beforehand, a mask where it needs one,
`is_causal` where that says it, x-transformers with SDPA inside. Queries, keys and values lie as projections
leave them, [tokens, heads, width], for everybody. One thread, one process, the baselines in turn, medians of
processor time.

Where there is a GPU, a second part runs there in bfloat16: the same cases and the multimodal batch of the
fusion benchmark, 1024 samples of width 1024, beside compiled FlexAttention and bare varlen flash attention.
Operations are counted for pairs that may meet, twice as many backward as forward, none for recomputation.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workloads import Case, cases, padded_modality, ragged_cases

from mmattn import InputError
from mmattn import attention as A
from mmattn.testing.measuring import (
    Report,
    chosen,
    devices,
    dtype_on,
    in_turn,
    matmul_peak,
    peak_megabytes,
    seconds_on,
    torch_options,
)

OURS, SDPA, EAGER, THEIRS = "mmattn", "padded SDPA", "padded eager", "x-transformers"
FLEX, VARLEN = "mmattn on flex", "bare varlen"

# Queries, keys and values as heads [B, H, T, K]; mask; bias -> [B, H, T, K].
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Setting:
    """Where and how everything of one table runs."""

    device: str
    dtype: torch.dtype
    gradient: bool
    projections: bool

    def inputs(self, case: Case, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Random queries, keys and values [..., H, K]."""
        heads, width = case.heads, case.q.dim // case.heads
        return [
            torch.randn(
                *shape, heads, width, device=self.device, dtype=self.dtype, requires_grad=self.gradient
            )
            for shape in shapes
        ]


class Runner:
    """A baseline on a case: `run` is one forward, or one forward and backward.

    Args:
        forward: what it computes.
        leaves: what gets gradients.
    """

    def __init__(self, setting: Setting, forward: Callable[[], Tensor], leaves: list[Tensor]) -> None:
        self.setting, self.forward, self.leaves = setting, forward, leaves
        self.gradient: Tensor | None = None

    def release(self) -> None:
        """Forget the gradients."""
        for leaf in self.leaves:
            leaf.grad = None

    def run(self) -> None:
        self.release()
        with torch.set_grad_enabled(self.setting.gradient):
            out = self.forward()
        if self.setting.gradient:
            if self.gradient is None:
                self.gradient = torch.randn_like(out)
            out.backward(self.gradient)


class Ours:
    """The layer, with or without its projections."""

    def __init__(self, case: Case, setting: Setting, backend: str = "auto") -> None:
        self.case, self.setting = case, setting
        self.layer = A.Attention(case.program, case.q.dim, case.heads, backend=backend)
        self.layer.register_modalities(dict.fromkeys((*case.q.modalities, *case.kv.modalities)))
        self.layer.to(setting.device, setting.dtype)
        self.qkv = setting.inputs(case, *((len(entry.values),) for entry in (case.q, case.kv, case.kv)))
        if not setting.projections:
            self.layer.o_proj = nn.Identity()  # type: ignore[assignment]
        self.q = case.q.to(setting.device, setting.dtype)
        self.kv = self.q if case.kv is case.q else case.kv.to(setting.device, setting.dtype)

    @property
    def backend(self) -> str:
        """The name of the one that runs.

        Raises:
            InputError: the backend that was asked for cannot.
        """
        with torch.set_grad_enabled(self.setting.gradient):
            return self.layer.plan(self.q, self.kv).backend

    def renew(self) -> None:
        """Forget all that was derived from the tokens."""
        same = self.kv is self.q
        self.q = dataclasses.replace(self.q)
        self.kv = self.q if same else dataclasses.replace(self.kv)

    def forward(self) -> Tensor:
        if self.case.tokens == "made":
            self.renew()
        if self.setting.projections:
            return self.layer(self.q, self.kv).values
        return self.layer._attend(self.layer._build_call(self.q, self.kv, {}, *self.qkv))

    def runner(self) -> Runner:
        return Runner(self.setting, self.forward, [*self.qkv, *self.layer.parameters()])


def padded(case: Case, setting: Setting, attend: Attend) -> Runner:
    """Padded attention over a batch that lies there padded."""
    sides = (case.q, case.kv, case.kv)
    q, k, v = setting.inputs(case, *((len(side), max(side.length_list)) for side in sides))
    mask = None if case.mask is None else case.mask.to(setting.device)
    table = kinds = None
    if case.bias:
        size = len(case.q.modalities)
        table = torch.randn(case.heads, size, size, device=setting.device, dtype=setting.dtype)
        table.requires_grad_(setting.gradient)
        kinds = [
            F.one_hot(padded_modality(entry), size).to(setting.device, setting.dtype)[:, None]
            for entry in (case.q, case.kv)
        ]

    def joined(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = None
        if table is not None and kinds is not None:
            bias = kinds[0] @ table @ kinds[1].mT  # products: indexing has a far slower gradient
        heads = (x.transpose(1, 2) for x in (q, k, v))
        return attend(*heads, mask, bias).transpose(1, 2).flatten(2)

    leaves = [q, k, v] if table is None else [q, k, v, table]
    if not setting.projections:
        return Runner(setting, lambda: joined(q, k, v), leaves)
    linear = nn.ModuleList(nn.Linear(case.q.dim, case.q.dim) for _ in range(4))
    linear.to(setting.device, setting.dtype)
    inputs = [x.detach().flatten(2) for x in (q, k, k)]

    def layer() -> Tensor:
        projected = (
            entry(x).unflatten(-1, (case.heads, -1)) for entry, x in zip(linear, inputs, strict=False)
        )
        return linear[3](joined(*projected))

    return Runner(setting, layer, [*leaves, *linear.parameters()])


def by_sdpa(causal: bool) -> Attend:
    """PyTorch's fused attention."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        if bias is not None and mask is not None:
            mask = bias.masked_fill(~mask, float("-inf"))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)

    return attend


def by_eager(causal: bool) -> Attend:
    """The scores written out."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        score = q @ k.mT / math.sqrt(q.shape[-1])
        if bias is not None:
            score = score + bias
        if causal:
            mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        if mask is not None:
            score = score.masked_fill(~mask, float("-inf"))
        return score.softmax(-1) @ v

    return attend


def by_x_transformers(causal: bool) -> Attend:
    """Its attention between the projections, with SDPA inside."""
    from x_transformers.attend import Attend as TheirAttend

    module = TheirAttend(flash=True, causal=causal)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        return module(q, k, v, mask=mask, attn_bias=bias)[0]

    return attend


def bare_varlen(case: Case, setting: Setting) -> Runner:
    """Flash attention straight over the packed tokens, everybody to everybody in a sample."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = setting.inputs(case, *((len(entry.values),) for entry in (case.q, case.kv, case.kv)))
    offsets = [entry.offsets.to(setting.device, torch.int32) for entry in (case.q, case.kv)]
    longest = [max(entry.length_list) for entry in (case.q, case.kv)]
    return Runner(setting, lambda: varlen_attn(q, k, v, *offsets, *longest).flatten(1), [q, k, v])


def baselines(case: Case, setting: Setting) -> Iterator[tuple[str, Runner]]:
    """Everybody but the layer as it chooses for itself."""
    yield SDPA, padded(case, setting, by_sdpa(case.causal))
    yield EAGER, padded(case, setting, by_eager(case.causal))
    yield THEIRS, padded(case, setting, by_x_transformers(case.causal))
    if setting.device != "cuda":
        return
    flex = Ours(case, setting, "flex")
    try:
        _ = flex.backend
    except InputError:
        pass  # what FlexAttention cannot run has no figure in its column
    else:
        yield FLEX, flex.runner()
    plain = case.program == A.Program() and setting.dtype in (torch.bfloat16, torch.float16)
    if plain and not setting.projections and 0 not in case.q.length_list:
        yield VARLEN, bare_varlen(case, setting)


def operations(case: Case, setting: Setting) -> float:
    """Floating point operations that the pairs need."""
    forward = 4 * case.pairs * case.q.dim
    if setting.projections:
        forward += 4 * case.q.dim**2 * (len(case.q.values) + len(case.kv.values))
    return forward * (3 if setting.gradient else 1)


def measure(case: Case, setting: Setting, arguments: argparse.Namespace, peak: float) -> list[str | float]:
    """A row of the table."""
    ours = Ours(case, setting)
    runners = {OURS: ours.runner(), **dict(baselines(case, setting))}
    memory: dict[str, float] = {}
    if not arguments.no_memory:
        memory = {
            name: peak_megabytes(runner.run, setting.device, runner.release)
            for name, runner in runners.items()
        }
    before = ours.renew if case.tokens == "new" else None
    runs = {name: runner.run for name, runner in runners.items()}
    seconds = in_turn(runs, arguments.repeat, seconds_on(setting.device), before)
    names, nothing = columns(setting.device), float("nan")
    return [
        case.name,
        "forward + backward" if setting.gradient else "forward",
        ours.backend,
        *(seconds.get(name, nothing) * 1e3 for name in names),
        seconds[SDPA] / seconds[OURS],
        f"{len(case.q.values) / seconds[OURS]:,.0f}",
        f"{operations(case, setting) / seconds[OURS] / peak:.1%}",
        *(memory.get(name, nothing) for name in names),
    ]


def columns(device: str) -> list[str]:
    """Who may run on this device."""
    return [OURS, SDPA, EAGER, THEIRS, *([FLEX, VARLEN] if device == "cuda" else [])]


def run_part(report: Report, arguments: argparse.Namespace, device: str) -> None:
    """All cases on one device."""
    dtype = dtype_on(device, arguments)
    peak = matmul_peak(device, dtype)
    report.note(f"on {device} in {dtype}, the fastest matrix product here: {peak / 1e9:,.0f} GFLOP/s")
    names = columns(device)
    report.table(
        f"attention{' with its projections' if arguments.projections else ''} on {device}; ms and MB",
        ["case", "pass", "backend", *names, "SDPA / mmattn", "tokens/s", "of the matmul peak"]
        + [f"{name}, MB" for name in names],
    )
    workload = [*cases(arguments.length)]
    if device == "cuda":
        workload += ragged_cases(arguments.samples, arguments.dim)
    for case in workload:
        if chosen(case.name, arguments.cases):
            for gradient in (False, True):
                setting = Setting(device, dtype, gradient, arguments.projections)
                report.row(*measure(case, setting, arguments, peak))


def main() -> None:
    parser = torch_options(__doc__, repeat=7)
    parser.add_argument("--projections", action="store_true", help="whole layers, with their projections")
    parser.add_argument("--length", type=int, default=2048, help="tokens of the long samples")
    parser.add_argument("--samples", type=int, default=1024, help="of the multimodal batch, on a GPU")
    parser.add_argument("--dim", type=int, default=1024, help="its width, a multiple of 64")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = Report(arguments, "x-transformers")
    for device in devices(arguments, report):
        run_part(report, arguments, device)
    report.close()


if __name__ == "__main__":
    main()
