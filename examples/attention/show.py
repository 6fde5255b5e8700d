"""What the examples share: telling a program, and making what it does visible."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn import Tokens
from mmattn import attention as A

SHADES = " .:-=+*#%@"


def run(main: Callable[[], Any], program: Any, **drawn: Any) -> None:
    """Run an example from the command line; `--plot FILE.svg` (or .png) writes the program's picture.

    Args:
        main: the example.
        program: what `--plot` draws.
        drawn: `tokens` or `context` to draw it over, instead of a small made-up scene.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--plot", metavar="FILE", help="write a picture of the program, .svg or .png")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for each other
    main()
    if options.plot:
        program.plot(options.plot, **drawn)
        print(f"\nwrote {options.plot}")


def tell(layer: A.Attention, q: Tokens, kv: Tokens | None = None) -> None:
    """The layer's program as text and in words, and what it would run on."""
    print(f"program   {layer.program}\nin words  {layer.program.describe()}")
    print("runs on   " + "\n          ".join(str(part).split("\n")[0] for part in layer.plan(q, kv)))


def weights(
    layer: A.Attention, q: Tokens, kv: Tokens | None = None, context: Mapping[str, Any] | None = None
) -> Tensor:
    """[H, Q, K], the exact weights of the first sample, whatever backend runs the layer."""
    _, seen = layer(q, kv, context, explain=A.rows(range(q.length_list[0])))
    return torch.stack([row.weights for row in seen.rows], dim=1)


def shades(weight: Tensor, rows: Sequence[str], columns: Iterable[str] = ()) -> None:
    """Print weights [Q, K], a row a query: the darker a letter, the more of the row's largest weight."""
    if names := " ".join(columns):
        print(f"{'':>14}  {names}")
    for name, row in zip(rows, weight.tolist(), strict=True):
        top = max(row) or 1.0
        print(f"{name:>14} |{''.join(SHADES[round(9 * value / top)] for value in row)}|")


def bare(layer: A.Attention) -> A.Attention:
    """The layer with projections that do nothing: what one sees is the program and the tokens alone."""
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj):
        nn.init.eye_(projection.weight)
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
    return layer.requires_grad_(False)


def fit(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int, rate: float) -> float:
    """Train some parameters by Adam; returns the last loss."""
    chosen = [parameter.requires_grad_() for parameter in parameters]
    optimizer = torch.optim.Adam(chosen, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    return value.item()
