"""Input checks of an index: finite vectors of one width, ids that are all text or all whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmattn.errors import InputError

__all__ = ["check_ids", "check_k", "check_provenance", "check_vectors", "normalize_rows"]


def check_vectors(vectors: np.ndarray, what: str, row_name: Callable[[int], str]) -> np.ndarray:
    """Convert vectors to a C-ordered float32 array [N, D] and check that every value is finite.

    Args:
        vectors: [N, D] numbers, D at least 1.
        what: name of the input for error messages, for example "queries".
        row_name: row number -> description of that row for error messages.

    Raises:
        InputError: wrong shape or dtype, D = 0, or a value that is not finite in float32.
    """
    given = np.asarray(vectors)
    if given.ndim != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
        raise InputError(f"{what}: got {given.dtype} {list(given.shape)}, expected numbers [N, D]")
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are refused below
        rows = np.ascontiguousarray(given, dtype=np.float32)
    # If the sum is finite, so is every value; summing is much faster than checking each value.
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
    """Divide each row by its Euclidean length.

    Args:
        rows: [N, D] float32.
        what: name of the input for error messages.
        row_name: row number -> description of that row for error messages.

    Returns:
        [N, D] float32 rows of unit length.

    Raises:
        InputError: a row of zeros, which has no direction.

    Example:
        >>> normalize_rows(np.array([[3.0, 4.0]], np.float32), "queries", str).round(2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
    if len(rows) and lengths.min() == 0:
        bad = np.flatnonzero(lengths == 0)
        raise InputError(f"{what}: {row_name(int(bad[0]))} is all zeros, which has no cosine; leave it out")
    result: np.ndarray = (rows / lengths[:, None]).astype(np.float32)
    return result


def check_ids(ids: Sequence[Any] | np.ndarray, what: str) -> np.ndarray:
    """Check ids and convert them to one array.

    Args:
        ids: N distinct texts or N distinct whole numbers (NumPy scalars included).
        what: name of the input for error messages.

    Returns:
        [N] int64 if all ids are whole numbers, [N] objects if all are text.

    Raises:
        InputError: ids of another type, texts mixed with numbers, a duplicate, or a number beyond 64 bits.

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
        types = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"{what}: got ids of type {types}, expected all text or all whole numbers")
    if len(set(names)) < len(names):
        seen: set[Any] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{what}: id {twice!r} comes twice, expected each id once")
    if kinds == {int} and not all(-(2**63) <= name < 2**63 for name in names):
        raise InputError(f"{what}: got an id beyond 64 bits, expected text for such names")
    return np.array(names, dtype=np.int64 if kinds == {int} else object)


def check_provenance(expected: Mapping[str, str] | None, actual: Mapping[str, str] | None, what: str) -> None:
    """Check that two sets of vectors were made by the same encoder, weights and program.

    Args:
        expected: provenance of the index (part -> fingerprint); None if it is unknown.
        actual: provenance of the vectors that are compared with it; None if it is unknown.
        what: name of the operation for error messages.

    Raises:
        InputError: a fingerprint differs, or only one side has a provenance.
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
    """Check that `k` is a valid number of neighbours.

    Args:
        k: requested number of neighbours.
        num_items: number of items in the index.
        max_k: largest allowed `k`; None means `num_items`.

    Raises:
        InputError: the index is empty, or `k` is not a whole number from 1 to `max_k`.
    """
    if not num_items:
        raise InputError("search: the index is empty, expected items to find")
    max_k = num_items if max_k is None else max_k
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= max_k:
        raise InputError(f"search: got k={k!r}, expected 1 to {max_k}, the number of items there are")
