"""Approximate search with faiss, whose results are rescored exactly.

faiss returns candidates; their scores are recomputed in float32 from the vectors. The index type and its
parameters are chosen by `mmattn.retrieval.search.index_selection`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.errors import InputError
from mmattn.retrieval.search.exact import Metric, pair_scores, select_best
from mmattn.retrieval.search.faiss_gpu import GpuIndexCopy
from mmattn.retrieval.search.float32_matmul import full_precision
from mmattn.retrieval.search.plan import AnnSettings

__all__ = ["AnnSearch", "load_faiss", "read_faiss"]


class AnnSearch:
    """A faiss index over vectors that are stored elsewhere.

    faiss numbers vectors in insertion order, and most of its indexes cannot delete. `faiss_to_row` maps each
    faiss number to the vector's current row, or to -1 if it was removed.

    Args:
        index: trained faiss index.
        settings: factory string, search effort and number of candidates.
        metric: "ip", "l2" or "cosine".
        faiss_to_row: [M] int64, current row of each vector that was ever added; -1 if removed.
        memory_mapped: whether `index` is mapped from a file and has to be copied before vectors are added.
    """

    def __init__(
        self,
        index: Any,
        settings: AnnSettings,
        metric: Metric,
        faiss_to_row: np.ndarray,
        *,
        memory_mapped: bool = False,
    ):
        self.index = index
        self.memory_mapped = memory_mapped
        self.add_seconds = 0.0  # seconds that `build` took to add the vectors, without training
        self.settings = settings
        self.metric = metric
        self.faiss_to_row = faiss_to_row
        self.gpu_copy: GpuIndexCopy | None = None

    @classmethod
    def build(cls, vectors: np.ndarray, metric: Metric, settings: AnnSettings) -> AnnSearch:
        """Train a faiss index on a sample, then add all vectors.

        Args:
            vectors: [N, D] float32.
            metric: "ip", "l2" or "cosine".
            settings: what to build, and how to search it.
        """
        faiss = load_faiss()
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(vectors.shape[1], settings.factory, kind)
        if settings.factory.startswith("IVF"):
            index.cp.max_points_per_centroid = 64
            index.cp.niter = 10
            index.cp.min_points_per_centroid = 1  # no warning for small data sets
        trained_on = min(len(vectors), max(65_536, 64 * getattr(index, "nlist", 0)))
        rows = np.sort(np.random.default_rng(0).choice(len(vectors), trained_on, replace=False))
        index.train(np.ascontiguousarray(vectors[rows]))
        start = time.perf_counter()
        index.add(np.ascontiguousarray(vectors))
        search = cls(index, settings, metric, np.arange(len(vectors)))
        search.add_seconds = time.perf_counter() - start
        return search

    def search(
        self, vectors: np.ndarray, queries: np.ndarray, k: int, rows: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best rows of each query among the candidates of faiss.

        Args:
            vectors: [N, D] float32, all vectors in row order.
            queries: [Q, D] float32.
            k: rows per query.
            rows: [R] int64, restrict the search to these rows; None means all.

        Returns:
            Scores [Q, k] float32, best first, and rows [Q, k] int64; minus infinity and -1 where fewer were
            found. Fewer columns if faiss holds fewer than k vectors.
        """
        if not len(queries):
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        wanted = min(k * self.settings.refine_factor, len(self.faiss_to_row))
        numbers = self._faiss_ids(queries, wanted, len(vectors), rows)
        candidates = np.where(numbers < 0, -1, self.faiss_to_row[numbers])
        scores, best = [], []
        with full_precision():
            for query, candidate_rows in zip(_batches(queries), _batches(candidates), strict=True):
                places_QP = torch.from_numpy(candidate_rows)
                scores_QP = pair_scores(
                    torch.from_numpy(query), torch.from_numpy(vectors[candidate_rows.clip(0)]), self.metric
                )
                scores_QP.masked_fill_(places_QP < 0, -torch.inf)
                top = select_best(scores_QP, places_QP, min(k, places_QP.shape[1]))
                scores.append(top[0].numpy())
                best.append(top[1].numpy())
        return np.concatenate(scores), np.concatenate(best)

    def _faiss_ids(
        self, queries: np.ndarray, num_candidates: int, num_rows: int, rows: np.ndarray | None
    ) -> np.ndarray:
        """[Q, num_candidates] faiss numbers of the candidates, -1 for none; only of `rows` unless None."""
        filtered = rows is not None or bool((self.faiss_to_row < 0).any())
        if self.gpu_copy is not None and self.gpu_copy.supports(
            num_candidates, self.settings.effort, filtered
        ):
            return self.gpu_copy.search(
                queries, num_candidates, self._search_parameters(num_candidates, None)
            )
        allowed = None
        if filtered:
            allowed = np.zeros(num_rows + 1, dtype=bool)  # the last entry (index -1) is for removed vectors
            allowed[slice(num_rows) if rows is None else rows] = True
        result: np.ndarray = self.index.search(
            queries, num_candidates, params=self._search_parameters(num_candidates, allowed)
        )[1]
        return result

    def _search_parameters(self, num_candidates: int, allowed: np.ndarray | None) -> Any:
        faiss = load_faiss()
        options: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed[self.faiss_to_row], bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        if self.settings.factory.startswith("IVF"):
            return faiss.SearchParametersIVF(nprobe=self.settings.effort, **options)
        return faiss.SearchParametersHNSW(efSearch=max(self.settings.effort, num_candidates), **options)

    def add(self, vectors: np.ndarray, first_row: int) -> None:
        """Add vectors.

        Args:
            vectors: [n, D] float32.
            first_row: row of the first one; the others follow it.
        """
        if self.memory_mapped:  # adding to a mapped index crashes faiss: copy it into memory first
            self.index = load_faiss().deserialize_index(load_faiss().serialize_index(self.index))
            self.memory_mapped = False
        self.index.add(np.ascontiguousarray(vectors))
        if self.gpu_copy is not None:
            self.gpu_copy.add(np.ascontiguousarray(vectors))
        self.faiss_to_row = np.concatenate(
            [self.faiss_to_row, np.arange(first_row, first_row + len(vectors))]
        )

    def remove(self, keep: np.ndarray) -> None:
        """Mark rows as removed and renumber the others.

        Args:
            keep: [N] boolean, false for the rows that are removed.
        """
        moved = np.where(keep, np.cumsum(keep) - 1, -1)
        self.faiss_to_row = np.where(self.faiss_to_row < 0, -1, moved[self.faiss_to_row])

    def to(self, device: str) -> None:
        """Keep a copy on a GPU for the searches it supports.

        Args:
            device: for example "cuda:0"; "cpu" discards the copy.
        """
        self.gpu_copy = GpuIndexCopy.create(load_faiss(), self.index, self.settings.factory, device)

    def write(self, path: Path) -> None:
        """Write the faiss index to a file.

        Args:
            path: the file.
        """
        load_faiss().write_index(self.index, str(path))


