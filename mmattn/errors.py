"""Errors a user can act on: one line each, saying what came, what was expected and where.

The command line prints these without a traceback and exits with status 2; anything else is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "MissingDependency", "MmattnError", "PluginError", "did_you_mean"]


class MmattnError(Exception):
    """Base of every error that mmattn raises on purpose."""


class InputError(MmattnError, ValueError):
    """Data, configuration or arguments that do not fit: the message says what was expected and where."""


class MissingDependency(MmattnError, ImportError):
    """Something optional is not installed: the message holds the exact install command."""


class PluginError(MmattnError, TypeError):
    """A plugin breaks its contract: the message names the plugin, the hook and the argument."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return a hint for a mistyped name, ready to append to a message; "" without a similar one.

    Args:
        name: as it was given.
        choices: valid names.

    Example:
        >>> did_you_mean("trainng", ["training", "data"])
        " Did you mean 'training'?"
        >>> did_you_mean("xyz", ["training", "data"])
        ' Known: data, training.'
    """
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(options)}." if options else ""
