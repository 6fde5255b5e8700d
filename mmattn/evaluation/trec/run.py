"""Runs and judgements as index arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Bools, Floats, Floats32, Ints
from mmattn.errors import InputError

__all__ = ["Qrels", "Run"]


# Larger numbers are treated as names (hashes, database keys): tables indexed by them would be too long.
_MAX_DENSE_NUMBER = 1 << 24

# Cells per block: a few arrays of this size fit in the processor cache.
BLOCK_SIZE = 1 << 18


class _QueryDocuments:
    """Documents of each query, as numbers with optional names."""

    offsets: Ints
    documents: Ints
    queries: Sequence[str] | None
    names: Sequence[str] | None

    def _validate(self, values_field: str) -> None:
        what = type(self).__name__
        for field in ("offsets", "documents"):
            array = np.asarray(getattr(self, field))
            if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
                raise InputError(
                    f"{what}.{field}: got {array.dtype} of shape {array.shape}, expected a row of integers"
                )
            object.__setattr__(self, field, array.astype(np.int64, copy=False))
        count = len(getattr(self, values_field))
        offsets, documents = self.offsets, self.documents
        if not len(offsets) or offsets[0] != 0 or offsets[-1] != count or (np.diff(offsets) < 0).any():
            raise InputError(f"{what}.offsets: expected to start at 0, never decrease and end at {count}")
        if documents.shape != (count,):
            raise InputError(f"{what}: got {len(documents)} documents and {count} {values_field}")
        limit = 2**63 - 1 if self.names is None else len(self.names)
        if count and not (0 <= documents.min() and documents.max() < limit):
            raise InputError(
                f"{what}.documents: got {documents.min()} to {documents.max()}, expected 0 to {limit - 1}"
            )
        if self.queries is not None:
            if len(self.queries) != len(self):
                raise InputError(f"{what}: got {len(self.queries)} query names for {len(self)} queries")
            _check_unique(f"{what}.queries", self.queries)
        if self.names is not None:
            _check_unique(f"{what}.names", self.names)
        elif documents.max(initial=0) > _MAX_DENSE_NUMBER:
            distinct, indices = np.unique(documents, return_inverse=True)
            object.__setattr__(self, "names", tuple(map(str, distinct)))
            object.__setattr__(self, "documents", indices)
        self._check_duplicates()

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Number of documents of each query, [Q]."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """Query of each document, [N]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def query_name(self, row: int) -> str:
        """Return the name of a query; without names, its number.

        Args:
            row: number of the query.
        """
        return str(row) if self.queries is None else self.queries[row]

    def document_name(self, number: int) -> str:
        """Return the name of a document; without names, its number.

        Args:
            number: number of the document.
        """
        return str(number) if self.names is None else self.names[number]

    def _check_duplicates(self) -> None:
        documents = self.documents.astype(np.int32)
        for rows, within in length_blocks(self.lengths):
            block_BK = pad_rows(documents, self.offsets[rows], within, fill=-1)
            block_BK.sort(axis=1)
            twice_BK = (block_BK[:, 1:] == block_BK[:, :-1]) & (block_BK[:, 1:] >= 0)
            if twice_BK.any():
                row, column = np.argwhere(twice_BK)[0]
                raise InputError(
                    f"{type(self).__name__}: query {self.query_name(int(rows[row]))!r} has the document "
                    f"{self.document_name(int(block_BK[row, column]))!r} twice, expected each once"
                )


@dataclass(frozen=True, eq=False)
class Run(_QueryDocuments):
    """Retrieved documents and scores of each query.

    Args:
        offsets: [Q + 1] start of the documents of each query, and the end of the last.
        documents: [N] document numbers from 0; with `names`, indices into it.
        scores: [N] scores, stored and compared as float32, as in trec_eval; no NaN.
        queries: [Q] query names; by default "0", "1", ...
        names: document names; by default the document numbers in decimal.

    Raises:
        InputError: inconsistent arrays, NaN, duplicate query names, or a duplicate document of a query.

    Example:
        >>> run = Run([0, 2, 3], [7, 5, 7], [0.5, 0.9, 0.1])
        >>> len(run), run.lengths.tolist(), run.query_name(1), run.document_name(7)
        (2, [2, 1], '1', '7')
    """

    offsets: Ints
    documents: Ints
    scores: Floats32
    queries: Sequence[str] | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        # A score beyond float32 becomes infinite, as it does in trec_eval.
        with np.errstate(over="ignore"):
            object.__setattr__(self, "scores", np.asarray(self.scores, np.float32))
        if self.scores.ndim != 1 or np.isnan(self.scores).any():
            raise InputError(
                f"Run.scores: got shape {self.scores.shape} with {int(np.isnan(self.scores).sum())} NaN, "
                "expected a row of numbers"
            )
        self._validate("scores")

    @classmethod
    def from_dict(cls, run: Mapping[str, Mapping[str, float]]) -> Run:
        """Create a run from nested mappings, the format of pytrec_eval.

        Args:
            run: query -> document -> score.

        Example:
            >>> len(Run.from_dict({"q1": {"a": 1.0, "b": 0.5}}))
            1
        """
        offsets, documents, names, scores = _from_dict(run)
        return cls(offsets, documents, scores.astype(np.float32), tuple(run), names)

    @classmethod
    def from_matrix(cls, items: ArrayLike, scores: ArrayLike) -> Run:
        """Create a run from dense rankings, as `metrics.rank` returns them.

        The tie policy "expected" needs complete rankings, with k the number of candidates.

        Args:
            items: [Q, K] item ids; -1 where there is none.
            scores: [Q, K] scores.

        Raises:
            InputError: the shapes differ.

        Example:
            >>> Run.from_matrix([[3, 1], [2, -1]], [[0.9, 0.1], [0.5, 0.0]]).offsets.tolist()
            [0, 2, 3]
        """
        items_QK, scores_QK = np.asarray(items), np.asarray(scores, np.float32)
        if items_QK.ndim != 2 or items_QK.shape != scores_QK.shape:
            raise InputError(
                f"Run: got items of shape {items_QK.shape} and scores of shape {scores_QK.shape}, "
                "expected [Q, K] of both"
            )
        present_QK = items_QK >= 0
        offsets = np.concatenate([[0], np.cumsum(present_QK.sum(1))])
        return cls(offsets, items_QK[present_QK], scores_QK[present_QK])

    @cached_property
    def name_order(self) -> Ints:
        """Document numbers in descending order of name, the order of trec_eval among equal scores.

        Names are compared by code point, which is also the order of their UTF-8 bytes.
        """
        if self.names is not None:
            return np.argsort(np.asarray(self.names, dtype=str), kind="stable")[::-1]
        # Sort decimal strings without formatting them: by zero-padded digits, then by length.
        numbers = np.arange(int(self.documents.max(initial=-1)) + 1)
        digits = np.searchsorted(10 ** np.arange(1, 18), numbers, side="right") + 1
        return np.argsort(numbers * 10 ** (digits.max(initial=1) - digits) * 32 + digits)[::-1]

    @cached_property
    def name_rank(self) -> Ints:
        """Rank of each document number in `name_order`."""
        ranks = np.empty(len(self.name_order), np.int64)
        ranks[self.name_order] = np.arange(len(ranks))
        return ranks


