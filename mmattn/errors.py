"""Errors that users can act on: one line with what was given, what was expected and where.

The command line prints these without a traceback and exits with status 2; any other exception is a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "MissingDependency", "MmattnError", "PluginError", "did_you_mean"]


class MmattnError(Exception):
    """Base class of all errors that mmattn raises on purpose."""


class InputError(MmattnError, ValueError):
    """Invalid data, configuration or arguments; the message says what was expected and where."""


class MissingDependency(MmattnError, ImportError):
    """An optional package is not installed; the message contains the install command."""


class PluginError(MmattnError, TypeError):
    """A plugin violates its contract; the message names the plugin, the hook and the argument."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Hint for a mistyped name, to be appended to an error message.

    Args:
        name: the unknown name.
        choices: valid names.

    Returns:
        The most similar name as a question, the list of all names if none is similar, or "" without choices.

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
