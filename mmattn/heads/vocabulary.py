"""The names that a head knows: classes, labels, tags."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from mmattn.data.class_balance import imbalance
from mmattn.errors import InputError, nearest

__all__ = ["Vocabulary", "counted"]

log = logging.getLogger(__name__)


class Vocabulary:
    """Names and their numbers.

    Args:
        names: in the order of their numbers.
        where: what errors call the head, for example "classification head".
        what: what a name is, for example "class".

    Raises:
        InputError: no name, one that is not a text, is empty, or stands there twice.

    Example:
        >>> Vocabulary(["cat", "dog"], "classification head", "class").index("dog")
        1
    """

    def __init__(self, names: Sequence[str], where: str, what: str):
        self.names, self.where, self.what = tuple(names), where, what
        if not self.names or isinstance(names, str):
            raise InputError(f"{where}: got {names!r}, expected at least one {what} name, in a list")
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: got {name!r} as {what} name, expected a text (not empty)")
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InputError(f"{where}: got {what} {twice[0]!r} twice, expected each once")
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: object) -> int:
        """The number of a name.

        Raises:
            InputError: there is no such name; the nearest one is suggested.
        """
        if not isinstance(name, str):
            raise InputError(
                f"{self.where}: got {name!r} ({type(name).__name__}) as {self.what}, expected a name (text)"
            )
        if name not in self.numbers:
            raise InputError(f"{self.where}: no {self.what} {name!r}.{nearest(name, self.names)}")
        return self.numbers[name]


def counted(names: Iterable[str], where: str, what: str) -> dict[str, int]:
    """How often each name is there, in the names' order; an unbalanced set is said to be one.

    `mmattn.data.class_balance` says what unbalanced is.

    Raises:
        InputError: a name that is not a text, or none at all.

    Example:
        >>> counted(["b", "a", "b"], "classification head", "class")
        {'a': 1, 'b': 2}
    """
    names = list(names)
    known = Vocabulary(sorted(set(names), key=str), where, what)
    counts = Counter(names)
    if message := imbalance(counts, what):
        log.warning("%s: %s; `balanced` weights help the rare", where, message)
    return {name: counts[name] for name in known.names}
