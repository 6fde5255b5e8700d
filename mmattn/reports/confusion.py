"""The confusion matrix as a picture, with two classes or with fifty, light or dark."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmattn.errors import InputError
from mmattn.files import atomic_path

__all__ = ["plot_confusion_matrix"]

_LIGHT = {
    "paper": "#ffffff", "ink": "#1c2430", "quiet": "#667080",
    "shades": ("#f3f5f7", "#c9def2", "#7fb2de", "#3579b8", "#0f3f73"),
}  # fmt: skip
_DARK = {
    "paper": "#14181e", "ink": "#e8ecf1", "quiet": "#95a0ad",
    "shades": ("#1c222a", "#1d3a57", "#2a659a", "#5ba3dd", "#c4e2fb"),
}  # fmt: skip
_MAX_NAME_LENGTH = 22  # characters of a name
_MANY_CLASSES = 24  # classes from which on cells hold percent instead of counts


def plot_confusion_matrix(
    counts: ArrayLike,
    names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    dark: bool = False,
) -> Path:
    """Write the picture; the kind of file is that of the path's ending (.svg, .png or .pdf).

    A row is a true class, a column what was said; a cell's shade is its share of the row. Cells hold
    counts, or percent where there are many classes, and nothing below one percent. A class that no sample
    is of has an empty row.

    Args:
        counts: [C, C], see `mmattn.evaluation.tasks.classification.confusion`.
        names: [C] of the classes.
        path: where to.
        title: stands above it; left out, the share of samples that are right.
        dark: for a dark page.

    Raises:
        InputError: counts and names that do not fit, or another ending.
    """
    counts_CC, path = np.asarray(counts), Path(path)
    if counts_CC.shape != (len(names), len(names)) or not names:
        raise InputError(
            f"confusion: got counts {counts_CC.shape}, expected [{len(names)}, {len(names)}], one a name"
        )
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise InputError(f"confusion: got the file {path.name!r}, expected .svg, .png or .pdf")
    picture = _render(
        counts_CC, names, title or _accuracy_title(counts_CC), path.suffix, _DARK if dark else _LIGHT
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)
    return path


def _accuracy_title(counts_CC: NDArray[Any]) -> str:
    total = int(counts_CC.sum())
    share = f"{np.trace(counts_CC) / total:.1%}" if total else "none"
    return f"{share} of {total:,} right"


def _render(
    counts_CC: NDArray[Any], names: Sequence[str], title: str, suffix: str, palette: dict[str, Any]
) -> bytes:
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    classes, crowded = len(names), len(names) > _MANY_CLASSES
    side = 0.27 * classes if crowded else min(max(0.52 * classes, 2.6), 0.3 * classes + 4)
    figure = Figure(figsize=(side + 2.2, side + 2.0), layout="constrained", facecolor=palette["paper"])
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    share_CC = counts_CC / np.maximum(counts_CC.sum(1), 1)[:, None]
    edges = np.arange(classes + 1) - 0.5
    axis.pcolormesh(
        edges, edges, share_CC, cmap=LinearSegmentedColormap.from_list("shares", palette["shades"]),
        vmin=0, vmax=1, edgecolors=palette["paper"], linewidth=0.6 if crowded else 1.2,
    )  # fmt: skip
    axis.set_aspect("equal")
    axis.invert_yaxis()
    for edge in axis.spines.values():
        edge.set_visible(False)
    size = 6.5 if crowded else 10.0
    _annotate_cells(axis, counts_CC, share_CC, crowded, size, palette)
    _label_axes(axis, names, counts_CC.sum(1) > 0, size, palette)
    axis.set_title(title, color=palette["ink"], fontsize=13, loc="left", pad=24)
    axis.annotate(
        f"cells: {'percent of the row' if crowded else 'counts'}; shade: share of the row", (0, 1),
        (0, 8), "axes fraction", textcoords="offset points", color=palette["quiet"], fontsize=8.5,
    )  # fmt: skip
    file = io.BytesIO()
    # Names of elements from the content, and no date: the same counts give the same file.
    with rc_context({"svg.hashsalt": "mmattn", "svg.fonttype": "none"}):
        figure.savefig(
            file, format=suffix[1:], dpi=130, facecolor=palette["paper"],
            metadata={"Date": None} if suffix == ".svg" else None,
        )  # fmt: skip
    return file.getvalue()


def _annotate_cells(
    axis: Any, counts_CC: NDArray[Any], share_CC: NDArray[Any], many_classes: bool, size: float, palette: Any
) -> None:
    for row, column in zip(*np.nonzero(share_CC >= 0.01), strict=True):
        share = share_CC[row, column]
        text = f"{100 * share:.0f}" if many_classes else f"{counts_CC[row, column]:,}"
        ink = palette["ink"] if share < 0.6 else palette["paper"]  # what stands out against the cell
        axis.text(column, row, text, ha="center", va="center", color=ink, fontsize=min(size, 34 / len(text)))


def _label_axes(
    axis: Any, names: Sequence[str], has_samples_C: NDArray[np.bool_], size: float, palette: Any
) -> None:
    """Beside and below; quietly where no sample is of the class."""
    short = [name if len(name) <= _MAX_NAME_LENGTH else f"{name[: _MAX_NAME_LENGTH - 1]}…" for name in names]
    turned = max(map(len, short)) > (6 if len(names) <= 6 else 2)
    axis.set_xticks(range(len(names)), short, rotation=90 if turned else 0, fontsize=size)
    axis.set_yticks(range(len(names)), short, fontsize=size)
    axis.tick_params(length=0, colors=palette["ink"])
    for label, has_samples in zip(axis.get_yticklabels(), has_samples_C, strict=True):
        label.set_color(palette["ink"] if has_samples else palette["quiet"])
    axis.set_xlabel("said", color=palette["quiet"], fontsize=10)
    axis.set_ylabel("true", color=palette["quiet"], fontsize=10)
