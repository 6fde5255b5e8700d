"""When a data set is called unbalanced: one rule for every kind of target."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MAX_CLASS_RATIO", "imbalance_warning"]

# A training set in which one name is more than this many times as frequent as another is unbalanced.
MAX_CLASS_RATIO = 10


def imbalance_warning(counts: Mapping[str, int], what: str) -> str:
    """What to warn of, or "" where the names are balanced well enough.

    Args:
        counts: name -> how often it is there.
        what: what a name is, for example "class".

    Example:
        >>> imbalance_warning({"cat": 31, "dog": 3}, "class"), imbalance_warning({"cat": 30, "dog": 3}, "class")
        ("unbalanced: class 'cat' is there 31 times, 'dog' 3 times", '')
    """
    if not counts:
        return ""
    often, seldom = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[often] <= MAX_CLASS_RATIO * counts[seldom]:
        return ""
    return f"unbalanced: {what} {often!r} is there {counts[often]} times, {seldom!r} {counts[seldom]} times"
