"""Runs and judgements as index arrays: what any retrieval system and any collection comes down to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mmattn.array_types import Ints
from mmattn.errors import InputError

__all__ = ["Qrels", "Run"]


# Numbers above this are names in disguise (hashes, keys of a database): tables by number would be too long.
_MAX_DENSE_NUMBER = 1 << 24

# Cells of a block that is worked on at once: a few arrays of this many stay in the processor's cache.
BLOCK_SIZE = 1 << 18


class _QueryDocuments:
    """Rows of documents, one row a query. Documents and queries are numbers; names are optional."""

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
            distinct, places = np.unique(documents, return_inverse=True)
            object.__setattr__(self, "names", tuple(map(str, distinct)))
            object.__setattr__(self, "documents", places)
        self._check_duplicates()

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """[Q] documents of each query."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> Ints:
        """[N] query of each document."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def query_name(self, row: int) -> str:
        """The name of a query: its number where it has none."""
        return str(row) if self.queries is None else self.queries[row]

    def document_name(self, number: int) -> str:
        """The name of a document: its number where it has none."""
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
    """What a system retrieved.

    Args:
        offsets: [Q + 1] where the documents of each query begin and, at last, end.
        documents: [N] document numbers, from 0; with `names`, places in it.
        scores: [N], kept and compared as float32, as trec_eval does; no NaN.
        queries: [Q] names; left out, the queries are "0", "1", ...
        names: of the documents; left out, a document's name is its number in decimal.

    Raises:
        InputError: arrays that do not fit together, NaN, two queries of one name, a document twice.

    Example:
        >>> run = Run([0, 2, 3], [7, 5, 7], [0.5, 0.9, 0.1])
        >>> len(run), run.lengths.tolist(), run.query_name(1), run.document_name(7)
        (2, [2, 1], '1', '7')
    """

    offsets: Ints
    documents: Ints
    scores: NDArray[np.float32]
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
        """From query -> document -> score, the form of pytrec_eval.

        Example:
            >>> len(Run.from_dict({"q1": {"a": 1.0, "b": 0.5}}))
            1
        """
        offsets, documents, names, scores = _from_dict(run)
        return cls(offsets, documents, scores.astype(np.float32), tuple(run), names)

    @classmethod
    def from_matrix(cls, items: ArrayLike, scores: ArrayLike) -> Run:
        """From dense rankings: [Q, K] items, -1 where there is none, and their scores.

        `metrics.rank(...)` gives both; with k the number of candidates it keeps every tie, which the
        policy "expected" needs.

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
        there_QK = items_QK >= 0
        offsets = np.concatenate([[0], np.cumsum(there_QK.sum(1))])
        return cls(offsets, items_QK[there_QK], scores_QK[there_QK])

    @cached_property
    def name_order(self) -> Ints:
        """The documents' numbers sorted by name, descending: what trec_eval puts first among equal scores.

        Names are compared as strings, by code point, which is the order of their UTF-8 bytes.
        """
        if self.names is not None:
            return np.argsort(np.asarray(self.names, dtype=str), kind="stable")[::-1]
        # Decimal strings without writing them: the digits, filled up with zeros, then the shorter first.
        numbers = np.arange(int(self.documents.max(initial=-1)) + 1)
        digits = np.searchsorted(10 ** np.arange(1, 18), numbers, side="right") + 1
        return np.argsort(numbers * 10 ** (digits.max(initial=1) - digits) * 32 + digits)[::-1]

    @cached_property
    def name_rank(self) -> Ints:
        """[documents' numbers] the place of each in `name_order`."""
        places = np.empty(len(self.name_order), np.int64)
        places[self.name_order] = np.arange(len(places))
        return places


@dataclass(frozen=True, eq=False)
class Qrels(_QueryDocuments):
    """What is known to be right.

    Args:
        offsets: [Q + 1] where the documents of each query begin and, at last, end.
        documents: [N] document numbers, from 0; with `names`, places in it.
        gains: [N] how right each is: a grade or any other number. 0 and below count as not relevant.
        queries: [Q] names; left out, the queries are "0", "1", ...
        names: of the documents; left out, a document's name is its number in decimal.

    Raises:
        InputError: arrays that do not fit together, gains that are not finite, two queries of one
            name, a document judged twice.
    """

    offsets: Ints
    documents: Ints
    gains: NDArray[np.float64]
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
        """From query -> document -> judgement, the form of pytrec_eval."""
        offsets, documents, names, gains = _from_dict(qrels)
        return cls(offsets, documents, gains, tuple(qrels), names)

    @classmethod
    def from_matrix(cls, positives: sparse.csr_array) -> Qrels:
        """From [Q, D] stored entries; their values are the gains.

        Example:
            >>> Qrels.from_matrix(sparse.csr_array(np.array([[0, 2], [1, 0]]))).gains.tolist()
            [2.0, 1.0]
        """
        return cls(
            positives.indptr.astype(np.int64), positives.indices.astype(np.int64), np.asarray(positives.data)
        )


def length_blocks(lengths: Ints) -> list[tuple[Ints, NDArray[np.bool_]]]:
    """Rows of similar length together, in blocks of bounded size: row numbers, and [B, K] what is filled."""
    by_length = np.argsort(lengths, kind="stable")
    found = []
    end = len(lengths)
    while end > 0 and (longest := int(lengths[by_length[end - 1]])) > 0:
        start = max(0, end - max(1, BLOCK_SIZE // longest))
        rows = by_length[start:end]
        found.append((rows, np.arange(longest) < lengths[rows][:, None]))
        end = start
    return found[::-1]


def pad_rows(flat: NDArray, starts: Ints, within: NDArray[np.bool_], fill: int | float) -> NDArray:
    """[B, K] the rows that begin at `starts`, `fill` behind their ends."""
    rows, longest = within.shape
    if within.all() and (np.diff(starts) == longest).all():
        return flat[starts[0] : starts[0] + rows * longest].reshape(rows, longest).copy()
    block = np.full(within.shape, fill, flat.dtype)
    block[within] = flat[(starts[:, None] + np.arange(longest))[within]]
    return block


def _from_dict(
    table: Mapping[str, Mapping[str, float]],
) -> tuple[Ints, Ints, tuple[str, ...], NDArray[np.float64]]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in table.values()], dtype=np.int64)])
    written = [document for row in table.values() for document in row]
    documents, names = pd.factorize(np.asarray(written, dtype=object))
    numbers = np.array([value for row in table.values() for value in row.values()], np.float64)
    return offsets.astype(np.int64), documents.astype(np.int64), tuple(names), numbers


def _check_unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"{what}: {twice!r} comes twice, expected each name once")
