"""Check random programs: `python -m mmattn.attention --programs 2000`."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence

import torch

from mmattn.attention.testing.backend_check import CheckReport, Disagreement, check
from mmattn.attention.testing.random_programs import random_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Check random programs; the exit status is 1 where one disagrees.

    Args:
        arguments: command line; None takes `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog="python -m mmattn.attention", description=main.__doc__)
    parser.add_argument("--programs", type=int, default=300, help="how many to draw (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of the first program (default 0)")
    parser.add_argument("--device", default="cpu", help='"cpu" (default) or "cuda"')
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    report, failures = CheckReport(), 0
    for seed in range(options.seed, options.seed + options.programs):
        program = random_program(random.Random(seed))
        try:
            report.merge(check(program, heads=4, batches=1, device=options.device, seed=seed))
        except Disagreement as error:
            failures += 1
            print(f"seed {seed}: {error}")
    print(report)
    print(f"{options.programs} programs, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
