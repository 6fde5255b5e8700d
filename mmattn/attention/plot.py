"""A picture of a program: who may attend to whom, and what is added to whose score."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.biases import SLOPE, BoxBias, GraphBias, box_columns, slopes
from mmattn.attention.call import Call, Extras
from mmattn.attention.edges import join
from mmattn.attention.layout import Layout
from mmattn.attention.parameters import Dynamic
from mmattn.errors import InputError
from mmattn.files import write_bytes
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.program import Heads, Program

__all__ = ["example", "plot"]

_HEADS = 4


def plot(
    program: Program | Heads,
    path: str | os.PathLike[str] | None = None,
    tokens: Tokens | None = None,
    parameters: Mapping[str, Tensor] | None = None,
) -> str:
    """Draw the mask, and beside it the bias, of every program of the heads.

    Args:
        program: what to draw.
        path: a `.svg` or `.png` file to write; left out, nothing is written.
        tokens: whose first sample is drawn; left out, a small scene of the modalities that the program
            names.
        parameters: learned parameters by name, as `layer.program_parameters()`; left out, as they start.

    Returns:
        The picture as SVG text ("" where a PNG was written).

    Raises:
        InputError: the path ends in something else.
    """
    suffix = Path(path).suffix.lower() if path is not None else ".svg"
    if suffix not in (".svg", ".png"):
        raise InputError(f"plot: got the path {str(path)!r}, expected one that ends in .svg or .png")
    drawing = _draw(
        program, example(program) if tokens is None else tokens.select([0]), parameters or {}, suffix
    )
    if path is not None:
        write_bytes(path, drawing)
    return drawing.decode() if suffix == ".svg" else ""


def example(program: Program | Heads) -> Tokens:
    """A small scene: some tokens of every modality that the program names, with times and entities."""
    named = {"text": 8, "image": 6, "audio": 5}
    for term in program.walk():
        routes = dict(getattr(term, "routes", ()))
        mentioned = [
            *routes,
            *(name for keys in routes.values() for name in keys),
            getattr(term, "modality", "*"),
        ]
        for name in mentioned:
            if name != "*":
                named.setdefault(name, 2)
    parts = [
        Tokens.from_lengths(
            torch.zeros(count, _HEADS, dtype=torch.float64),
            torch.tensor([count]),
            name,
            time=torch.arange(count) * 60.0,
            entity=torch.arange(count),
        )
        for name, count in named.items()
    ]
    return Tokens.cat(parts)


def _draw(program: Any, tokens: Tokens, parameters: Mapping[str, Tensor], suffix: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = getattr(program, "parts", ((0, _HEADS, program),))
    figure = Figure(figsize=(9.6, 4.6 * len(parts)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(parts), 2, squeeze=False)
    for (left, right), (first, last, part) in zip(axes, parts, strict=True):
        allowed, bias = _mask_and_bias(part, tokens, parameters, last)
        heads = f", heads {first} to {last - 1}" if len(parts) > 1 else ""
        left.imshow(allowed.double().numpy(), cmap="Blues", vmin=0.0, vmax=1.4)
        left.set_title(f"mask{heads}: {allowed.double().mean():.0%} of the pairs", fontsize=9)
        widest = float(bias.abs().max()) or 1.0
        image = right.imshow(
            bias.masked_fill(~allowed, float("nan")).numpy(), cmap="RdBu_r", vmin=-widest, vmax=widest
        )
        right.set_title(f"bias of head {first}" + ("" if bias.any() else " (starts at zero)"), fontsize=9)
        figure.colorbar(image, ax=right, shrink=0.7)
        for axis in (left, right):
            _label(axis, tokens)
    figure.suptitle(
        str(program) if len(str(program)) < 150 else f"{str(program)[:147]}...", fontsize=7, wrap=True
    )
    file = io.BytesIO()
    figure.savefig(file, format=suffix[1:], dpi=120, metadata={"Date": None} if suffix == ".svg" else None)
    return file.getvalue()


def _label(axis: Any, tokens: Tokens) -> None:
    """Modalities along both sides, with a line where one ends."""
    modality = tokens.modality.tolist()
    edges = [0, *(i for i in range(1, len(modality)) if modality[i] != modality[i - 1]), len(modality)]
    middles = [(first + last - 1) / 2 for first, last in pairwise(edges)]
    names = [tokens.modalities[modality[first]] for first in edges[:-1]]
    for edge in edges[1:-1]:
        axis.axhline(edge - 0.5, color="0.4", linewidth=0.6)
        axis.axvline(edge - 0.5, color="0.4", linewidth=0.6)
    axis.set_xticks(middles, names, fontsize=8)
    axis.set_yticks(middles, names, fontsize=8, rotation=90, va="center")
    axis.set_xlabel("keys", fontsize=8)
    axis.set_ylabel("queries", fontsize=8)


@torch.no_grad()
def _mask_and_bias(
    part: Program, tokens: Tokens, parameters: Mapping[str, Tensor], heads: int
) -> tuple[Tensor, Tensor]:
    """[N, N] of the first sample: the mask, and the first head's score where nothing matches anything."""
    layout = Layout.of(tokens, tokens)
    nothing = torch.zeros(len(tokens.values), heads, 1, dtype=torch.float64)
    known: dict[str, Tensor] = {SLOPE: slopes(heads).double()}
    for spec in part.parameters():
        start = spec.start if isinstance(spec.start, float) else 0.0
        sizes = {"K": 1, "D": 1, "M": len(tokens.modalities)}
        shape = [heads, *(sizes[size] if isinstance(size, str) else size for size in spec.shape)]
        known[spec.name] = torch.full(shape, start, dtype=torch.float64)
    known |= {name: value.detach().double().cpu() for name, value in parameters.items()}
    for term in part.walk():
        if isinstance(term, Dynamic):  # as it starts: what it is predicted from is not known here
            known[term.name] = torch.zeros(1, heads, dtype=torch.float64)
    part.mask.check(tokens.modalities, tokens.modalities)
    call = Call(
        part, nothing, nothing, nothing, layout, known, slots=tokens.modalities, extras=_extras(part, layout)
    )
    pairs = call.sample_pairs(0)
    count = len(tokens.values)
    score = torch.zeros(heads, count, count, dtype=torch.float64)
    for change in part.chain.changes:
        score = change.change(score, pairs)
    return part.mask.allow(pairs).expand(count, count), score[0]


def _extras(part: Program, layout: Layout) -> Extras:
    """Boxes in a row, and an edge from every entity to the next one."""
    count = len(layout.query.position)
    left = torch.arange(count, dtype=torch.float64)
    boxes = box_columns(torch.stack([left, left * 0, left + 1, left * 0 + 1], dim=1))
    entity = torch.arange(count)
    found = {}
    for term in part.walk():
        if isinstance(term, GraphBias):
            edges = torch.stack([entity, entity + 1, entity % term.relations])
            found[term.name] = join(term, edges, layout)
    names = [term.name for term in part.walk() if isinstance(term, BoxBias)]
    return Extras(query=dict.fromkeys(names, boxes), key=dict.fromkeys(names, boxes), edges=found)
