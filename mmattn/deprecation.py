"""Deprecation of public names: a warning for at least one minor release before removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typing_extensions

__all__ = ["deprecated"]

_Target = TypeVar("_Target", bound=Callable[..., Any])


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[_Target], _Target]:
    """Mark a public function or class as deprecated.

    Calling it gives a `FutureWarning`, which users see by default, and type checkers report its use
    (PEP 702).

    Args:
        since: release that deprecates it.
        removed_in: release that removes it, at least one minor release later.
        instead: replacement, as text for the message.

    Returns:
        The decorator.

    Example:
        >>> @deprecated(since="0.2", removed_in="0.4", instead="`new_name`")
        ... def old_name(): ...
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     old_name()
        >>> print(caught[0].message)
        old_name is deprecated since mmattn 0.2 and will be removed in 0.4: use `new_name`
    """

    def decorate(target: _Target) -> _Target:
        message = (
            f"{target.__qualname__} is deprecated since mmattn {since} and will be removed in "
            f"{removed_in}: use {instead}"
        )
        marked: _Target = typing_extensions.deprecated(message, category=FutureWarning)(target)
        return marked

    return decorate
