"""Attention programs against padded attention: time and peak memory, forward and with backward.

    python tests/benchmarks/bench_attention.py [--repeat 7] [--device cuda] [--cases window route]

Every rival gets what it is best at: padded batches sorted by nothing, a mask where it needs one, and
`is_causal` where that says it. Queries, keys and values lie as projections leave them, [tokens, heads,
width], for everybody. One thread, one process, the rivals in turn, medians.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmattn import attention as A
from mmattn.types import Tokens

HEADS, WIDTH = 8, 64
DIM = HEADS * WIDTH

Run = Callable[[], Tensor]


@dataclass(frozen=True)
class Case:
    """One workload.

    Args:
        name: in the table.
        program: what mmattn runs.
        q, kv: the tokens; their values are not used.
        mask: boolean [1 or B, 1, Q, K] for padded SDPA, None for none.
        causal: may padded SDPA say `is_causal`?
    """

    name: str
    program: A.Program
    q: Tokens
    kv: Tokens
    mask: Tensor | None
    causal: bool = False


def sentence(lengths: list[int], name: str = "text") -> Tokens:
    return Tokens.from_lengths(torch.zeros(sum(lengths), DIM), torch.tensor(lengths), name)


def key_mask(lengths: list[int]) -> Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])[:, None, None]


def cases() -> list[Case]:
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high + 1, (count,), generator=generator).tolist()

    long = sentence([2048])
    place = torch.arange(2048)
    near = ((place[:, None] - place).abs() <= 64)[None, None]
    names = ("text", "image", "audio", "table")
    mixed = Tokens.cat([sentence([512], name) for name in names])
    same = (mixed.modality[:, None] == mixed.modality)[None, None]
    ragged, tiny, short = draw(20, 485, 32), draw(1, 16, 512), sentence([64])
    keys = draw(50, 700, 32)
    return [
        Case("window(64) of 2048", A.Program(mask=A.window(64)), long, long, near),
        Case("routes, 25% of 2048", A.Program(mask=A.route({n: [n] for n in names})), mixed, mixed, same),
        Case("causal 2048", A.Program(mask=A.causal), long, long, None, causal=True),
        Case("ragged, 32 up to 485", A.Program(), sentence(ragged), sentence(ragged), key_mask(ragged)),
        Case("tiny, 512 of 1 to 16", A.Program(), sentence(tiny), sentence(tiny), key_mask(tiny)),
        Case("latents, 32 over ragged", A.Program(), sentence([32] * 32), sentence(keys), key_mask(keys)),
        Case("plain, 64 tokens", A.Program(), short, short, None),
        Case(
            "modality bias, ragged",
            A.Program(score=A.dot() >> A.modality_bias("pair")),
            sentence(ragged),
            sentence(ragged),
            key_mask(ragged),
        ),
    ]


def ours(case: Case, gradient: bool, device: str, dtype: torch.dtype, projections: bool) -> tuple[Run, str]:
    """The layer, with or without its projections, and the backend that runs."""
    layer = A.Attention(case.program, DIM, HEADS).to(device, dtype)
    q, k, v = (
        torch.randn(len(tokens.values), HEADS, WIDTH, device=device, dtype=dtype, requires_grad=gradient)
        for tokens in (case.q, case.kv, case.kv)
    )
    q_tokens = case.q.to(device, dtype)
    kv_tokens = q_tokens if case.kv is case.q else case.kv.to(device, dtype)
    with torch.set_grad_enabled(gradient):
        backend = layer.plan(q_tokens, kv_tokens).backend
    if projections:
        return lambda: layer(q_tokens, kv_tokens).values, backend
    layer.o_proj = nn.Identity()  # type: ignore[assignment]
    return lambda: layer._attend(layer._call(q_tokens, kv_tokens, {}, q, k, v)), backend


def padded(
    case: Case, gradient: bool, device: str, dtype: torch.dtype, projections: bool, eager: bool = False
) -> Run:
    """Padded attention: SDPA, or the scores written out."""
    q, k, v = (
        torch.randn(
            len(tokens), max(tokens.sizes), HEADS, WIDTH, device=device, dtype=dtype, requires_grad=gradient
        )
        for tokens in (case.q, case.kv, case.kv)
    )
    mask = None if case.mask is None else case.mask.to(device)
    if eager and case.causal:
        mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=device).tril()

    linear = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(4)).to(device, dtype)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = (x.transpose(1, 2) for x in (q, k, v))
        if eager:
            return _eager(*heads, mask).transpose(1, 2).flatten(2)
        out = F.scaled_dot_product_attention(*heads, attn_mask=mask, is_causal=case.causal)
        return out.transpose(1, 2).flatten(2)

    def layer() -> Tensor:
        inputs = (x.detach().flatten(2) for x in (q, k, k))
        projected = (one(x).unflatten(-1, (HEADS, WIDTH)) for one, x in zip(linear, inputs, strict=False))
        return linear[3](attend(*projected))

    return layer if projections else lambda: attend(q, k, v)


def _eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    score = q @ k.transpose(-1, -2) / WIDTH**0.5
    if mask is not None:
        score = score.masked_fill(~mask, float("-inf"))
    return score.softmax(-1) @ v


def step(run: Run, gradient: bool, device: str) -> float:
    """Seconds of one run."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(gradient):
        out = run()
        if gradient:
            out.sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def medians(runs: list[Run], gradient: bool, device: str, repeat: int) -> list[float]:
    """Seconds of each, taken in turn."""
    for run in runs:
        step(run, gradient, device)
    times = [[step(run, gradient, device) for run in runs] for _ in range(repeat)]
    return [sorted(column)[repeat // 2] for column in zip(*times, strict=True)]


def peak(run: Run, gradient: bool, device: str) -> float:
    """Megabytes that one run adds at its peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(run, gradient, device)
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    # A child of its own: what was allocated before does not hide what this run needs.
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    reader, writer = os.pipe()
    if os.fork() == 0:
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step(run, gradient, device)
        after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        os.write(writer, str(after_kb - before_kb).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        kilobytes = int(result.read())
    os.wait()
    return kilobytes / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default=None, choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--cases", nargs="*", default=[], help="words that a case's name must hold")
    parser.add_argument("--projections", action="store_true", help="the whole layer, with its projections")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype = getattr(torch, options.dtype or ("bfloat16" if options.device == "cuda" else "float32"))
    print(f"torch {torch.__version__}, {options.device}, {dtype}, {HEADS} heads of {WIDTH}; ms and MB")
    print("| case | pass | backend | mmattn | padded SDPA | eager | speed-up | memory | SDPA's | eager's |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in cases():
        if options.cases and not any(word in case.name for word in options.cases):
            continue
        for gradient in (False, True):
            common = (case, gradient, options.device, dtype, options.projections)
            run, backend = ours(*common)
            sdpa, eager = (padded(*common, eager=slow) for slow in (False, True))
            runs = [run, sdpa, eager]
            memory = [float("nan")] * 3
            if not options.no_memory:
                memory = [peak(one, gradient, options.device) for one in runs]
            seconds = medians(runs, gradient, options.device, options.repeat)
            cells = [f"{value * 1e3:.3g}" for value in seconds]
            print(
                f"| {case.name} | {'forward + backward' if gradient else 'forward'} | {backend} | "
                f"{' | '.join(cells)} | {seconds[1] / seconds[0]:.2f} | "
                f"{' | '.join(f'{value:.3g}' for value in memory)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
