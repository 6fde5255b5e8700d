"""What pruning half of the heads saves: one layer, and a core of two blocks.

    python tests/benchmarks/bench_prune.py [--dim 256] [--heads 8] [--samples 64] [--repeat 15]

One thread, one process; gated and pruned run in turn, and the medians count. Half of the gates are
closed, so that both compute the same; the largest difference of their results is printed beside.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import platform
import statistics
import sys
import time

import torch
from torch import Tensor, nn

from mmattn import Tokens
from mmattn import attention as A
from mmattn.fusion.block import FusionBlock

GATED = A.Program(score=A.dot() >> A.head_gate("gate"))
NEAR = A.Program(score=A.dot() >> A.head_gate("near"), mask=A.window(16))
BIASED = A.Program(score=A.dot() >> A.relative("place", 16) >> A.head_gate("gate"))


def through(stack: nn.ModuleList, tokens: Tokens) -> Tensor:
    """[N, D] after all of it."""
    for module in stack:
        tokens = module(tokens)
    return tokens.values


def seconds(baselines: list[nn.ModuleList], tokens: Tokens, repeat: int, backward: bool) -> list[float]:
    """Median seconds of each."""
    times: list[list[float]] = [[] for _ in baselines]
    for turn in range(repeat + 1):
        for baseline, taken in zip(baselines, times, strict=True):
            start = time.perf_counter()
            with torch.set_grad_enabled(backward):
                out = through(baseline, tokens)
                if backward:
                    out.square().mean().backward()
            if turn:  # the first one warms up
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("dim", 256), ("heads", 8), ("samples", 64), ("repeat", 15)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dim, heads = arguments.dim, arguments.heads
    lengths = torch.randint(8, 200, (arguments.samples,))
    tokens = Tokens.from_lengths(torch.randn(int(lengths.sum()), dim), lengths, "text")
    programs = {"dot": GATED, "relative bias": BIASED}
    programs["half of the heads local"] = A.heads({(0, heads // 2): NEAR, (heads // 2, heads): GATED})
    print(f"{datetime.date.today()}, {platform.machine()}, one thread")
    print(f"python {platform.python_version()}, torch {torch.__version__}; {' '.join(sys.argv)}")
    print(f"{arguments.samples} samples, {len(tokens.values):,} tokens, width {dim}, {heads} heads\n")
    print("| what | pass | gated | pruned | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, program in programs.items():
        for what in ("layer", "two blocks"):
            gated = nn.ModuleList(A.Attention(program, dim, heads) for _ in range(1 + (what != "layer")))
            if what != "layer":
                gated = nn.ModuleList(FusionBlock(layer, dim, 2.0) for layer in gated)  # type: ignore[arg-type]
            for _, layer in A.layers(gated):
                nn.init.normal_(layer.o_proj.weight, std=dim**-0.5)
                for gate in ("gate", "near"):
                    if gate in layer.terms:
                        layer.terms[gate].data[::2] = -9.0
            gated.eval()
            pruned = copy.deepcopy(gated)
            A.prune(pruned)
            with torch.no_grad():
                apart = (through(gated, tokens) - through(pruned, tokens)).abs().max().item()
            for backward in (False, True):
                before, after = seconds([gated, pruned], tokens, arguments.repeat, backward)
                print(
                    f"| {what}, {name} | {'forward + backward' if backward else 'forward'} "
                    f"| {before * 1e3:.1f} ms | {after * 1e3:.1f} ms | {before / after:.2f} | {apart:.1e} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
