"""What may come into an index: finite vectors of one width, ids that are all text or all numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmattn.errors import InputError

__all__ = ["check_ids", "check_k", "check_provenance", "check_vectors", "normalize_rows"]


def check_vectors(vectors: np.ndarray, what: str, row_name: Callable[[int], str]) -> np.ndarray:
    """Check vectors: [N, D] float32 in C order, without NaN or infinity.

    Args:
        vectors: as a user gave them.
        what: begins the message.
        row_name: row -> its name in the message.

    Raises:
        InputError: another shape or type, no column, or a value that is not finite.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
        raise InputError(f"{what}: got {given.dtype} {list(given.shape)}, expected numbers [N, D]")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        rows = np.ascontiguousarray(given, dtype=np.float32)
    # A sum is finite where everything is, and far quicker than a look at every value.
    with np.errstate(invalid="ignore"):
        whole = bool(np.isfinite(rows.sum(dtype=np.float64)))
    if not whole:
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        raise InputError(
            f"{what}: {len(bad)} of {len(rows)} hold NaN or infinity (in float32), the first is "
            f"{row_name(int(bad[0]))}; expected finite numbers"
        )
    return rows


def normalize_rows(rows: np.ndarray, what: str, row_name: Callable[[int], str]) -> np.ndarray:
    """Divide rows by their lengths.

    Args:
        rows: [N, D].
        what: begins the message.
        row_name: row -> its name in the message.

    Raises:
        InputError: a row of zeros, which has no direction.
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    if len(rows) and lengths.min() == 0:
        bad = np.flatnonzero(lengths == 0)
        raise InputError(f"{what}: {row_name(int(bad[0]))} is all zeros, which has no cosine; leave it out")
    result: np.ndarray = (rows / lengths[:, None]).astype(np.float32)
    return result


def check_ids(ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """Check ids: [N] int64 if all are whole numbers, [N] objects if all are text.

    Args:
        ids: as a user gave them.
        what: begins the message.

    Raises:
        InputError: another kind, both kinds together, or an id that comes twice.

    Example:
        >>> check_ids([7, 9], "index").dtype, check_ids(["a", "b"], "index").tolist()
        (dtype('int64'), ['a', 'b'])
    """
    names = list(ids.tolist() if isinstance(ids, np.ndarray) else ids)
    kinds = {type(name) for name in names}
    if any(issubclass(kind, np.generic) for kind in kinds):
        names = [name.item() if isinstance(name, np.generic) else name for name in names]
        kinds = {type(name) for name in names}
    if kinds - {str, int} or len(kinds) > 1:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{what}: got ids of type {found}, expected all text or all whole numbers")
    if len(set(names)) < len(names):
        seen: set[Any] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{what}: id {twice!r} comes twice, expected each id once")
    if kinds == {int} and not all(-(2**63) <= name < 2**63 for name in names):
        raise InputError(f"{what}: got an id beyond 64 bits, expected text for such names")
    return np.array(names, dtype=np.int64 if kinds == {int} else object)


def check_provenance(expected: Mapping[str, str] | None, actual: Mapping[str, str] | None, what: str) -> None:
    """Check that vectors were made by what made those of the index.

    Args:
        expected: part -> fingerprint of the index; None if unknown.
        actual: part -> fingerprint of the vectors; None if unknown.
        what: begins the message.

    Raises:
        InputError: a part (encoder, weights, program) differs; both are named.
    """
    if expected is None and actual is None:
        return
    if expected is None or actual is None:
        known = (
            "the index does not say what made its own"
            if expected is None
            else "they do not say what made them"
        )
        raise InputError(f"{what}: vectors of another origin: {known}; expected the same on both sides")
    for part in sorted({*expected, *actual}):
        if expected.get(part) != actual.get(part):
            raise InputError(
                f"{what}: vectors of another {part}: they come from {actual.get(part, 'none')}, "
                f"expected {expected.get(part, 'none')} as in the index"
            )


def check_k(k: Any, num_items: int, max_k: int | None = None) -> None:
    """Check the number of neighbours asked for.

    Args:
        k: as a user gave it.
        num_items: number of items in the index.
        max_k: largest number allowed; None for no limit.

    Raises:
        InputError: there are no items at all, or k is no whole number from 1 to `max_k` (or `num_items`).
        InputError: not a whole number, below 1, or too large.
    """
    if not num_items:
        raise InputError("search: the index is empty, expected items to find")
    max_k = num_items if max_k is None else max_k
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= max_k:
        raise InputError(f"search: got k={k!r}, expected 1 to {max_k}, the number of items there are")
