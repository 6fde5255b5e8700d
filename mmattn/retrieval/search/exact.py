"""Exact nearest neighbours by brute force, several times faster than a flat scan.

The search takes two passes. The first scores all vectors with a matrix product in a cheap number format and
keeps only the maximum of every sixteen scores. The second rescores in float32 the blocks that may contain
one of the k best; a bound on the rounding error of the first pass guarantees that none is missed. If there
are too many such blocks (a data set of near duplicates), a plain float32 scan is used instead.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmattn.retrieval.search.float32_matmul import full_precision
from mmattn.retrieval.search.topk import pad_rows, pair_scores, select_best
from mmattn.retrieval.search.torch_threads import set_torch_threads

__all__ = ["METRICS", "ExactSearch", "Metric", "pair_scores", "select_best"]

Metric = Literal["ip", "l2", "cosine"]
METRICS: tuple[Metric, ...] = ("ip", "l2", "cosine")

_BLOCK_SIZE = 16  # scores per block; the first pass keeps the largest
_QUERY_BATCH = 256  # queries that are scanned together
_MIN_QUERIES_PER_CORE = 64  # queries; with fewer, a core is limited by memory bandwidth
_MAX_SCORES = 2**21  # scores in memory at once, about the size of the caches
_MAX_SCORES_GPU = 2**28
_SUMMATION_ERROR = 2**-17  # relative error bound of a float32 inner product, valid for thousands of columns
_MAX_CANDIDATE_BLOCKS = 4096  # candidate blocks per query, above which a plain scan is faster


class ExactSearch:
    """Exact k-nearest-neighbour search over a set of vectors.

    Scores are computed in float32 and higher is better: the inner product ("ip"), the cosine ("cosine"),
    or minus the squared distance ("l2"). Equal scores are ordered by row.

    Args:
        vectors: [N, D] float32, may be mapped from a file; of unit length for "cosine".
        metric: "ip", "l2" or "cosine".
        device: where to search; a GPU holds a copy of the vectors.

    Example:
        >>> search = ExactSearch(np.eye(3, dtype=np.float32), "ip")
        >>> scores, rows = search(np.array([[0.1, 0.9, 0.5]], np.float32), k=2)
        >>> rows.tolist()
        [[1, 2]]
    """

    def __init__(self, vectors: np.ndarray, metric: Metric = "ip", device: str | torch.device = "cpu"):
        self.metric = metric
        self.device = torch.device(device)
        self.vectors = _as_tensor(vectors).to(self.device)

    def __call__(
        self, queries: np.ndarray, k: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best rows of each query.

        Args:
            queries: [Q, D] float32.
            k: rows per query; fewer are returned if there are fewer rows.
            rows: [R] int64, ascending, restrict the search to these rows; None means all.

        Returns:
            Scores [Q, k] float32, best first, and rows [Q, k] int64.
        """
        total = len(self.vectors) if rows is None else len(rows)
        k = min(k, total)
        chosen = None if rows is None else torch.from_numpy(rows).to(self.device)
        queries_QD = _as_tensor(queries).to(self.device)
        if not len(queries) or not k:
            return np.zeros((len(queries), k), np.float32), np.zeros((len(queries), k), np.int64)
        with full_precision():
            batches = self._search_batches(queries_QD, k, chosen)
        scores, indices = (torch.cat(parts).cpu().numpy() for parts in zip(*batches, strict=True))
        return scores, indices if rows is None else rows[indices]

    def _search_batches(
        self, queries_QD: Tensor, k: int, row_subset: Tensor | None
    ) -> list[tuple[Tensor, Tensor]]:
        """Scores and positions, batch by batch.

        With bfloat16 products each core gets its own queries: these operations are so short that sharing one
        among several cores costs as much in synchronization as it saves.
        """
        threads = (
            torch.get_num_threads() if self._first_pass_dtype(_MIN_QUERIES_PER_CORE) == torch.bfloat16 else 1
        )
        workers = max(1, min(threads, len(queries_QD) // _MIN_QUERIES_PER_CORE))
        batches = queries_QD.split(min(_QUERY_BATCH, math.ceil(len(queries_QD) / workers)))
        if workers == 1:
            return [self._search(batch, k, row_subset) for batch in batches]
        with ThreadPoolExecutor(
            workers, initializer=set_torch_threads, initargs=(threads // workers,)
        ) as pool:
            return list(pool.map(lambda batch: self._search(batch, k, row_subset), batches))

    def _search(self, queries_QD: Tensor, k: int, row_subset: Tensor | None) -> tuple[Tensor, Tensor]:
        total = len(self.vectors) if row_subset is None else len(row_subset)
        if total >= 64 * _BLOCK_SIZE * k:  # below, a full sort is as fast
            hits = self._search_two_passes(queries_QD, k, row_subset)
            if hits is not None:
                return hits
        return self._search_single_pass(queries_QD, k, row_subset)

    # --- the scan in two passes ------------------------------------------------------------------

    def _search_two_passes(
        self, queries_QD: Tensor, k: int, row_subset: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Scores and positions [Q, k]; None if too many blocks may contain one of the best."""
        dtype = self._first_pass_dtype(len(queries_QD))
        half_queries = queries_QD.to(dtype)
        best_Qk = queries_QD.new_full((len(half_queries), k), -torch.inf)
        error_Q = self._error_bound(queries_QD, half_queries)
        results: list[tuple[Tensor, ...]] = []
        for start, stride, keys_QBP in self._score_blocks(half_queries, row_subset):
            if not results:
                maxima_QP = keys_QBP.amax(1)
                best_Qk = maxima_QP.topk(min(k, maxima_QP.shape[1])).values.float()
            # Each chunk raises the threshold for the next, so later chunks yield few candidates.
            query, block, keys = _blocks_above(keys_QBP, _score_threshold(best_Qk, k, error_Q, dtype))
            if results:
                best_Qk = torch.cat([best_Qk, pad_rows(query, keys, len(half_queries))], 1)
                best_Qk = best_Qk.topk(min(k, best_Qk.shape[1])).values
            results.append((query, block + start, torch.full_like(block, stride), keys))
            if sum(len(part[0]) for part in results) > _MAX_CANDIDATE_BLOCKS * len(half_queries):
                return None
        query, first, strides, keys = (torch.cat(parts) for parts in zip(*results, strict=True))
        kept = (keys >= _score_threshold(best_Qk, k, error_Q, dtype)[query]).nonzero()[:, 0]
        kept = kept[query[kept].argsort(stable=True)]
        return self._rescore_blocks(queries_QD, k, query[kept], first[kept], strides[kept], row_subset)

    def _score_blocks(
        self, cast_queries: Tensor, row_subset: Tensor | None
    ) -> Iterator[tuple[int, int, Tensor]]:
        """Per chunk: first position, stride within a block, and keys [Q, B, P] of P blocks of B vectors.

        Vectors at the very end that do not fill a block form blocks of one, with stride 0.
        """
        buffer = cast_queries.new_empty(0)
        for start, part_CD in self._chunks(len(cast_queries), row_subset):
            cells = len(cast_queries) * len(part_CD)
            if len(buffer) < cells:  # one buffer is reused: allocation costs more than the product
                buffer = cast_queries.new_empty(cells)
            keys_QC = buffer[:cells].view(len(cast_queries), len(part_CD))
            torch.mm(cast_queries, part_CD.to(cast_queries.dtype).T, out=keys_QC)
            if self.metric == "l2":
                keys_QC -= self._chunk_squared_norms(start, len(part_CD), row_subset) / 2
            columns = len(part_CD) // _BLOCK_SIZE
            whole = columns * _BLOCK_SIZE
            if columns:
                yield start, columns, keys_QC[:, :whole].unflatten(1, (_BLOCK_SIZE, columns))
            if whole < len(part_CD):
                yield start + whole, 0, keys_QC[:, None, whole:]

    def _rescore_blocks(
        self,
        queries_QD: Tensor,
        k: int,
        query: Tensor,
        first: Tensor,
        stride: Tensor,
        row_subset: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The k best vectors of the given blocks [P]; `query` is ascending."""
        steps = torch.arange(_BLOCK_SIZE, device=self.device)
        places_PB = first[:, None] + steps * stride[:, None]
        rows_PB = places_PB if row_subset is None else row_subset[places_PB]
        size = max(1, _MAX_SCORES // (_BLOCK_SIZE * queries_QD.shape[1]))
        scores_PB = torch.cat(
            [
                pair_scores(queries_QD[part], self._gather_rows(rows), self.metric)
                for part, rows in zip(query.split(size), rows_PB.split(size), strict=True)
            ]
        )
        # A block of one lists its only vector sixteen times: keep the first.
        scores_PB.masked_fill_((stride[:, None] == 0) & (steps > 0), -torch.inf)
        owner = query.repeat_interleave(_BLOCK_SIZE)
        scores_QW = pad_rows(owner, scores_PB.flatten(), len(queries_QD))
        places_QW = pad_rows(owner, places_PB.flatten(), len(queries_QD), fill=0)
        return select_best(scores_QW, places_QW, k)

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return self.vectors.index_select(0, rows.flatten()).view(*rows.shape, -1)

    def _first_pass_dtype(self, queries: int) -> torch.dtype:
        """Number format of the first pass."""
        # The eight significant bits of bfloat16 are too few for squared lengths, and small batches are
        # limited by memory bandwidth. So is a GPU, which may also round intermediate sums of such products.
        cheap = self.metric != "l2" and queries >= 16 and self.device.type == "cpu" and _bfloat16_is_faster()
        return torch.bfloat16 if cheap else torch.float32

    def _error_bound(self, queries_QD: Tensor, cast_queries: Tensor) -> Tensor:
        """[Q] bound on the error of a key due to rounded factors and float32 summation."""
        lengths_Q = queries_QD.norm(dim=1)
        adding_Q: Tensor = _SUMMATION_ERROR * lengths_Q * self._max_norm
        if self.metric == "l2":
            return adding_Q + _SUMMATION_ERROR * self._max_norm**2
        if cast_queries.dtype == torch.float32:
            return adding_Q
        lost_Q = (queries_QD - cast_queries.float()).norm(dim=1)
        rounding_Q: Tensor = 1.01 * (lost_Q * self._max_norm + lengths_Q * self._max_rounding_norm)
        return adding_Q + rounding_Q

    @cached_property
    def _max_norm(self) -> float:
        """Length of the longest vector."""
        return max(float(part.norm(dim=1).max()) for part in self.vectors.split(2**16)) * (1 + 1e-6)

    @cached_property
    def _max_rounding_norm(self) -> float:
        """Largest length of the difference between a vector and its bfloat16 form."""
        parts = self.vectors.split(2**16)
        return max(float((part - part.bfloat16().float()).norm(dim=1).max()) for part in parts)

    @cached_property
    def _squared_norms(self) -> Tensor:
        return torch.cat([part.square().sum(1) for part in self.vectors.split(2**16)])

    def _chunk_squared_norms(self, start: int, count: int, row_subset: Tensor | None) -> Tensor:
        """Squared lengths of a chunk."""
        chunk = slice(start, start + count)
        return self._squared_norms[chunk if row_subset is None else row_subset[chunk]]

    # --- the scan in one pass --------------------------------------------------------------------

    def _search_single_pass(
        self, queries_QD: Tensor, k: int, row_subset: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        best = queries_QD.new_empty(len(queries_QD), 0)
        best_rows = torch.empty(len(queries_QD), 0, dtype=torch.int64, device=self.device)
        for start, part_CD in self._chunks(len(queries_QD), row_subset):
            keys_QC = queries_QD @ part_CD.T
            if self.metric == "l2":
                keys_QC -= self._chunk_squared_norms(start, len(part_CD), row_subset) / 2
            # Distances are recomputed below; 16 extra candidates make up for cancellation in the keys.
            wanted = min(k + 16 if self.metric == "l2" else k, keys_QC.shape[1])
            result, chunk_rows = keys_QC.topk(wanted)
            together, names = torch.cat([best, result], 1), torch.cat([best_rows, chunk_rows + start], 1)
            best, order = together.topk(min(together.shape[1], k + 16 if self.metric == "l2" else k))
            best_rows = names.gather(1, order)
        parts = []
        size = max(1, _MAX_SCORES // (best_rows.shape[1] * queries_QD.shape[1]))
        for query, chunk_rows in zip(queries_QD.split(size), best_rows.split(size), strict=True):
            rows = chunk_rows if row_subset is None else row_subset[chunk_rows]
            parts.append(select_best(pair_scores(query, self.vectors[rows], self.metric), chunk_rows, k))
        scores, found_places = (torch.cat(keys) for keys in zip(*parts, strict=True))
        return scores, found_places

    def _chunks(self, queries: int, row_subset: Tensor | None) -> Iterator[tuple[int, Tensor]]:
        """Slices of the vectors with their first position; all but the last consist of whole blocks."""
        cells = _MAX_SCORES if self.device.type == "cpu" else _MAX_SCORES_GPU
        size = min(max(cells // queries // _BLOCK_SIZE, 64), 2**14) * _BLOCK_SIZE
        total = len(self.vectors) if row_subset is None else len(row_subset)
        for start in range(0, total, size):
            end = min(start + size, total)
            yield (
                start,
                self.vectors[start:end] if row_subset is None else self.vectors[row_subset[start:end]],
            )


def _score_threshold(best_Qk: Tensor, k: int, error_Q: Tensor, dtype: torch.dtype) -> Tensor:
    """[Q] smallest key that a vector among the k best can have.

    k blocks contain k vectors whose scores are at least their keys minus the error; the key of a better
    vector is lower by at most the error once more. Keys in bfloat16 are themselves rounded, by at most 2^-8
    (relative).
    """
    if best_Qk.shape[1] < k:
        return torch.full_like(error_Q, -torch.inf)
    rounding = 1.01 * 2**-8 if dtype == torch.bfloat16 else 0.0
    worst_Q = best_Qk.amin(1)
    least_Q = worst_Q - rounding * worst_Q.abs() - 2 * error_Q
    return least_Q - rounding * least_Q.abs()


def _blocks_above(keys_QBP: Tensor, threshold_Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks [H] whose largest key reaches the threshold: query number, block number and that key."""
    if keys_QBP.dtype == torch.bfloat16 and bool((threshold_Q > 0).all()):
        # Comparing as integers is five times as fast. The bits of positive bfloat16 numbers (the upper half
        # of float32) order like integers; negative numbers do not, but are below all positive ones.
        maxima_QP = keys_QBP.view(torch.int16).amax(1)
        least_Q = (threshold_Q.view(torch.int32) >> 16).to(torch.int16)
    else:
        maxima_QP, least_Q = keys_QBP.amax(1), threshold_Q
    query, block = (maxima_QP >= least_Q[:, None]).nonzero(as_tuple=True)
    return query, block, maxima_QP[query, block].view(keys_QBP.dtype).float()


@lru_cache
def _bfloat16_is_faster() -> bool:
    """Whether a bfloat16 product is at least 1.5 times as fast on this CPU; measured once per process."""
    times: dict[torch.dtype, float] = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.ones(size, 64, dtype=dtype) for size in (128, 4096))
        for _ in range(4):
            start = time.perf_counter()
            (left @ right.T).amax().item()
            times[dtype] = min(times.get(dtype, 9.0), time.perf_counter() - start)
    return times[torch.float32] > 1.5 * times[torch.bfloat16]


def _as_tensor(array: np.ndarray) -> Tensor:
    """Tensor that shares the array's memory; a read-only mapping is never written to."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
