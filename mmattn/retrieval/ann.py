"""Approximate search, chosen by measuring: which faiss index, with which parameters, is said and why.

Every candidate is built on a sample of the data and measured against exact search there; the quickest one
that reaches the recall is built on everything, and its search parameter measured again. Whatever faiss
finds is scored anew in float32 from the vectors themselves, so scores never depend on the index.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmattn.errors import InputError
from mmattn.retrieval.exact import ExactSearch, Metric, pair_scores, select_best
from mmattn.retrieval.plan import Plan, Settings, Trial

__all__ = ["AnnSearch", "choose", "read_faiss"]

EXACT_BELOW = 50_000  # vectors: below, exact search answers thousands of queries a second
FEWEST = 1000  # vectors: with fewer there is nothing to train on
_SAMPLE = 65_536  # vectors that candidates are compared on
_ASKED = 800  # queries they are compared with, half to choose and half to report
_EFFORTS = {
    "IVF": (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128, 256),
    "HNSW": (10, 16, 24, 32, 48, 64, 96, 128, 256, 512),
}


class AnnSearch:
    """A faiss index over vectors that it does not own.

    faiss numbers vectors in the order in which they came, and most of its indexes cannot forget one.
    `places` says in which row each of them lies now, -1 for those that were removed.
    """

    def __init__(
        self, index: Any, settings: Settings, metric: Metric, places: np.ndarray, *, mapped: bool = False
    ):
        self.index = index
        self.mapped = mapped
        self.adding = 0.0  # seconds that `build` took after training
        self.settings = settings
        self.metric = metric
        self.places = places

    @classmethod
    def build(cls, vectors: np.ndarray, metric: Metric, settings: Settings) -> AnnSearch:
        """Train on a sample, then add everything."""
        faiss = _faiss()
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        index = faiss.index_factory(vectors.shape[1], settings.kind, kind)
        if settings.kind.startswith("IVF"):
            index.cp.max_points_per_centroid = 64
            index.cp.niter = 10
            index.cp.min_points_per_centroid = 1  # small sets are meant
        trained_on = min(len(vectors), max(65_536, 64 * getattr(index, "nlist", 0)))
        rows = np.sort(np.random.default_rng(0).choice(len(vectors), trained_on, replace=False))
        index.train(np.ascontiguousarray(vectors[rows]))
        start = time.perf_counter()
        index.add(np.ascontiguousarray(vectors))
        search = cls(index, settings, metric, np.arange(len(vectors)))
        search.adding = time.perf_counter() - start
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
        wanted = min(k * self.settings.refine, len(self.places))
        _, numbers = self.index.search(queries, wanted, params=self._parameters(wanted, len(vectors), rows))
        found = np.where(numbers < 0, -1, self.places[numbers])
        scores, best = [], []
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

    def _parameters(self, wanted: int, total: int, rows: np.ndarray | None) -> Any:
        faiss = _faiss()
        options: dict[str, Any] = {}
        removed = self.places < 0
        if rows is not None or removed.any():
            allowed = np.zeros(total + 1, dtype=bool)  # the last one stands for what was removed
            allowed[slice(total) if rows is None else rows] = True
            bits = np.packbits(allowed[self.places], bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        if self.settings.kind.startswith("IVF"):
            return faiss.SearchParametersIVF(nprobe=self.settings.effort, **options)
        return faiss.SearchParametersHNSW(efSearch=max(self.settings.effort, wanted), **options)

    def added(self, vectors: np.ndarray, first: int) -> None:
        """Take vectors that lie in the rows from `first` on."""
        if self.mapped:  # faiss writes into a mapping, and crashes: it needs memory of its own
            self.index = _faiss().deserialize_index(_faiss().serialize_index(self.index))
            self.mapped = False
        self.index.add(np.ascontiguousarray(vectors))
        self.places = np.concatenate([self.places, np.arange(first, first + len(vectors))])

    def dropped(self, keep: np.ndarray) -> None:
        """Rows were removed; `keep` [N] says which stay and move up."""
        moved = np.where(keep, np.cumsum(keep) - 1, -1)
        self.places = np.where(self.places < 0, -1, moved[self.places])

    def write(self, path: Path) -> None:
        """Write the faiss index."""
        _faiss().write_index(self.index, str(path))


def read_faiss(path: Path, count: int, dim: int, metric: Metric) -> Any:
    """Open a faiss file whose hash was checked, mapped into memory.

    faiss trusts what it reads, so it gets limits: no field can be larger than the file.

    Raises:
        InputError: it is no index of so many vectors, of this width and metric.
    """
    faiss = _faiss()
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
    if (index.ntotal, index.d, index.metric_type) != (count, dim, expected):
        raise InputError(
            f"{path}: got a faiss index of {index.ntotal} vectors of width {index.d}, the manifest says "
            f"{count} of width {dim} ({metric})"
        )
    return index


def choose(
    vectors: np.ndarray,
    metric: Metric,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    budget_mb: float | None = None,
    build_minutes: float = 4.0,
) -> tuple[AnnSearch | None, Plan]:
    """Find the quickest index that reaches the recall, by trying; None where only exact search does.

    Args:
        vectors: [N, D] float32.
        metric: as in `Index.build`.
        target_recall: share of the true k nearest that has to be found.
        k: the number of neighbours that it is measured with.
        budget_mb: memory that the index may take beside the vectors.
        build_minutes: candidates that would take longer to build on everything are left out.
    """
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False))]
    judge = _Judge(sample, metric, target_recall, k)
    scale = len(vectors) / len(sample)
    trials, able = [], []
    for kind in _kinds(len(sample), vectors.shape[1]):
        for found in _tried(judge, kind, scale):
            verdict = "able"
            if not found.reached:
                verdict = "misses the recall"
            elif budget_mb is not None and found.trial.memory_mb > budget_mb:
                verdict = f"above the budget of {budget_mb:g} MB"
            elif found.adding * scale * 1.3 > 60 * build_minutes:  # a little more than linear
                verdict = "takes too long to build on everything"
            else:
                able.append((found.trial.queries_per_second, found.settings))
            trials.append(replace(found.trial, verdict=verdict))
    full = _Judge(vectors, metric, target_recall, k) if scale > 1 else judge
    for _, settings in sorted(able, key=lambda pair: -pair[0]):
        parts = settings.kind.split(",")
        grown = ",".join([f"IVF{_lists(len(vectors))}", *parts[1:]]) if "IVF" in parts[0] else settings.kind
        start = time.perf_counter()
        search = AnnSearch.build(vectors, metric, Settings(grown, settings.effort, settings.refine))
        seconds = time.perf_counter() - start
        result = full.tune(search, seconds, 1.0)
        verdict = "taken" if result.reached else "misses the recall on everything"
        trials.append(replace(result.trial, verdict=verdict))
        if result.reached:
            reason = (
                f"{result.settings}: the quickest of {len(able)} candidates that reach recall@{k} "
                f"{target_recall:g} on a sample"
            )
            return search, Plan(reason, target_recall, k, tuple(trials))
    reason = f"exact search: no approximate index reaches recall@{k} {target_recall:g} within the limits"
    return None, Plan(reason, target_recall, k, tuple(trials))


@dataclass(frozen=True)
class _Found:
    settings: Settings
    trial: Trial
    reached: bool
    adding: float  # seconds of the build that grow with the number of vectors


class _Judge:
    """Measures searches over some vectors against the truth: their own nearest, themselves left out."""

    def __init__(self, vectors: np.ndarray, metric: Metric, target: float, k: int):
        self.vectors, self.metric, self.target, self.k = vectors, metric, target, k
        self.asked = np.random.default_rng(1).choice(len(vectors), min(_ASKED, len(vectors)), replace=False)
        self.queries = np.ascontiguousarray(vectors[self.asked])
        self.truth = self._without_self(ExactSearch(vectors, metric)(self.queries, k + 1)[1])

    def _without_self(self, rows: np.ndarray) -> np.ndarray:
        keep = rows != self.asked[:, None]
        keep[keep.all(1), -1] = False
        return rows[keep].reshape(len(rows), -1)

    def tune(self, search: AnnSearch, seconds: float, scale: float) -> _Found:
        """Raise the effort until the recall is reached; half of the queries choose, the other half report."""
        family = "IVF" if search.settings.kind.startswith("IVF") else "HNSW"
        half = len(self.asked) // 2
        for effort in _EFFORTS[family]:
            search.settings = Settings(search.settings.kind, effort, search.settings.refine)
            start = time.perf_counter()
            rows = self._without_self(search.search(self.vectors, self.queries, self.k + 1)[1])
            speed = len(self.asked) / (time.perf_counter() - start)
            hits_Q = (rows[:, :, None] == self.truth[:, None, :]).any(2).mean(1)
            chosen = hits_Q[:half]
            # Two standard errors above the target, so that other queries reach it too.
            reached = bool(chosen.mean() - 2 * chosen.std() / np.sqrt(half) >= self.target)
            if reached or effort == _EFFORTS[family][-1]:
                break
        trial = Trial(
            str(search.settings), len(self.vectors), float(hits_Q[half:].mean()), speed,
            _megabytes(search.index) * scale, seconds, "",
        )  # fmt: skip
        return _Found(search.settings, trial, reached, search.adding)


def _tried(judge: _Judge, kind: str, scale: float) -> Iterator[_Found]:
    """A kind of index, with each refinement that makes sense for it."""
    start = time.perf_counter()
    search = AnnSearch.build(judge.vectors, judge.metric, Settings(kind, 1, 1))
    seconds = time.perf_counter() - start
    for refine in (4, 12) if "PQ" in kind else (2,) if "SQ" in kind else (1,):
        search.settings = Settings(kind, 1, refine)
        yield judge.tune(search, seconds, scale)


def _kinds(count: int, dim: int) -> list[str]:
    lists = _lists(count)
    kinds = [f"IVF{lists},Flat", f"IVF{lists},SQ8", "HNSW32"]
    if dim % 2 == 0:
        kinds.insert(0, f"IVF{lists},PQ{dim // 2}x4fs")
    return kinds


def _lists(count: int) -> int:
    """Inverted lists: about twice the square root, a power of two."""
    return int(2 ** np.clip(np.round(np.log2(2 * np.sqrt(count))), 3, 12))


def _megabytes(index: Any) -> float:
    return len(_faiss().serialize_index(index)) / 1e6


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    """A few queries at a time, so that the vectors gathered for them stay in the cache."""
    return (rows[start : start + 64] for start in range(0, len(rows), 64))


def _faiss() -> Any:
    """faiss, imported late: it is heavy, and its OpenMP and torch's clash on some machines."""
    import faiss

    # Its own threshold makes it compare vector by vector where a matrix product is five times as fast.
    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss
