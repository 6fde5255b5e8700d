"""The names that a head knows: classes, labels, tags."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence

from mmattn.data.class_balance import imbalance_warning
from mmattn.errors import InputError, did_you_mean

__all__ = ["Vocabulary", "count_names"]

log = logging.getLogger(__name__)


class Vocabulary:
    """Names and their numbers.

    Args:
        names: in the order of their numbers.
        where: what errors call the head, for example "classification head".
        name_kind: what a name is, for example "class".

    Raises:
        InputError: no name, one that is not a text, is empty, or stands there twice.

    Example:
        >>> Vocabulary(["cat", "dog"], "classification head", "class").index("dog")
        1
    """

    def __init__(self, names: Sequence[str], where: str, name_kind: str):
        self.names, self.where, self.name_kind = tuple(names), where, name_kind
        if not self.names or isinstance(names, str):
            raise InputError(f"{where}: got {names!r}, expected at least one {name_kind} name, in a list")
        for name in self.names:
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: got {name!r} as {name_kind} name, expected a text (not empty)")
        if twice := [name for name, count in Counter(self.names).items() if count > 1]:
            raise InputError(f"{where}: got {name_kind} {twice[0]!r} twice, expected each once")
        self.name_to_index = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: object) -> int:
        """The number of a name.

        Args:
            name: the name.

        Raises:
            InputError: there is no such name; the nearest one is suggested.
            InputError: an unknown name.
        """
        if not isinstance(name, str):
            raise InputError(
                f"{self.where}: got {name!r} ({type(name).__name__}) as {self.name_kind}, expected a name "
                f"(text)"
            )
        if name not in self.name_to_index:
            raise InputError(f"{self.where}: no {self.name_kind} {name!r}.{did_you_mean(name, self.names)}")
        return self.name_to_index[name]


def count_names(names: Iterable[str], where: str, name_kind: str) -> dict[str, int]:
    """Count the names, sorted; an imbalance above ten to one is logged.

    `mmattn.data.class_balance` says what unbalanced is.

    Args:
        names: with repetitions.
        where: begins the messages.
        name_kind: what a name is, for example "class".

    Raises:
        InputError: a name that is not a text, or none at all.

    Example:
        >>> count_names(["b", "a", "b"], "classification head", "class")
        {'a': 1, 'b': 2}
    """
    names = list(names)
    known = Vocabulary(sorted(set(names), key=str), where, name_kind)
    counts = Counter(names)
    if message := imbalance_warning(counts, name_kind):
        log.warning("%s: %s; `balanced` weights help the rare", where, message)
    return {name: counts[name] for name in known.names}
