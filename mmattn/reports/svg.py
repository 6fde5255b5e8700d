"""Inline SVG plots that stretch with the page: x in percent, y in pixels, colors by CSS class.

Lengths in percent instead of a `viewBox` keep lines and dots undistorted at any width, and classes allow the
style sheet to switch between light and dark. Labels are HTML outside the SVG, which stays
readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from markupsafe import Markup

from mmattn.evaluation.statistics.bootstrap import Interval
from mmattn.reports.results import Panel

__all__ = ["NUM_COLORS", "Axis", "Chart", "bar", "chart", "dot", "dots", "log_ticks", "ticks"]

NUM_COLORS = 8  # curve colors in the style sheet
_ROW_HEIGHT = 22  # height of a bar or dot row, in pixels


@dataclass(frozen=True)
class Axis:
    """A range of values with round ticks.

    Args:
        low: value at the start of the axis.
        high: value at the end of the axis.
        ticks: labeled values.
        log: logarithmic scale.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    @classmethod
    def from_values(cls, values: list[float], count: int = 4, log: bool = False) -> Axis:
        """Create an axis with round ends that contains all values.

        Args:
            values: values to show.
            count: approximate number of ticks.
            log: logarithmic scale.
        """
        marks = log_ticks(min(values), max(values)) if log else ticks(min(values), max(values), count)
        return cls(marks[0], marks[-1], marks, log)

    def label(self, value: float) -> str:
        """Format a value with the decimals that the ticks need.

        Args:
            value: value to format.
        """
        smallest = self.ticks[0] if self.log else self.ticks[1] - self.ticks[0]
        decimals = max(0, -int(np.floor(np.log10(smallest) + 1e-9)))
        return f"{value:,.{decimals}f}"

    def to_percent(self, value: float) -> float:
        """Return the position of a value in percent of the axis.

        Args:
            value: value on the axis.
        """
        low, high = self.low, self.high
        if self.log:
            low, high, value = np.log10([low, high, value])
        return round(float(100 * (value - low) / (high - low)), 3)


@dataclass(frozen=True)
class Chart:
    """Curves as SVG with their axes.

    Args:
        svg: the drawing.
        x: horizontal axis.
        y: vertical axis.
    """

    svg: Markup
    x: Axis
    y: Axis


def ticks(low: float, high: float, count: int = 4) -> tuple[float, ...]:
    """Return about `count` round numbers from at most `low` to at least `high`.

    Args:
        low: smallest value.
        high: largest value.
        count: approximate number of ticks.

    Example:
        >>> ticks(0.0, 0.41), ticks(3.0, 3.0)
        ((0.0, 0.1, 0.2, 0.3, 0.4, 0.5), (2.0, 3.0, 4.0))
    """
    if high <= low:
        return (low - 1.0, low, low + 1.0)
    rough = (high - low) / count
    magnitude = 10.0 ** np.floor(np.log10(rough))
    step = float(min((1, 2, 5, 10), key=lambda m: abs(m * magnitude - rough)) * magnitude)
    multiples = np.arange(np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9) + 1)
    return tuple(float(f"{multiple * step:.10g}") for multiple in multiples)


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Return 1, 2 and 5 of each decade from at most `low` to at least `high`; of wide ranges the decades.

    Args:
        low: smallest value, above 0.
        high: largest value.

    Example:
        >>> log_ticks(1, 100), log_ticks(300, 1000)
        ((1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0), (200.0, 500.0, 1000.0))
    """
    decades = range(int(np.floor(np.log10(low) + 1e-9)) - 1, int(np.ceil(np.log10(high) - 1e-9)) + 2)
    steps = (1, 2, 5) if high <= 150 * low else (1,)
    marks = [float(f"{step * 10.0**decade:.10g}") for decade in decades for step in steps]
    first = max(index for index, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
    last = min(index for index, mark in enumerate(marks) if mark >= high * (1 - 1e-9))
    return tuple(marks[first : max(last, first + 1) + 1])


def bar(interval: Interval, axis: Axis, highlight: bool) -> Markup:
    """Draw a bar from zero to the mean, with the interval as a whisker.

    Args:
        interval: value with its interval.
        axis: axis of the row.
        highlight: draw in the accent color.
    """
    length = axis.to_percent(interval.mean)
    body = f'<rect class="bar" x="0" y="3" width="{length}%" height="{_ROW_HEIGHT - 6}" rx="2"/>'
    return _svg_row(body + _whisker(interval, axis), highlight)


def dot(interval: Interval, axis: Axis, highlight: bool = False) -> Markup:
    """Draw a dot at the mean with its interval and a line at zero, for differences.

    Args:
        interval: value with its interval.
        axis: axis of the row.
        highlight: draw in the accent color.
    """
    zero, mean = axis.to_percent(0.0), axis.to_percent(interval.mean)
    line = f'<line class="zero" x1="{zero}%" x2="{zero}%" y1="0" y2="{_ROW_HEIGHT}"/>'
    point = f'<circle class="dot" cx="{mean}%" cy="{_ROW_HEIGHT / 2}" r="4.5"/>'
    return _svg_row(line + _whisker(interval, axis) + point, highlight)


def dots(intervals: Sequence[tuple[Interval, str]], axis: Axis, zero: bool = True) -> Markup:
    """Draw several dots with their intervals in one row, each with its own CSS class.

    Args:
        intervals: values with their intervals and CSS classes.
        axis: axis of the row.
        zero: draw a line at zero.
    """
    origin, middle = axis.to_percent(0.0), _ROW_HEIGHT / 2
    body = f'<line class="zero" x1="{origin}%" x2="{origin}%" y1="0" y2="{_ROW_HEIGHT}"/>' if zero else ""
    for interval, kind in intervals:
        point = f'<circle cx="{axis.to_percent(interval.mean)}%" cy="{middle}" r="4.5"/>'
        body += f'<g class="mark {kind}">{_whisker(interval, axis)}{point}</g>'
    return _svg_row(body, highlight=False)


def chart(panel: Panel) -> Chart:
    """Draw the curves of a panel; the selected point of each is a dot. Non-finite values are skipped.

    Args:
        panel: curves with common axes.
    """
    start = () if panel.log_x else (0.0,)
    x = Axis.from_values([value for curve in panel.curves for value in (*start, *curve.x)], log=panel.log_x)
    y = Axis.from_values([value for curve in panel.curves for value in curve.y if isfinite(value)] or [0.0])
    grid = lines = marks = ""
    for tick in y.ticks:
        level = 100 - y.to_percent(tick)
        grid += f'<line class="grid" x1="0" x2="100%" y1="{level}%" y2="{level}%"/>'
    for index, curve in enumerate(panel.curves):
        tone = f"tone-{index % NUM_COLORS}"
        points = [(a, b) for a, b in zip(curve.x, curve.y, strict=True) if isfinite(b)]
        path = " ".join(f"{x.to_percent(a)},{100 - y.to_percent(b):.3f}" for a, b in points)
        lines += f'<polyline class="line {tone}" points="{path}"/>'
        marked = points if panel.markers else []
        if curve.selected_x is not None and points:
            height = np.interp(curve.selected_x, [a for a, _ in points], [b for _, b in points])
            marked = [(curve.selected_x, float(height))]
        for across, down in marked:
            position = f'cx="{x.to_percent(across)}%" cy="{100 - y.to_percent(down)}%"'
            marks += f'<circle class="kept {tone}" {position} r="4.5"/>'
    # Polylines do not support percent: they are stretched, with a non-scaling stroke in the style sheet.
    frame = '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
    return Chart(
        Markup(f'<svg class="chart" aria-hidden="true">{grid}{frame}{lines}</svg>{marks}</svg>'), x, y
    )


def _whisker(interval: Interval, axis: Axis) -> str:
    low, high, middle = axis.to_percent(interval.low), axis.to_percent(interval.high), _ROW_HEIGHT / 2
    ends = "".join(
        f'<line x1="{end}%" x2="{end}%" y1="{middle - 4}" y2="{middle + 4}"/>' for end in (low, high)
    )
    return f'<g class="whisker"><line x1="{low}%" x2="{high}%" y1="{middle}" y2="{middle}"/>{ends}</g>'


def _svg_row(content: str, highlight: bool) -> Markup:
    kind = "row ours" if highlight else "row"
    return Markup(f'<svg class="{kind}" height="{_ROW_HEIGHT}" aria-hidden="true">{content}</svg>')


def draw_panels(panels: Sequence[Panel]) -> list[tuple[Panel, Chart]]:
    """Draw the panels that have curves.

    Args:
        panels: panels of curves.
    """
    return [(panel, chart(panel)) for panel in panels if panel.curves]