@dataclass(frozen=True, eq=False)
class Qrels(_QueryDocuments):
    """Relevance judgements of each query.

    Args:
        offsets: [Q + 1] start of the documents of each query, and the end of the last.
        documents: [N] document numbers from 0; with `names`, indices into it.
        gains: [N] grades; 0 and below are not relevant.
        queries: [Q] query names; by default "0", "1", ...
        names: document names; by default the document numbers in decimal.

    Raises:
        InputError: inconsistent arrays, gains that are not finite, duplicate query names, or a duplicate
            judgement.

    Example:
        >>> qrels = Qrels([0, 1], [4], [2.0])
        >>> len(qrels), qrels.document_name(4)
        (1, '4')
    """

    offsets: Ints
    documents: Ints
    gains: Floats
    queries: Sequence[str] | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", np.asarray(self.gains, np.float64))
        if self.gains.ndim != 1 or not np.isfinite(self.gains).all():
            raise InputError(
                f"Qrels.gains: got shape {self.gains.shape} with {int((~np.isfinite(self.gains)).sum())} "
                "numbers that are not finite, expected a row of finite numbers"
            )
        self._validate("gains")

    @classmethod
    def from_dict(cls, qrels: Mapping[str, Mapping[str, float]]) -> Qrels:
        """Create judgements from nested mappings, the format of pytrec_eval.

        Args:
            qrels: query -> document -> grade.
        """
        offsets, documents, names, gains = _from_dict(qrels)
        return cls(offsets, documents, gains, tuple(qrels), names)

    @classmethod
    def from_matrix(cls, positives: sparse.csr_array) -> Qrels:
        """Create judgements from a sparse matrix.

        Args:
            positives: [Q, D]; stored values are the gains.

        Example:
            >>> Qrels.from_matrix(sparse.csr_array(np.array([[0, 2], [1, 0]]))).gains.tolist()
            [2.0, 1.0]
        """
        return cls(
            positives.indptr.astype(np.int64), positives.indices.astype(np.int64), np.asarray(positives.data)
        )


def length_blocks(lengths: Ints) -> list[tuple[Ints, Bools]]:
    """Group rows of similar length into blocks of bounded size.

    Args:
        lengths: [Q] length of each row.

    Returns:
        For each block: [B] row numbers, and [B, K] mask of the filled cells.
    """
    by_length = np.argsort(lengths, kind="stable")
    blocks = []
    end = len(lengths)
    while end > 0 and (longest := int(lengths[by_length[end - 1]])) > 0:
        start = max(0, end - max(1, BLOCK_SIZE // longest))
        rows = by_length[start:end]
        blocks.append((rows, np.arange(longest) < lengths[rows][:, None]))
        end = start
    return blocks[::-1]


def pad_rows(flat: NDArray[Any], starts: Ints, within: Bools, fill: int | float) -> NDArray[Any]:
    """Gather rows of a flat array into a padded block.

    Args:
        flat: [N] values of all rows.
        starts: [B] start of each row.
        within: [B, K] mask of the filled cells.
        fill: padding value.

    Returns:
        [B, K] values.
    """
    rows, longest = within.shape
    if within.all() and (np.diff(starts) == longest).all():
        return flat[starts[0] : starts[0] + rows * longest].reshape(rows, longest).copy()
    block = np.full(within.shape, fill, flat.dtype)
    block[within] = flat[(starts[:, None] + np.arange(longest))[within]]
    return block


def _from_dict(
    table: Mapping[str, Mapping[str, float]],
) -> tuple[Ints, Ints, tuple[str, ...], Floats]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in table.values()], dtype=np.int64)])
    all_documents = [document for row in table.values() for document in row]
    documents, names = pd.factorize(np.asarray(all_documents, dtype=object))
    numbers = np.array([value for row in table.values() for value in row.values()], np.float64)
    return offsets.astype(np.int64), documents.astype(np.int64), tuple(names), numbers


def _check_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{what}: {twice!r} comes twice, expected each name once")
