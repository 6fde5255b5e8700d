"""Approximate search through faiss, whose scores never depend on the index.

What faiss finds is scored anew in float32 from the vectors themselves. Which index it is, and with which
parameters, `mmattn.retrieval.search.index_selection` decides.
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
    """A faiss index over vectors that it does not own.

    faiss numbers vectors in the order in which they came, and most of its indexes cannot forget one.
    `faiss_to_row` says in which row each of them lies now, -1 for those that were removed.

    Args:
        index: the faiss index.
        settings: factory and effort.
        metric: "ip", "cosine" or "l2".
        faiss_to_row: [N] row of each faiss number.
        memory_mapped: the index reads its file when it is searched.
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
        self.add_seconds = 0.0  # seconds that `build` took after training
        self.settings = settings
        self.metric = metric
        self.faiss_to_row = faiss_to_row
        self.gpu_copy: GpuIndexCopy | None = None

    @classmethod
    def build(cls, vectors: np.ndarray, metric: Metric, settings: AnnSettings) -> AnnSearch:
        """Train on a sample, then add everything.

        Args:
            vectors: [N, D].
            metric: "ip", "cosine" or "l2".
            settings: factory and effort.
        """
        faiss = load_faiss()
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(vectors.shape[1], settings.factory, kind)
        if settings.factory.startswith("IVF"):
            index.cp.max_points_per_centroid = 64
            index.cp.niter = 10
            index.cp.min_points_per_centroid = 1  # small sets are meant
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
        """Scores [Q, k] and rows [Q, k], -1 with minus infinity where no more was found.

        Args:
            vectors: all of them, row by row.
            queries: [Q, D].
            k: how many.
            rows: the only rows to find.
        """
        if not len(queries):
            return np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)
        wanted = min(k * self.settings.refine_factor, len(self.faiss_to_row))
        numbers = self._faiss_ids(queries, wanted, len(vectors), rows)
        found = np.where(numbers < 0, -1, self.faiss_to_row[numbers])
        scores, best = [], []
        with full_precision():
            for query, places in zip(_batches(queries), _batches(found), strict=True):
                places_QP = torch.from_numpy(places)
                scores_QP = pair_scores(
                    torch.from_numpy(query), torch.from_numpy(vectors[places.clip(0)]), self.metric
                )
                scores_QP.masked_fill_(places_QP < 0, -torch.inf)
                top = select_best(scores_QP, places_QP, min(k, places_QP.shape[1]))
                scores.append(top[0].numpy())
                best.append(top[1].numpy())
        return np.concatenate(scores), np.concatenate(best)

    def _faiss_ids(
        self, queries: np.ndarray, num_candidates: int, num_rows: int, rows: np.ndarray | None
    ) -> np.ndarray:
        """[Q, wanted] what faiss finds, in its own numbers; of `num_rows` rows only those that are named."""
        filtered = rows is not None or bool((self.faiss_to_row < 0).any())
        if self.gpu_copy is not None and self.gpu_copy.supports(
            num_candidates, self.settings.effort, filtered
        ):
            return self.gpu_copy.search(
                queries, num_candidates, self._search_parameters(num_candidates, None)
            )
        allowed = None
        if filtered:
            allowed = np.zeros(num_rows + 1, dtype=bool)  # the last one stands for what was removed
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
        """Add vectors, whose rows begin at `first_row`.

        Args:
            vectors: [n, D].
            first_row: row of the first one.
        """
        if self.memory_mapped:  # faiss writes into a mapping, and crashes: it needs memory of its own
            self.index = load_faiss().deserialize_index(load_faiss().serialize_index(self.index))
            self.memory_mapped = False
        self.index.add(np.ascontiguousarray(vectors))
        if self.gpu_copy is not None:
            self.gpu_copy.add(np.ascontiguousarray(vectors))
        self.faiss_to_row = np.concatenate(
            [self.faiss_to_row, np.arange(first_row, first_row + len(vectors))]
        )

    def remove(self, keep: np.ndarray) -> None:
        """Remove rows; the others move up.

        Args:
            keep: [N] boolean, the rows that stay.
        """
        moved = np.where(keep, np.cumsum(keep) - 1, -1)
        self.faiss_to_row = np.where(self.faiss_to_row < 0, -1, moved[self.faiss_to_row])

    def to(self, device: str) -> None:
        """Keep a copy on a GPU for the searches that it supports; none with "cpu".

        Args:
            device: "cpu" or a CUDA device.
        """
        self.gpu_copy = GpuIndexCopy.create(load_faiss(), self.index, self.settings.factory, device)

    def write(self, path: Path) -> None:
        """Write the faiss index.

        Args:
            path: of the file.
        """
        load_faiss().write_index(self.index, str(path))


def read_faiss(path: Path, num_vectors: int, dim: int, metric: Metric) -> Any:
    """Open a faiss file whose hash was checked, mapped into memory.

    faiss trusts what it reads, so it gets limits: no field can be larger than the file.

    Args:
        path: of the file.
        num_vectors: number of vectors expected.
        dim: width expected.
        metric: "ip", "cosine" or "l2".

    Raises:
        InputError: it is no index of so many vectors, of this width and metric.
        InputError: the file holds another index.
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
    """A few queries at a time, so that the vectors gathered for them stay in the cache."""
    return (rows[start : start + 64] for start in range(0, len(rows), 64))


def load_faiss() -> Any:
    """faiss, imported late: it is heavy, and its OpenMP and torch's clash on some machines."""
    import faiss

    # Its own threshold makes it compare vector by vector where a matrix product is five times as fast.
    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss
