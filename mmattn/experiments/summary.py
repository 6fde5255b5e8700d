"""What the reports of every kind of run are summarized by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmattn.reports.results import Curve
from mmattn.training.loop import History

__all__ = ["common_keys", "learning_curve"]


def common_keys(results: Sequence[Any], attribute: str) -> list[str]:
    """Return the keys of a mapping that every seed has, in the order of the first.

    Args:
        results: of all seeds.
        attribute: name of the mapping.

    Example:
        >>> from types import SimpleNamespace as Result
        >>> common_keys([Result(values={"b": 1, "a": 2}), Result(values={"b": 3})], "values")
        ['b']
    """
    first, *others = (getattr(result, attribute) for result in results)
    return [name for name in first if all(name in other for other in others)]


def learning_curve(label: str, history: History, key: str, *, show_selected: bool) -> Curve:
    """Return the curve of one training.

    Args:
        label: of the curve.
        history: of the training.
        key: column of the history.
        show_selected: mark the epoch that was kept.
    """
    selected = float(history.best_epoch) if show_selected and history.best_epoch else None
    return Curve(
        label,
        x=tuple(row["epoch"] for row in history.rows),
        y=tuple(row[key] for row in history.rows),
        selected_x=selected,
    )
