"""The rule for unbalanced classes, for every kind of target."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MAX_CLASS_RATIO", "imbalance_warning"]

# Classes are unbalanced when one is more than this many times as frequent as another.
MAX_CLASS_RATIO = 10


def imbalance_warning(counts: Mapping[str, int], what: str) -> str:
    """Return a warning about unbalanced names, or "" where they are balanced.

    Args:
        counts: name -> count.
        what: kind of the names, for example "class".

    Example:
        >>> imbalance_warning({"cat": 31, "dog": 3}, "class")
        "unbalanced: class 'cat' is there 31 times, 'dog' 3 times"
        >>> imbalance_warning({"cat": 30, "dog": 3}, "class")
        ''
    """
    if not counts:
        return ""
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] <= MAX_CLASS_RATIO * counts[least]:
        return ""
    return f"unbalanced: {what} {most!r} is there {counts[most]} times, {least!r} {counts[least]} times"
