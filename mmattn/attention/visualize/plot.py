"""A picture of a program: who may attend to whom, and what each bias adds to whose score."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.attention.execution.context_tensors import build_context_tensors, sample_pairs
from mmattn.attention.execution.layout import Layout
from mmattn.attention.language.biases import ALIBI_SLOPE_KEY, alibi_slopes
from mmattn.attention.language.head_range import PlotRow, describe_heads
from mmattn.attention.language.parameters import Dynamic, ParameterSpec
from mmattn.attention.visualize.example_batch import example_batch, example_context
from mmattn.errors import InputError
from mmattn.files import write_bytes
from mmattn.types import Tokens

if TYPE_CHECKING:
    from mmattn.attention.language.pairs import Pairs
    from mmattn.attention.language.term import Term

__all__ = ["BiasPanel", "bias_panels", "plot_program"]

_MASKED_GREY = "0.86"  # the grey of pairs that the mask does not allow


@dataclass(frozen=True, eq=False)
class BiasPanel:
    """What one term adds to the scores of the part's first head.

    Args:
        title: the term.
        bias: [Q, K].
        has_placeholder_values: do its numbers all start at zero, so that 1, 2, 3, ... are drawn in their
            place?
    """

    title: str
    bias: Tensor
    has_placeholder_values: bool


def plot_program(
    program: Term,
    parts: Sequence[PlotRow],
    description: str,
    path: str | os.PathLike[str] | None = None,
    tokens: Tokens | None = None,
    kv: Tokens | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    context: Mapping[str, Any] | None = None,
) -> str:
    """See `Program.plot_program`.

    Args:
        program: what to draw.
        parts: its heads, a row each.
        description: what it does.
        path: of an .svg or .png file; None writes none.
        tokens: queries; None takes the example batch.
        kv: keys and values; None takes the queries.
        parameters: name -> [H, ...]; None takes the start values.
        context: what a call gives beside the tokens, by name.

    Raises:
        InputError: a path with another ending.
    """
    suffix = Path(path).suffix.lower() if path is not None else ".svg"
    if suffix not in (".svg", ".png"):
        raise InputError(f"plot: got the path {str(path)!r}, expected one that ends in .svg or .png")
    if tokens is None:
        q, kv = example_batch(program)
    else:
        q = tokens.select([0])
        kv = q if kv is None else kv.select([0])
    given = {**example_context(program, q, kv), **(context or {})}
    rows = [(part, *bias_panels(program, part, q, kv, parameters or {}, given)) for part in parts]
    drawing = _draw(str(program), description, rows, q, kv, suffix)
    if path is not None:
        write_bytes(path, drawing)
    return drawing.decode() if suffix == ".svg" else ""


@torch.no_grad()
def bias_panels(
    program: Term,
    part: PlotRow,
    q: Tokens,
    kv: Tokens,
    parameters: Mapping[str, Tensor],
    context: Mapping[str, Any],
) -> tuple[Tensor, list[BiasPanel]]:
    """The mask of the first sample, [Q, K], and what each term of the score adds to every pair.

    Args:
        program: to be shown.
        part: a row of the plot: some heads and their program.
        q: queries.
        kv: keys and values.
        parameters: name -> [H, ...].
        context: what a call gives beside the tokens, by name.
    """
    part.mask.check_modalities(q.modalities, kv.modalities)
    layout = Layout.from_tokens(q, kv)
    slots = tuple(dict.fromkeys([*q.modalities, *kv.modalities]))
    known = {ALIBI_SLOPE_KEY: alibi_slopes(part.last).double()}
    known |= {spec.name: _initial_parameter(spec, part.last, len(slots)) for spec in part.parameters}
    for term in part.score.walk():
        if isinstance(term, Dynamic):  # as it starts: what it is predicted from is not known here
            known[term.name] = torch.zeros(part.last, dtype=torch.float64)
    known |= {name: value.detach().double().cpu() for name, value in parameters.items()}
    head = torch.full((1, 1, 1), part.first)
    given = build_context_tensors(program, q, kv, layout, context)

    def pairs(numbers: Mapping[str, Tensor]) -> Pairs:
        return sample_pairs(layout, given, 0, None, head, numbers, slots)

    nothing = torch.zeros(1, len(q.values), len(kv.values), dtype=torch.float64)
    panels = []
    for change in part.score.modifiers:
        added = change.modify(nothing, pairs(known))
        names = [spec.name for spec in getattr(change, "parameters", tuple)()]
        made_up = bool(names) and not added.any()
        if made_up:
            added = change.modify(
                nothing, pairs(known | {name: _placeholder_values(known[name]) for name in names})
            )
        if added.any():
            panels.append(BiasPanel(str(change), added[0], made_up))
    return part.mask.allow(pairs(known)).expand(nothing.shape[1:]), panels


def _initial_parameter(spec: ParameterSpec, heads: int, modalities: int) -> Tensor:
    """The parameter as it starts; whatever depends on queries and keys has width 1 here."""
    sizes = {"K": 1, "D": 1, "M": modalities}
    shape = [heads, *(sizes[size] if isinstance(size, str) else size for size in spec.shape)]
    start = spec.init if isinstance(spec.init, float) else 0.0
    return torch.full(shape, start, dtype=torch.float64)


def _placeholder_values(table_HX: Tensor) -> Tensor:
    """1, 2, 3, ... for the entries of every head."""
    numbers = torch.arange(1.0, table_HX[0].numel() + 1, dtype=torch.float64)
    return numbers.view(table_HX[0].shape).expand_as(table_HX)


def _draw(
    text: str,
    description: str,
    rows: list[tuple[PlotRow, Tensor, list[BiasPanel]]],
    q: Tokens,
    kv: Tokens,
    suffix: str,
) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 + max(len(result) for _, _, result in rows)
    width = max(7.5, 4.4 * columns)
    title = "\n".join(textwrap.wrap(text, int(width * 14), break_long_words=False))
    below = "\n".join(
        line for phrase in description.split("\n") for line in textwrap.wrap(phrase, int(width * 18))
    )
    lines = title.count("\n") + below.count("\n") + 2
    figure = Figure(figsize=(width, 4.3 * len(rows) + 0.16 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (part, allowed, outcome) in zip(axes, rows, strict=True):
        heads = f"{describe_heads(part.first, part.last)}: " if len(rows) > 1 else ""
        _draw_mask(row[0], allowed, f"{heads}mask, {allowed.double().mean():.0%} of the pairs")
        for axis, panel in zip(row[1:], outcome, strict=False):
            _draw_bias(axis, panel, allowed, part.first)
        for axis in row[: 1 + len(outcome)]:
            _draw_axis_labels(axis, q, kv)
        for axis in row[1 + len(outcome) :]:
            axis.set_axis_off()
    figure.suptitle(title, fontsize=8, family="monospace", x=0.01, ha="left")
    figure.supxlabel(below, fontsize=8, color="0.3", x=0.01, ha="left")
    file = io.BytesIO()
    # Names of elements from the content, and no date: the same program gives the same file.
    with rc_context({"svg.hashsalt": "mmattn"}):
        figure.savefig(
            file, format=suffix[1:], dpi=120, metadata={"Date": None} if suffix == ".svg" else None
        )
    return file.getvalue()


def _draw_mask(axis: Any, allowed: Tensor, title: str) -> None:
    from matplotlib.colors import ListedColormap

    axis.imshow(
        allowed.numpy(),
        cmap=ListedColormap([_MASKED_GREY, "#3b78b5"]),
        vmin=0,
        vmax=1,
        aspect=_aspect(allowed),
    )
    axis.set_title(title, fontsize=9)


def _draw_bias(axis: Any, panel: BiasPanel, allowed: Tensor, head: int) -> None:
    from matplotlib import colormaps

    shown = panel.bias.masked_fill(~allowed, float("nan")).numpy()
    if panel.has_placeholder_values:
        # Such numbers have no sign worth showing: they tell the entries apart. White: none of them.
        colours = colormaps["YlGnBu"].with_extremes(bad=_MASKED_GREY, under="white")
        low, high = float(panel.bias.min()) or 0.5, float(panel.bias.max())
    else:
        colours = colormaps["RdBu_r"].with_extremes(bad=_MASKED_GREY)
        high = float(panel.bias.abs().max())
        low = -high
    image = axis.imshow(shown, cmap=colours, vmin=low, vmax=high, aspect=_aspect(allowed))
    what = "all start at 0; drawn as 1, 2, 3, ..." if panel.has_placeholder_values else f"head {head}"
    axis.set_title(f"{panel.title}\n{what}", fontsize=9)
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)


def _aspect(allowed: Tensor) -> str:
    """Square pairs, unless there are far more keys than queries or the other way round."""
    queries, keys = allowed.shape
    return "equal" if 2 * queries > keys and 2 * keys > queries else "auto"


def _draw_axis_labels(axis: Any, q: Tokens, kv: Tokens) -> None:
    """Modalities along both sides, with a line where one ends, and faint ones between few tokens."""
    for tokens, line, ticks, rotation in (
        (q, axis.axhline, axis.set_yticks, 90),
        (kv, axis.axvline, axis.set_xticks, 0),
    ):
        modality = tokens.modality.tolist()
        edges = [0, *(i for i in range(1, len(modality)) if modality[i] != modality[i - 1]), len(modality)]
        if len(modality) <= 48:
            for between in range(1, len(modality)):
                line(between - 0.5, color="white", linewidth=0.4)
        for edge in edges[1:-1]:
            line(edge - 0.5, color="0.25", linewidth=1.0)
        middles = [(first + last - 1) / 2 for first, last in pairwise(edges)]
        names = [tokens.modalities[modality[first]] for first in edges[:-1]] if modality else []
        ticks(
            middles if modality else [],
            names,
            fontsize=8,
            rotation=rotation,
            va="center" if rotation else "top",
        )
    axis.tick_params(length=0)
    axis.set_xlabel("keys", fontsize=8)
    axis.set_ylabel("queries", fontsize=8)