def read_faiss(path: Path, num_vectors: int, dim: int, metric: Metric) -> Any:
    """Open a faiss file, mapped into memory, whose hash was checked.

    faiss trusts the sizes in its files; limits are set so that no field can exceed the size of the file.

    Args:
        path: the file.
        num_vectors: expected number of vectors, removed ones included.
        dim: expected width D.
        metric: expected metric ("cosine" is stored as inner product).

    Raises:
        InputError: faiss cannot read it, or its number of vectors, width or metric differ.
    """
    faiss = load_faiss()
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(path.stat().st_size)
    faiss.set_deserialization_loop_limit(path.stat().st_size)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InputError(f"{path}: faiss cannot read it ({str(error).splitlines()[0]})") from error
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])
    expected = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    if (index.ntotal, index.d, index.metric_type) != (num_vectors, dim, expected):
        raise InputError(
            f"{path}: got a faiss index of {index.ntotal} vectors of width {index.d}, the manifest says "
            f"{num_vectors} of width {dim} ({metric})"
        )
    return index


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Batches of 64 queries, so that the vectors gathered for them fit in the cache."""
    return (rows[start : start + 64] for start in range(0, len(rows), 64))


def load_faiss() -> Any:
    """Import faiss on first use: the import is slow, and its OpenMP runtime can clash with that of torch."""
    import faiss

    # Below the default threshold faiss compares vectors one by one; a matrix product is five times as fast.
    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss
